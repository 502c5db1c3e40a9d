"""What the documentation says runs: each command and each block of Python of a page, in a folder like the reader's."""

import contextlib
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from helpers import FAST, call
from napari_unet import Stack, UnetError, examples, load_model, open_stack, wait
from napari_unet.store.save import save_stack

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^( *)```(bash|python)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# A network that is trained in a second, where the reader's takes minutes.
SHORT = ["--depth", "2", "--base-features", "4", "--patch", "32", "32", "--batch", "1"]
SIZE, WIDTH = 128, 256  # of an image; of the stack
MADE = (  # what a reader has when a page begins
    "napari-unet train --images raw/ --labels painted/ --out own.model",
    "napari-unet predict stack.ome.zarr --model nuclei-2d --out cells.ome.zarr",
    "napari-unet batch raw/ --model nuclei-2d --out results/ --axes yx",
)

# How a message says what to do: after a semicolon or a question, as what must be, or as an order.
REMEDY = re.compile(
    r"; |\? |\bmust\b|\bneeds?\b|^(choose|give|open) |: (give|draw|paint|press|choose|use|name|one of each|pip install)"
    r"|leave .* out|\b(damaged|open) at "  # with the message of what was wrong, which has it
)

pytestmark = pytest.mark.timeout(300)


def pages():
    """The pages in the order of the site, as a reader goes through them."""
    nav = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return re.findall(r": ([\w/-]+\.md)$", nav, re.MULTILINE)


def blocks(page):
    """The (language, code) of a page, without the indent of its tabs."""
    for indent, language, code in BLOCK.findall((DOCS / page).read_text()):
        yield language, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)


def write(path, values):
    path.parent.mkdir(exist_ok=True)
    size = {"resolution": (2, 2), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(path, values.astype("uint16"), imagej=True, **size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages name: images, labels, clean and noisy images, a stack and its truth, a model."""
    root = tmp_path_factory.mktemp("reader")
    image, labels = examples.nuclei()
    noisy = examples.noisy_nuclei()[0].clip(0)
    for number, name in enumerate("abc"):
        part = np.s_[:SIZE, number * SIZE : (number + 1) * SIZE]
        write(root / "raw" / f"{name}.tif", image[part])
        write(root / "numbered" / f"{name}.tif", labels[part])
        write(root / "painted" / f"{name}.tif", np.where(labels[part] > 0, 2, 1))
        write(root / "clean" / f"{name}.tif", image[part])
        write(root / "noisy" / f"{name}.tif", noisy[part])
    write(root / "truth.tif", labels[:WIDTH, :WIDTH])
    wait(save_stack(Stack(image[:WIDTH, :WIDTH], "yx", (0.5, 0.5), ("micrometer",) * 2), root / "stack.ome.zarr"))
    with contextlib.chdir(root):
        for line in MADE:
            run(line)
    return root


def run(line):
    """Run a command of a page."""
    name, *words = shlex.split(line, comments=True)
    assert name == "napari-unet"
    code, said = call(*shortened(words))
    assert code == 0, f"{line}: {said}"


def shortened(words):
    """A command as the page has it, but for the minutes that a training takes, and axes that plain files lack."""
    if words[0] != "train":
        return [*words, *(FAST if words[0] in ("predict", "generate", "batch", "compare") else [])]
    if "--minutes" in words:
        at = words.index("--minutes")
        words = [*words[:at], *words[at + 2 :]]
    return [*words, "--axes", "yx", "--steps", "1", *([] if "--init" in words else SHORT), *FAST]


@pytest.fixture(scope="module")
def listing():
    """The module that lists every message on the page of troubles."""
    spec = importlib.util.spec_from_file_location("messages", DOCS / "messages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_message_says_what_to_do(listing):
    assert [each for each in listing.messages() if not REMEDY.search(each.text)] == []


def test_a_message_is_found_on_the_page_of_troubles(listing, tmp_path):
    page = listing.on_page_markdown((DOCS / "troubleshooting.md").read_text())
    for said in (refused(Stack, np.zeros((4, 4)), "yxz"), refused(open_stack, tmp_path), refused(load_model, tmp_path)):
        words = max(re.split(r"'[^']*'|\(.*?\)|/\S+", said.replace("_", r"\_")), key=len).strip(" ;,.")
        assert len(words) > 20 and words in page.replace("**", ""), said


def refused(call, *given):
    """What a call says that is refused."""
    with pytest.raises(UnetError) as caught:
        call(*given)
    return str(caught.value)


def test_every_page_is_in_the_site():
    assert sorted(pages()) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [page for page in pages() if list(blocks(page))])
def test_what_a_page_says_runs(page, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for language, code in blocks(page):
        if language == "bash":
            for line in code.strip().splitlines():
                run(line)
        else:
            compiled = compile(code, page, "exec")
            if "SLURMCluster" not in code:  # which needs a cluster
                exec(compiled, {})
