"""What the shell prints is text, whatever files are called, and the files it leaves replace none of others."""

import contextlib
import json
import os
import socket

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from helpers import FAST, call, example, image_of, short, stopped_after, tree
from kinds import small
from napari_unet import Epoch, PredictConfig, Stack, open_stack, predict, train
from napari_unet.cli import app
from napari_unet.demo import run_demo
from napari_unet.errors import UnsafeError
from napari_unet.events import Progress, wait
from napari_unet.store import lock
from napari_unet.store.lock import LOCK
from napari_unet.store.plan import FOLDER
from napari_unet.text import escaped

NAMES = [
    "[dapi]",
    "[/x]",
    "[bold]",
    "[link=x]",
    "\x1b[31m",
    "\x1b]0;title\x07",
    "a\nb",
    "\u202egpj",
    "\x9b1m",
    "<b>&amp;",
]


def run(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_printed_as_it_is_and_orders_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = f"{name}.png".replace("/", "")
    Image.fromarray(image_of((48, 48)).astype(np.uint8)).save(file)
    small().save("tiny.model")
    for args in (
        ["info", file],
        ["info", f"{name} is not there"],
        ["predict", file, "--model", "tiny.model", "--out", f"{file}.ome.zarr", *FAST],
        ["predict", file, "--model", f"{name} is not there", "--out", "o.ome.zarr", *FAST],
        ["verify", f"{file}.ome.zarr"],
        ["batch", ".", "--model", "tiny.model", "--out", "all", "--pattern", "*.png", *FAST],
    ):
        result = run(*args)
        said = result.stdout + result.stderr
        assert escaped(name if "not there" in " ".join(args) else file.removesuffix(".png"))[:6] in said, args
        assert all(c.isprintable() or c == "\n" for c in said), args


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_events_are_text(name, terminal, monkeypatch, capsys):
    from napari_unet.cli.progress import show

    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def events():
        yield Progress(1, 2, "predict", f"file {name} was read")

    show(events())
    assert f"file {escaped(name)} was read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\x1b[31m\r\n\t\x00", r"a\x1b[31m\r\n\t\x00"),
        ("\udcff\u2028\u202e\u200b", r"\udcff\u2028\u202e\u200b"),
        ("Zellkern µ Ångström 核 🔬 [x]", "Zellkern µ Ångström 核 🔬 [x]"),
    ],
)
def test_only_what_a_terminal_obeys_is_written_out(name, text):
    assert escaped(name) == text


@pytest.fixture
def pairs(tmp_path):
    """Two images of each kind: classes, objects, intensities."""
    rng = np.random.default_rng(0)
    for kind in ("semantic", "instances", "intensity"):
        image = rng.integers(0, 3, (40, 40)).astype("u2" if kind != "intensity" else "f4")
        for side in ("result", "truth"):
            tifffile.imwrite(tmp_path / f"{kind}-{side}.tif", image)
    return tmp_path


@pytest.mark.parametrize("kind", ["semantic", "instances", "intensity"])
def test_scores_replace_scores_and_nothing_else(kind, pairs):
    args = ["evaluate", pairs / f"{kind}-result.tif", pairs / f"{kind}-truth.tif", "--kind", kind, "--axes", "yx"]
    own = pairs / "scores.json"
    for _ in range(2):
        code, said = call(*args, "--json", own)
        assert code == 0, said
    scores = json.loads(own.read_text())
    (pairs / "text.json").write_text("years of work")
    (pairs / "table.json").write_text(json.dumps({"dice": 1.0, "age": 3}))
    (pairs / "more.json").write_text(json.dumps({**scores, "why": "because"}))
    (pairs / "list.json").write_text(json.dumps([scores]))
    (pairs / "none.json").write_bytes(b"")
    (pairs / "folder.json").mkdir()
    for name in ("text", "table", "more", "list", "none", "folder"):
        file = pairs / f"{name}.json"
        before = file.read_bytes() if file.is_file() else None
        code, said = call(*args, "--json", file)
        assert code == 5 and file.name in said
        assert before is None or file.read_bytes() == before
    (pairs / "link.json").symlink_to(pairs / "text.json")
    assert call(*args, "--json", pairs / "link.json")[0] in (4, 5)
    assert (pairs / "text.json").read_text() == "years of work"


def test_a_picture_replaces_a_picture_of_evaluate_and_nothing_else(pairs):
    args = ["evaluate", pairs / "intensity-result.tif", pairs / "intensity-truth.tif", "--axes", "yx"]
    for _ in range(2):
        assert call(*args, "--picture", pairs / "beside.png")[0] == 0
    Image.new("L", (4, 4)).save(pairs / "mine.png")
    before = (pairs / "mine.png").read_bytes()
    code, said = call(*args, "--picture", pairs / "mine.png")
    assert code == 5 and "mine.png" in said and (pairs / "mine.png").read_bytes() == before


