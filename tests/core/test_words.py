"""The words of the field: what went is neither in the package nor in its README, manifest and help."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import napari_unet
from napari_unet.cli import app
from napari_unet.inference.config import PredictConfig
from napari_unet.network import UNetConfig
from napari_unet.settings import FORMER, former_names
from napari_unet.task import Autoencode, Instances, Restore, Semantic, SuperResolve
from napari_unet.training.config import TrainConfig
from napari_unet.training.job import TrainJob

SOURCE = Path(napari_unet.__file__).parent
ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "napari.yaml",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)
FILES = [*sorted(SOURCE.rglob("*.py")), *(ROOT / page for page in PAGES)]
LABELS = (
    "only what is painted counts",
    "noise is learnt from them alone",
    "each describes itself",
    "objects, to be kept apart",
    "objects, learnt as one class",
    "Look at the data",
    "A training whose window is gone",
    "how undecided the network",
    '"Continue"',
    '"unfinished", self',
    '"then"',
    ".along(",
)
PROSE = (
    r"\b(?:one|size|sizes|index|factors|elements|stride|slice|letter|spacing|number|[Pp]atch|[Bb]lock|voxel) an axis\b",
    r", an axis[.;:,)]",
    r"\b[Oo]ne an? (?:channel|line|class|value|row|file|dimension|epoch)\b",
    r"\b(?:class a voxel|patches a step|letter a dimension|planes a slab|a line each|a row each)\b",
)
OPTION = re.compile(rf"(?<![\w-])--(?:no-)?(?:{'|'.join(sorted(set(FORMER.values())))})(?![\w-])")
NAMES = {"fitted", "passed", "asked", "taken_over", "carried_out", "Lesson", "lesson", "Speaker", "speaker"}
NAMES |= {"ORPHANS", "orphan", "objective", "spread", "light"}
KINDS = (TrainConfig, PredictConfig, UNetConfig, Semantic, Instances, Restore, SuperResolve, Autoencode, TrainJob)


def commands():
    return typer.main.get_command(app).commands


@pytest.mark.parametrize("gone", [*map(re.escape, LABELS), *PROSE, OPTION.pattern])
def test_no_file_says_what_went(gone):
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in FILES
        if path.exists()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(gone, line)
    ]
    assert not found


@pytest.mark.parametrize("command", sorted(commands()))
def test_no_help_has_a_former_option(command):
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "--help" in text and not OPTION.search(text)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_has_its_former_name(kind):
    assert former_names(kind)
    assert not {field.name for field in dataclasses.fields(kind)} & set(former_names(kind))


def test_no_name_in_the_package_is_one_that_went():
    """Functions, classes, parameters, fields and variables; keys of files are strings."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = {getattr(node, part, None) for part in ("id", "attr", "arg", "name")}
            found += [(path.name, node.lineno, name) for name in names & NAMES if hasattr(node, "lineno")]
    assert not found


def test_each_number_says_why_it_has_its_value():
    """Constants of modules that are numbers, alone or several."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        lines = path.read_text("utf-8").splitlines()
        for node in ast.parse("\n".join(lines)).body:
            values = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if not isinstance(node, ast.Assign) or not values or {*map(type, values)} - {int, float}:
                continue
            written = lines[node.lineno - 1 : node.end_lineno]
            said = lines[node.lineno - 2].startswith("#") or any("#" in line for line in written)
            found += [] if said else [f"{path.name}:{node.lineno}: {written[0]}"]
    assert not found
