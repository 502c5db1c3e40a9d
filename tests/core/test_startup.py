"""What each command loads: a library is imported where it is used, not before."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import napari_unet
from napari_unet.cards import SHIPPED, describe_model
from napari_unet.errors import ModelError

WINDOW = ["napari", "qtpy", "magicgui"]
COMPILER = ["torch._dynamo", "torch._inductor", "sympy"]
NEVER = [*WINDOW, *COMPILER, "distributed", "skimage", "scipy.stats", "pandas"]
ARITHMETIC = ["torch", "scipy", "dask", "cc3d"]
FILES = ["zarr", "tifffile", "PIL", "fsspec", "numcodecs"]
# In this order, in one process: what a command may not load is not loaded by those before it either.
STEPS = [
    (["--version"], [*NEVER, *ARITHMETIC, *FILES, "numpy"]),
    (["--help"], [*NEVER, *ARITHMETIC, *FILES, "numpy"]),
    (["predict", "--help"], [*NEVER, *ARITHMETIC, *FILES, "numpy"]),
    (["info", "nuclei-2d"], [*NEVER, *ARITHMETIC, *FILES, "numpy"]),
    (["train", "--images", "missing.png", "--labels", "a.png", "--out", "m"], [*NEVER, "torch", "scipy", "dask"]),
    (["info", "a.png"], [*NEVER, "torch", "scipy", "dask"]),  # pieces of what may be labels are counted by cc3d
    (["predict", "a.png", "--model", "nuclei-2d", "--out", "a.ome.zarr"], [*NEVER, "dask", "scipy"]),
    (["verify", "a.ome.zarr"], [*NEVER, "dask", "scipy"]),
    (["batch", "images", "--model", "nuclei-2d", "--out", "results"], [*NEVER, "dask", "scipy"]),
]
SCRIPT = """
import sys
from napari_unet.cli import app

for command, banned in {steps!r}:
    try:
        app(command)
    except SystemExit as end:
        assert bool(end.code) == ("missing.png" in command), command
    found = [name for name in banned if name in sys.modules]
    assert not found, f"{{' '.join(command)}} loads {{', '.join(found)}}"
"""


def run(script, folder):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)


def test_a_command_loads_only_what_it_uses(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    for name in ("b.png", "c.png"):
        (tmp_path / "images" / name).write_bytes((tmp_path / "a.png").read_bytes())
    found = run(SCRIPT.format(steps=STEPS), tmp_path)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "napari-unet-stacks 0." in found.stdout


def test_networks_of_every_kind_are_checked_without_a_compiler(tmp_path):
    script = (
        "import sys\n"
        "from napari_unet import UNetConfig\n"
        "from napari_unet.model.weights import expected\n"
        "for more in ({}, {'residual': True}, {'norm': 'group'}, {'norm': 'instance', 'ndim': 3},\n"
        "             {'upscale': (2, 2)}, {'upsample': 'interpolate'}, {'skips': False},\n"
        "             {'padding': 'valid', 'norm': 'none'}):\n"
        "    expected(UNetConfig(base_features=8, depth=1, **more))\n"
        f"print([name for name in {NEVER} if name in sys.modules])"
    )
    found = run(script, tmp_path)
    assert found.stdout.strip() == "[]", found.stderr


def test_garbage_is_not_looked_for_while_libraries_are_loaded_but_is_afterwards(tmp_path):
    script = (
        "import gc\n"
        "from napari_unet.cli.shell import loading\n"
        "before = gc.get_stats()[2]['collections']\n"
        "with loading():\n"
        "    import napari_unet.inference.predict\n"
        "print(gc.get_stats()[2]['collections'] - before, gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    assert run(script, tmp_path).stdout.split() == ["0", "True", "True"]


@pytest.mark.parametrize("model", sorted(SHIPPED.iterdir()), ids=lambda p: p.name)
def test_a_card_told_without_the_network_is_that_of_the_model(model):
    assert describe_model(model) == napari_unet.load_model(model).card()


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "elsewhere", "no table", "no record", "other axes"])
def test_a_card_is_not_told_of_a_damaged_model(damage, tmp_path):
    for file in (SHIPPED / "nuclei-2d").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights, card = tmp_path / "weights.safetensors", tmp_path / "model.json"
    data = bytearray(weights.read_bytes())
    if damage == "missing":
        weights.unlink()
    elif damage in ("cut", "flip"):
        data[-7] ^= 16
        weights.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    else:
        old, new = {
            "elsewhere": ('"weights.safetensors"', '"../weights.safetensors"'),
            "no table": ('"config": {', '"config": [], "was": {'),
            "no record": ('"record"', '"records"'),
            "other axes": ('"scale": [', '"scale": [1.0, '),
        }[damage]
        assert old in card.read_text()
        card.write_text(card.read_text().replace(old, new, 1))
    with pytest.raises(ModelError, match=r"model\.json|weights\.safetensors"):
        describe_model(tmp_path)
