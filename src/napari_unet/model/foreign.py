"""Model files of others: refused where they would run code, read in a process of their own where they are weights."""

import math
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ..errors import ModelError, UnsafeError
from ..network import UNetConfig
from .weights import expected, read_weights

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")
PROGRAMS = (".pt2", ".torchscript", ".jit", ".ts", ".onnx", ".h5", ".hdf5", ".keras", ".py", ".npy", ".npz")
ZOO = ("rdf.yaml", "rdf.yml", "bioimageio.yaml", "bioimageio.yml", "model.yaml", "model.yml")
TEXT_BYTES = 2**20
MAX_MEMBERS = 10_000
REMEDY = "save the weights alone: torch.save(net.state_dict(), FILE)"
SECONDS = 300
ENVIRONMENT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "TMP", "TEMP")


def import_weights(path: str | os.PathLike[str], config: UNetConfig) -> dict[str, np.ndarray]:
    """Read the weights of a network of ours from a PyTorch or safetensors file; code in it never runs.

    A PyTorch file is opened in a process of its own, with limits on memory and time, and only tensors are taken.

    Parameters
    ----------
    path : path of a ``.pt``, ``.pth`` or ``.safetensors`` file
    config : UNetConfig
        Network that the weights must fit, name by name.

    Returns
    -------
    dict of name to array, as `Model` takes it

    Raises
    ------
    UnsafeError
        Where the file would have to run code.
    ModelError
        Where it is damaged, or does not fit the network.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} is no file; give a .pt, .pth or .safetensors file")
    if path.suffix.lower() == ".safetensors":
        return read_weights(path, config)
    if path.suffix.lower() in PROGRAMS:
        raise UnsafeError(f"{path} holds a program, not only weights; {REMEDY}")
    limit = 8 * sum(math.prod(shape) for shape, _ in expected(config).values()) + 2**16
    _check_torch_zip(path, limit)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "weights.safetensors"
        _convert(path, target, limit)
        try:
            return read_weights(target, config)
        except ModelError as error:
            raise ModelError(str(error).replace(str(target), str(path))) from error


def refuse_foreign(path: Path) -> None:
    """Refuse what is not a model of ours but looks like somebody else's; nothing of it is run or unpacked.

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
            f"{path} may hold code that runs on loading; if it has weights of a network of this package, "
            "take them out with napari_unet.import_weights(path, config)"
        )
    if suffix in PROGRAMS and not path.is_dir():
        raise UnsafeError(f"{path} holds a program, not a model folder of this package; it is not loaded")
    if path.is_file() and zipfile.is_zipfile(path):
        _refuse_archive(path)
    if path.is_dir():
        for name in ZOO:
            if (path / name).is_file():
                with (path / name).open("rb") as file:
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
                raise UnsafeError(f"{path} is a PyTorch file, which may hold code; see napari_unet.import_weights")
            for name in names:
                if PurePosixPath(name).name in ZOO:
                    with archive.open(name) as file:
                        _refuse_package(path, file.read(TEXT_BYTES + 1))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path} is a damaged archive: {error}") from error
    raise ModelError(f"{path} is an archive; a model is a folder with model.json: unpack it and give that folder")


def _refuse_package(path: Path, text: bytes) -> None:
    if re.search(rb"[\"']?architecture[\"']?\s*:", text) or re.search(rb"source\s*:\s*[\"']?[^\s\"']+\.py\b", text):
        raise UnsafeError(
            f"{path} needs code from the model's author; only weights of known architectures are loaded "
            "(bioimageio.core runs such packages, at your own risk)"
        )
    raise ModelError(
        f"{path} is a bioimage.io package, which this version does not read; give a folder with model.json"
    )


def _check_torch_zip(path: Path, limit: int) -> None:
    """Hold a PyTorch file against size and kind before anything opens it."""
    if not zipfile.is_zipfile(path):
        raise UnsafeError(f"{path} is a bare pickle or no PyTorch file, and may hold code; {REMEDY}")
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, str(path))
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path} is truncated or damaged: {error}") from error
    if any("/code/" in f"/{m.filename}" or m.filename.endswith("constants.pkl") for m in members):
        raise UnsafeError(f"{path} is a TorchScript program, not only weights; {REMEDY}")
    size = sum(member.file_size for member in members)
    if size > limit + 2**20:
        raise ModelError(f"{path} unpacks to {size} bytes, the network's weights have at most {limit}; it does not fit")


def _convert(path: Path, target: Path, limit: int) -> None:
    script = Path(__file__).with_name("sandbox.py")
    command = [sys.executable, "-I", str(script), str(path.resolve()), str(target), str(limit)]
    environment = {key: value for key, value in os.environ.items() if key in ENVIRONMENT} | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path} took more than {SECONDS} s to read; it is not loaded") from error
    why = (
        done.stderr.rpartition("\nwhy: ")[2].strip() if "\nwhy: " in done.stderr else "it needs too much memory or time"
    )
    if done.returncode == 4:
        raise UnsafeError(f"{path} holds more than weights and may run code; it is not loaded ({why[:300]})")
    if done.returncode:
        raise ModelError(f"{path} holds no weights that can be used: {why[:300]}")