def locked_elsewhere(ledger):
    """Leave a lock as a run on another machine does."""
    values = {"host": f"not-{socket.gethostname()}", "pid": 1, "boot": "", "started": "", "since": "2026", "run": "t"}
    (ledger / LOCK).write_text(json.dumps(values))


@pytest.fixture
def impatient(monkeypatch):
    """Who does not beat at once counts as gone."""
    monkeypatch.setattr(lock, "SILENCE", 0.2)


def test_a_lock_of_another_machine_is_broken_by_the_option_that_is_named(impatient, tmp_path):
    model, out = small(), tmp_path / "o.ome.zarr"
    model.save(tmp_path / "tiny.model")
    tifffile.imwrite(tmp_path / "a.tif", image_of((64, 64)), metadata={"axes": "YX"})
    stack = open_stack(tmp_path / "a.tif", "yx")
    stopped_after(1, predict(stack, model, out, PredictConfig(block=(16, 64), precision="fp32", device="cpu")))
    ledger = next(out.rglob("plan.json")).parent
    locked_elsewhere(ledger)
    args = ["predict", tmp_path / "a.tif", "--axes", "yx", "--model", tmp_path / "tiny.model", "--out", out]
    args += ["--block", 16, 64, *FAST]
    code, said = call(*args)
    assert code == 5 and "--break-lock" in said
    code, said = call(*args, "--break-lock")
    assert code == 0 and f"not-{socket.gethostname()}" in said


@pytest.mark.parametrize("command", ["finish", "evaluate"])
def test_each_command_that_names_the_option_to_break_a_lock_has_it(impatient, pairs, command):
    args = ["evaluate", pairs / "semantic-result.tif", pairs / "semantic-truth.tif", "--layers", pairs / "l.ome.zarr"]
    if command == "finish":
        args = ["finish", pairs / "a.model"]
        image = image_of((32, 32))
        run = train(
            [(Stack(image, "yx"), Stack((image > image.mean()).astype("u1"), "yx"))], pairs / "a.model", short()
        )
        next(event for event in run if isinstance(event, Epoch))
        run.close()
    else:
        assert call(*args)[0] == 0
        args += ["--overwrite"]
    (ledger,) = pairs.glob("l.ome.zarr/labels/*/.napari_unet" if command == "evaluate" else "a*.training/.napari_unet")
    locked_elsewhere(ledger)
    code, said = call(*args)
    assert code == 5 and "--break-lock" in said
    assert call(*args, "--break-lock")[0] == 0


def test_a_training_that_another_machine_lost_in_its_first_moment_can_be_begun_again(impatient, pairs):
    (pairs / "nuclei.model.training" / FOLDER).mkdir(parents=True)
    locked_elsewhere(pairs / "nuclei.model.training" / FOLDER)
    args = ["--images", pairs / "semantic-result.tif", "--labels", pairs / "semantic-truth.tif", "--axes", "yx"]
    args += ["--out", pairs / "nuclei.model", "--steps", 2, "--depth", 1, "--base-features", 4, *FAST]
    code, said = call("demo", "--out", pairs)
    assert code == 5 and "--break-lock" in said
    with contextlib.closing(run_demo(pairs, 2, break_lock=True)) as events:
        assert any("took over from" in getattr(event, "message", "") for event in events)
    locked_elsewhere(pairs / "nuclei.model.training" / FOLDER)
    for file in (pairs / "nuclei.model.training").glob("*.*"):
        if file.is_file():
            file.unlink()
    code, said = call("train", *args)
    assert code == 5 and "--break-lock" in said
    assert call("train", *args, "--break-lock")[0] == 0
    assert call("demo", "--break-lock", "--help")[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_the_folder_of_a_training_that_is_a_link_is_not_gone_on_with(pairs):
    made = train([example()], pairs / "mine.model", short())
    next(event for event in made if isinstance(event, Epoch))
    made.close()
    (pairs / "a.model.training").symlink_to(pairs / "mine.model.training")
    before = tree(pairs / "mine.model.training", ledger=True)
    code, said = call("finish", pairs / "a.model")
    assert code == 4 and "a.model.training is a symbolic link" in said
    with pytest.raises(UnsafeError, match="symbolic link"):
        wait(train([example()], pairs / "a.model", short(resume=True)))
    assert tree(pairs / "mine.model.training", ledger=True) == before
