"""Model files of others: refused, with a word on what they are; nothing of them is run or unpacked."""

import re
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import ModelError, UnsafeError
from ..files import open_plain

# Endings of files that run code when they are unpacked.
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")
# Endings of networks saved as programs or as arrays without a card.
PROGRAMS = (".pt2", ".torchscript", ".jit", ".ts", ".onnx", ".h5", ".hdf5", ".keras", ".py", ".npy", ".npz")
# Names that bioimage.io has given its descriptions.
ZOO = ("rdf.yaml", "rdf.yml", "bioimageio.yaml", "bioimageio.yml", "model.yaml", "model.yml")
TEXT_BYTES = 2**20  # of a description, which has some kB
MAX_MEMBERS = 10_000  # of an archive: those of models have some ten


def refuse_foreign(path: Path) -> None:
    """Refuse model files of other formats; nothing of them is run or unpacked.

    Raises
    ------
    UnsafeError
        For pickles, programs, packages that need their author's code, and archives that would leave their folder.
    ModelError
        For other archives and packages.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES and not path.is_dir():
        raise UnsafeError(
            f"{path} is a file that may hold code, which would run on loading; it is not opened: a model is a folder "
            "with model.json"
        )
    if suffix in PROGRAMS and not path.is_dir():
        raise UnsafeError(f"{path} holds a program, not a model folder of this package; it is not loaded")
    if path.is_file() and zipfile.is_zipfile(path):
        _refuse_archive(path)
    if path.is_dir():
        for name in ZOO:
            if (path / name).is_file():
                with open_plain(path / name) as file:
                    _refuse_package(path, file.read(TEXT_BYTES + 1))


def check_members(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an archive with a member that would not stay inside its folder.

    Raises
    ------
    UnsafeError
        Naming the member.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UnsafeError(f"{name} has {len(members)} members, the most is {MAX_MEMBERS}; it is not unpacked")
    seen: set[str] = set()
    for member in members:
        fault = _fault(member)
        if member.filename.lower() in seen:
            fault = "a name that is there twice"
        if fault:
            raise UnsafeError(f"{name} has the member {member.filename[:200]!r}: {fault}; it is not unpacked")
        seen.add(member.filename.lower())


def _fault(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link, or no plain file"
    if "\\" in member.orig_filename or "\0" in member.orig_filename or not name:
        return "a name that is not allowed"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "an absolute path"
    if ".." in PurePosixPath(name).parts:
        return "a path that leaves the folder"
    return None


def _refuse_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, str(path))
            names = archive.namelist()
            if any(PurePosixPath(name).name == "data.pkl" for name in names):
                raise UnsafeError(f"{path} is a PyTorch file, which may hold code; a model is a folder with model.json")
            for name in names:
                if PurePosixPath(name).name in ZOO:
                    with archive.open(name) as file:
                        _refuse_package(path, file.read(TEXT_BYTES + 1))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path} is a damaged archive: {error}; get it again") from error
    raise ModelError(f"{path} is an archive; a model is a folder with model.json: unpack it and give that folder")


def _refuse_package(path: Path, text: bytes) -> None:
    if re.search(rb"[\"']?architecture[\"']?\s*:", text) or re.search(rb"source\s*:\s*[\"']?[^\s\"']+\.py\b", text):
        raise UnsafeError(
            f"{path} needs code from the model's author, which is not run; where it has its weights as ONNX too, "
            "napari-unet import makes a model of it"
        )
    raise ModelError(
        f"{path} is a bioimage.io package; make a model of it: napari-unet import {path.name} --out FOLDER"
    )
