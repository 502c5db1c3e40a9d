"""The house stands as it was drawn: sizes, arrows, what is loaded when, and what is never called."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import napari_unet

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "napari_unet"
MODULES = sorted(SOURCE.rglob("*.py"))
BANNED = {
    r"pickle\.(loads?|Unpickler)\b": "runs code from files",
    r"(?<!safetensors\.)torch\.load\((?!.*weights_only=True)": "runs code from files",
    r"torch\.hub|torch\.jit\.load|torch\.export\.load": "runs code from files",
    r"yaml\.load\(|allow_pickle=True": "runs code from files",
    r"extractall\(": "writes outside its folder",
    r"(?<![\w.])(eval|exec)\(": "runs text",
    r"shell=True": "runs text",
    r"mode=\"w\"|overwrite=True\)": "deletes what is there",
}
# Through the pipes between a process and the one that it started, and never of a file.
ALLOWED = {"process/parcel.py": next(iter(BANNED))}
# In a process that the kernel confines to computing, once, where the user asks for it.
ALLOWED["zoo/confined.py"] = next(pattern for pattern in BANNED if "jit" in pattern)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_rooms_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 70, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_nothing_dangerous_is_called(path):
    code = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
    code = re.sub(r'"""(?:.|\n)*?"""', "", code)
    allowed = ALLOWED.get(path.relative_to(SOURCE).as_posix())
    banned = {pattern: why for pattern, why in BANNED.items() if pattern != allowed}
    found = [f"{pattern}: {why}" for pattern, why in banned.items() if re.search(pattern, code)]
    assert not found


def test_zarr_arrays_are_opened_where_their_metadata_was_checked():
    opening = re.compile(r"zarr\.(open|load)\w*\(|\bda\.from_zarr\(")
    found = {path.relative_to(SOURCE).as_posix() for path in MODULES if opening.search(path.read_text())}
    # tifffile writes the metadata of a TIFF itself.
    assert found <= {"sources/zarrays.py", "sources/tiff.py"}


def test_the_drawing_for_contributors_has_the_rooms_of_the_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    wanted = [re.split(r" [:|] ", floor) for floor in contract["layers"]]
    (drawing,) = re.findall(r"```\n(cli/.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    found = [re.findall(r"(\w+)/?(?: {2}|$)", re.split(r" {3,}", line)[0] + "  ") for line in drawing.splitlines()]
    assert found == wanted, "the drawing in CONTRIBUTING.md is not of the layers in pyproject.toml"


@pytest.mark.parametrize("module", ["napari_unet", "napari_unet.cli"])
def test_importing_is_light(module):
    heavy = ("torch", "napari", "zarr", "dask", "qtpy", "magicgui", "scipy", "skimage")
    script = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_there_and_are_all():
    assert napari_unet.__all__ == sorted(napari_unet.__all__)
    for name in napari_unet.__all__:
        assert getattr(napari_unet, name).__module__.startswith("napari_unet.")
    assert dir(napari_unet) == napari_unet.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = napari_unet.nothing


@pytest.mark.parametrize(
    ("folder", "file", "refused"),
    [
        ("napari_unet-0.3.1", "napari_unet/__init__.py", "pip uninstall napari-unet,"),
        ("my_unet_fork-1.0", "napari_unet/cli.py", "pip uninstall my-unet-fork,"),
        ("napari_unet_stacks-9.9", "napari_unet/__init__.py", ""),
        ("other_unet-1.0", "other_unet/__init__.py", ""),
    ],
)
def test_a_namesake_in_the_environment_is_named(tmp_path, folder, file, refused):
    (tmp_path / f"{folder}.dist-info").mkdir()
    (tmp_path / f"{folder}.dist-info" / "RECORD").write_text(f"{file},sha256=x,12\n")
    script = f"import sys; sys.path.append({str(tmp_path)!r}); import napari_unet"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == bool(refused)
    assert refused in found.stderr


def test_the_manifest_in_the_package_is_the_one_at_the_top():
    inside = SOURCE / "napari.yaml"
    assert inside.exists(), "run: pip install -e ."
    assert inside.read_bytes() == (ROOT / "napari.yaml").read_bytes(), "napari.yaml changed; run: pip install -e ."
