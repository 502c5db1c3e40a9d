"""What the package declares is so: floors, addresses, and which inner names of other packages it touches."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
import zarr.storage

from napari_unet.errors import UsageError
from napari_unet.sources.zarrays import Guarded
from napari_unet.widgets import floors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "napari_unet"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHERS = ["tifffile", "zarr", "numcodecs", "napari", "npe2", "magicgui", "dask", "torch", "safetensors", "fsspec"]
# The inner names of other packages that are used, each because nothing public does the same. Whoever adds one says why.
INNER = {
    # PyTorch's own fused convolution of the CPU; the module does without where it is missing.
    ("fused.py", "_reorder_convolution_weight"),
    ("fused.py", "_convolution_pointwise"),
    # What oneDNN takes: what the processor has says more than its settings allow.
    ("device.py", "_is_mkldnn_bf16_supported"),
}


def _trees():
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def _own(trees):
    """Return the private names that our own classes and modules define."""
    names = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                names.add(node.name)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            if isinstance(node, ast.Assign):
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def test_inner_names_of_other_packages_are_listed():
    trees = _trees()
    own = _own(trees)
    found = {
        (path.rpartition("/")[2], node.attr)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in own
    }
    assert found == INNER


def test_inner_methods_that_are_written_anew_are_still_there():
    # zarr makes a wrapped store anew with it, for reading and writing: ours takes more than the store.
    assert callable(zarr.storage.WrapperStore._with_store)
    assert "_with_store" in vars(Guarded)


def test_modules_of_other_packages_are_imported_by_public_names():
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            named = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in named:
                top, *rest = module.split(".")
                inner = [part for part in rest if part.startswith("_") or part in ("core", top)]
                assert top not in OTHERS or not inner, f"{path} imports {module}"


def test_annotations_that_the_oldest_zarr_cannot_take_apart_are_text():
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            notes = [
                node.returns,
                *(a.annotation for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)),
            ]
            for part in (part for note in notes if note is not None for part in ast.walk(note)):
                shown = ast.unparse(part) if isinstance(part, ast.Subscript) else ""
                assert not shown.startswith("zarr."), f"{path}: {node.name} has {shown}, not in quotes"


@pytest.mark.parametrize(
    ("found", "fine"),
    [("0.6.6", False), ("0.5.6rc1", False), ("0.7.0", True), ("0.7.1", True), ("0.10.0", True), ("1.0.dev3", True)],
)
def test_an_older_viewer_is_named_in_one_line(monkeypatch, found, fine):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found if name == "napari" else "0.10.2")
    if fine:
        floors.check_viewer()
    else:
        with pytest.raises(UsageError) as error:
            floors.check_viewer()
        assert str(error.value).splitlines() == [
            f"napari is {found}, wanted is >=0.7 for U-Net Stacks: pip install -U 'napari-unet-stacks[all]'"
        ]


def test_the_library_alone_asks_for_nothing_of_a_window():
    window = re.compile(r"napari|qt|magicgui|psygnal|vispy", re.IGNORECASE)
    assert not [r for r in PROJECT["dependencies"] if window.match(r)]


def test_every_dependency_has_a_floor_and_the_lowest_lane_takes_it():
    shown = subprocess.run(
        [sys.executable, ROOT / ".ci" / "floors.py", "lowest"], capture_output=True, text=True, check=True
    )
    pins = dict(line.split("==") for line in shown.stdout.split())
    for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["all"]:
        name, _, floor = requirement.partition(">=")
        assert pins[name] == floor


def test_the_citation_and_the_addresses_are_the_projects():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert {"Source", "Documentation", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert all(url.startswith(PROJECT["urls"]["Source"]) for url in PROJECT["urls"].values())


def test_the_icon_of_the_manifest_is_in_the_package():
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    package, _, name = manifest["icon"].partition(":")
    assert package == "napari_unet"
    assert (SOURCE / name).read_text(encoding="utf-8").startswith("<svg")
    assert manifest["categories"]


def test_the_recipe_for_conda_asks_for_what_the_package_asks_for():
    recipe = yaml.safe_load((ROOT / "packaging" / "recipe.yaml").read_text(encoding="utf-8"))
    names = {"pytorch": "torch"}  # as conda calls them
    asked = [line.split() for line in recipe["requirements"]["run"]]
    theirs = {names.get(name, name): floor for name, floor in asked}
    assert theirs.pop("python") == PROJECT["requires-python"]
    ours = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["all"]]
    assert theirs == {re.sub(r"\[.*\]", "", r.partition(">=")[0]): ">=" + r.partition(">=")[2] for r in ours}
    assert recipe["context"]["version"] == PROJECT["version"]
    (command,) = recipe["build"]["python"]["entry_points"]
    assert dict([command.split(" = ")]) == PROJECT["scripts"]
