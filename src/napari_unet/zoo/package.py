"""A package of others, folder or zip: read as data within limits; nothing of it is run, nothing is fetched."""

import contextlib
import dataclasses
import hashlib
import io
import re
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import ModelError, UnetError, UnsafeError, UsageError
from ..files import open_to_read, refuse_link
from ..model.foreign import TEXT_BYTES, ZOO, check_members

MOST = 2**32  # bytes of a file in a package: a large network twice over
RATIO = 100  # to which text and zeros are compressed; weights hardly are
SMALL = 2**26  # bytes that may be compressed to any ratio: they fit everywhere


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """A package's description, checked, and the files beside it.

    Parameters
    ----------
    description
        Of the newest specification, as its library gives it.
    inside : str
        Folder of a zip that its files lie in, with its slash; mostly none.
    """

    path: Path
    description: Any
    inside: str = ""

    def file(self, described: Any, most: int = MOST) -> bytes:
        """Return a file that the description names, once its hash is right.

        Raises
        ------
        ModelError
            Where it is not in the package, is too large, or is another one than the description names.
        UnsafeError
            Where its path leaves the package, or it is a link.
        """
        source = described.source
        name = str(getattr(source, "path", source)).replace("\\", "/")
        if "://" in str(source):
            raise ModelError(f"{self.path} names {source}, which is not in it; download the whole package")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or ":" in name:
            raise UnsafeError(f"{self.path} names the file {name!r}, which is not inside it; it is not read")
        data = _read(self.path, self.inside + name, most)
        if described.sha256 is not None and hashlib.sha256(data).hexdigest() != str(described.sha256):
            raise ModelError(f"{name} in {self.path} is damaged: its sha256 is another one; download the package again")
        return data

    def array(self, described: Any) -> np.ndarray:
        """Return an array in numpy's format that the description names; of numbers, never of objects."""
        data = self.file(described)
        try:
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, SyntaxError, TypeError, MemoryError) as error:
            raise ModelError(
                f"{described.source} in {self.path} is no array of numbers: {str(error)[:200]}; get it again"
            ) from error


def open_package(path: Path) -> Package:
    """Read the description of a package: a folder, its description, or a zip.

    Raises
    ------
    UsageError
        Where the library of the specification is not installed.
    ModelError
        Where there is no description, or it is not one of a model.
    UnsafeError
        Where the zip would leave its folder, is a bomb, or the description holds more than data.
    """
    try:
        from bioimageio import spec
    except ImportError as error:
        raise UsageError("packages take a library: pip install 'napari-unet-stacks[zoo]'") from error
    path = path.expanduser()
    path = path.parent if path.name in ZOO and path.is_file() else path
    if not path.exists():
        raise ModelError(f"{path} does not exist; give the folder or the zip of a package")
    name = _description(path)
    values = _parsed(_read(path, name, TEXT_BYTES), path)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        context = spec.ValidationContext(perform_io_checks=False, log_warnings=False)
        found: Any = spec.build_description(values, format_version="latest", context=context)
    if isinstance(found, spec.InvalidDescr):
        said = [f"{'.'.join(map(str, e.loc))}: {e.msg}" for d in found.validation_summary.details for e in d.errors]
        raise ModelError(
            f"{path} does not follow the specification of bioimage.io: {', '.join(said)[:500]}; get it again"
        )
    if found.type != "model":
        raise ModelError(f"{path} describes a {found.type}, not a model; get the package of a model")
    return Package(path, found, name[: name.rfind("/") + 1])


def _description(path: Path) -> str:
    """Return the name of a package's description; in a zip, it may lie in a folder, as of one that was packed whole."""
    there = _checked(path) if zipfile.is_zipfile(path) else [name for name in ZOO if (path / name).is_file()]
    names = [name for name in ZOO if name in there]
    names = names or [n for n in there if n.count("/") == 1 and PurePosixPath(n).name in ZOO]
    if not names:
        raise ModelError(
            f"{path} is no package of bioimage.io: it has none of {', '.join(ZOO)}, which say what axes, intensities "
            "and classes a network has; give the folder or zip that has one"
        )
    if len({PurePosixPath(name).parent for name in names}) > 1:
        raise ModelError(
            f"{path} holds several packages, {', '.join(names[:5])}; unpack it, and give the folder of one"
        )
    return names[0]


def _checked(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the members of a zip, after all of them were looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, str(path))
            members = {member.filename: member for member in archive.infolist()}
    except UnetError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ModelError(f"{path} is a damaged archive: {error}; get it again") from error
    for name, member in members.items():
        if member.file_size > max(SMALL, RATIO * member.compress_size):
            raise UnsafeError(f"{path} has the member {name!r} of {member.file_size} bytes, a bomb; do not open it")
    return members


def _read(path: Path, name: str, most: int) -> bytes:
    """Return the content of a file of a package, at most so many bytes."""
    data = _from_folder(path, name, most) if path.is_dir() else _from_zip(path, name, most)
    if len(data) > most:
        raise ModelError(f"{name} in {path} has more than {most} bytes, more than is read; get it again")
    return data


def _from_folder(path: Path, name: str, most: int) -> bytes:
    for part in Path(name).parents:
        if part != Path():
            refuse_link(path / part)
    try:
        with open_to_read(path / name) as file:
            return file.read(most + 1)
    except UnetError:
        raise
    except OSError as error:
        raise ModelError(
            f"{path} names {name}, which cannot be read: {error.strerror or error}; download the whole package"
        ) from error


def _from_zip(path: Path, name: str, most: int) -> bytes:
    if name not in _checked(path):
        raise ModelError(f"{path} names {name}, which is not in it; download the whole package")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            return file.read(most + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{name} in {path} is damaged: {error}; get it again") from error


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    """Return the values of a description; of text, numbers, lists and tables alone.

    Raises
    ------
    UnsafeError
        Where it names objects to make, or repeats parts of itself without end.
    ModelError
        Where it is no YAML.
    """
    import ruyaml

    if re.search(rb"(?m)(^|[\s\[{,:-])!(!?python|<)", text):
        raise UnsafeError(f"{path} has a description that asks for objects of Python; it is not read")
    try:
        reader = ruyaml.YAML(typ="safe", pure=True)
        events = list(reader.parse(io.BytesIO(text)))
        if any(isinstance(event, ruyaml.events.AliasEvent) for event in events):
            raise UnsafeError(f"{path} has a description that repeats itself by aliases; it is not read")
        found = ruyaml.YAML(typ="safe", pure=True).load(io.BytesIO(text))
    except (ruyaml.error.YAMLError, ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"the description of {path} cannot be read: {str(error)[:200]}; get it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"the description of {path} is no table; get it again")
    return found
