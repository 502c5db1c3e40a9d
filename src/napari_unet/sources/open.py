"""Open anything as a `Stack`: a path, an address, an array, a layer."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import cast
from ..errors import DataError, UnreachableError, UsageError
from ..faults import passing, persist
from ..files import open_plain
from .arrange import Found, arrange, choose, sized
from .formats.table import find_format
from .layers import find_array, find_layer, is_array, is_layer
from .omezarr import OURS, SHOWN, find, images_inside, labels_inside, ome
from .pictures import find_picture
from .tiff import find_tiff
from .wholes import whole_numbers
from .zarrmeta import Node, below, is_place, is_remote, read_node

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF
PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")  # PNG; JPEG
TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".qptiff", ".svs")  # of files that are TIFF inside
RECORD = re.compile(rb'\{("sum":"[0-9a-f]{8}",)?"unit":\d')  # of a block, in a ledger
LINE = 2**22  # bytes of a line of a ledger at most
NOISE = 2**26  # bytes without any record after which a file is no ledger
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")


Done = TypeVar("Done")


class More(TypedDict, total=False):
    """Further arguments of `open_stack`, which describes them."""

    series: int | str | None
    allow_incomplete: bool
    pixel_size: str | Sequence[float | str] | None


class Reading(More, total=False):
    """How images are opened of which all is taken: ``axes``, and `More`."""

    axes: str | None


class Opening(Reading, total=False):
    """How images are opened, as `open_stack` takes it: ``level``, ``channel``, ``time``, and `Reading`."""

    level: int | None
    channel: int | str | None
    time: int | None


def open_stack(
    what: Any,
    axes: str | None = None,
    level: int | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    **more: Unpack[More],
) -> Stack:
    """Open an image lazily.

    Parameters
    ----------
    what : path, address, array, layer or Stack
        OME-Zarr or another zarr array, also in a zip archive; TIFF, PNG, JPEG, and the files of `formats`; http(s), s3
        and gs addresses of zarr groups; numpy, dask and zarr arrays; anything with `data` and `scale`.
    axes : str, optional
        One letter of ``tczyx`` a dimension, or names such as ``"channel, z, y, x"``, in the order of the file;
        overrides what the file says.
    level : int, optional
        Level of a pyramid, 0 (the finest) by default.
    channel : int or str, optional
        Take one channel, by number or name; its axis stays, with size 1.
    time : int, optional
        Take one time point; its axis goes.
    **more
        ``series``, number or name of an image, of several in a file or group: without it the image whose planes lie in
        the file, of several the one of most pixels. ``allow_incomplete``: open a result whose run has not come to its
        end, and what is there of a TIFF that lacks planes, as of a stopped acquisition. ``pixel_size``: sizes of a
        pixel along the spatial axes and their unit, such as ``"2 0.5 0.5 um"``; overrides what the file says.

    Raises
    ------
    DataError
        Where it cannot be read, or its axes are ambiguous.
    UnsafeError
        Where reading would run code from the file, or leave its folder.
    UsageError
        Where an argument cannot be.
    """
    size = more.get("pixel_size")
    if isinstance(what, Stack):
        return sized(choose(_again(what, axes, level), channel, time), size)
    if isinstance(what, str | Path):
        found = reached(lambda: _find_path(str(what), level, more))
    elif is_array(what):
        found = _one_image(_no_levels(find_array(what), level), more)
    elif is_layer(what):
        found = _one_image(find_layer(what, level), more)
    else:
        raise UsageError(f"a {type(what).__name__} cannot be opened as an image; give a path, an array or a layer")
    return sized(choose(arrange(found, axes), channel, time), size)


def open_labels(
    what: Any,
    axes: str | None = None,
    level: int | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    **more: Unpack[More],
) -> Stack:
    """Open a label image lazily: integers, booleans as 0 and 1, floats that are labels, without a channel axis.

    A result of ours opens as its labels; an OME-Zarr image with one label image inside opens as that.
    Parameters are those of `open_stack`.

    Raises
    ------
    DataError
        As `open_stack` does; and where there are several label images to choose from, several channels, or numbers that
        are no integers.
    """
    if isinstance(what, str | Path):
        found = reached(lambda: _find_path(_labels_path(str(what)), level, more, colours=False))
        stack = sized(choose(arrange(found, axes), channel, time), more.get("pixel_size"))
    else:
        stack = open_stack(what, axes, level, channel, time, **more)
    if stack.size("c") > 1:
        raise DataError(
            f"{stack.name} has {stack.size('c')} channels where labels have none; choose one with channel, or convert "
            "colours to one integer per class"
        )
    if "c" in stack.axes:
        stack = stack.select(c=0)
    if stack.dtype.kind == "f":
        stack = whole_numbers(stack)
    if stack.dtype.kind == "b":
        stack = dataclasses.replace(stack, data=cast(stack.data, np.uint8))
    return stack


def reached(find_it: Callable[[], Done]) -> Done:
    """Open a path or an address, more than once where its disk or the network fails."""
    try:
        return persist(find_it)
    except DataError as error:
        if passing(error) and not isinstance(error, UnreachableError):
            raise UnreachableError(f"{error}; try again later") from error
        raise


def _again(stack: Stack, axes: str | None, level: int | None) -> Stack:
    if level:
        raise DataError(f"{stack.name} is open already, there is no level {level}; leave it out")
    if axes is None or axes == stack.axes:
        return stack
    fields = {f.name: getattr(stack, f.name) for f in dataclasses.fields(Found) if f.name != "known"}
    return dataclasses.replace(arrange(Found(known=stack.axes, **fields), axes), object_classes=stack.object_classes)


def _no_levels(found: Found, level: int | None, series: int | str | None = None) -> Found:
    if level:
        raise DataError(f"{found.name} is a single image, there is no level {level}; leave it out")
    if str(series or 0) != "0":
        raise DataError(f"{found.name} is a single image, there is no image {series!r}; leave it out")
    return found


def _one_image(found: Found, more: More) -> Found:
    """Say that an image was chosen where there is one only, as beside files that have several."""
    series = more.get("series")
    if series is None or str(series) == "0":
        return found
    return dataclasses.replace(found, notes=(*found.notes, f"it is a single image, {series!r} was not looked for"))


def _find_path(where: str, level: int | None, more: More, colours: bool = True) -> Found:
    if is_remote(where):
        node = read_node(where)
        if node is None:
            raise DataError(f"{where}: there is no zarr group or array; only those are opened from addresses")
        return _in_group(node, level, more)
    path = Path(where).expanduser()
    if is_place(str(path)):
        node = read_node(str(path))
        if node is None:
            raise DataError(_no_image(path))
        if not more.get("allow_incomplete"):
            _check_finished(node)
        return _in_group(node, level, more)
    if not path.is_file():
        raise DataError(
            f"{path} {'is no regular file' if path.exists() else 'does not exist'}; give the place of an image"
        )
    return _find_file(path, level, more, colours)


def _in_group(node: Node, level: int | None, more: More) -> Found:
    """Find the image of a zarr array or group, of a group of several that of a number or path."""
    series = more.get("series")
    inside = [] if series is None or node.is_array or "multiscales" in ome(node) else images_inside(node)
    if len(inside) < 2:
        return _one_image(find(node, level), more)
    chosen = [path for at, path in enumerate(inside) if str(series) in (path, str(at))]
    image = read_node(below(node.where, chosen[0])) if chosen else None
    if image is None:
        raise DataError(f"{node.where} has no image {series!r}; it has {', '.join(inside[:SHOWN])}")
    return find(image, level)


def _find_file(path: Path, level: int | None, more: More, colours: bool) -> Found:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; check that it is there and that you may read it") from error
    ending = path.suffix.lower()
    is_tiff, is_picture = magic.startswith(TIFF_MAGIC), magic.startswith(PICTURE_MAGIC)
    for holds, kind, endings in ((is_tiff, "TIFF", PICTURE_ENDINGS), (is_picture, "PNG or JPEG", TIFF_ENDINGS)):
        if holds and ending in endings:
            raise DataError(f"{path} is named {ending} but holds {kind}; rename it")
    if is_tiff:
        return find_tiff(path, level, more.get("series"), allow_incomplete=more.get("allow_incomplete", False))
    if is_picture:
        return _no_levels(find_picture(path, colours), level, more.get("series"))
    if not magic:
        raise DataError(f"{path} is empty (0 bytes); copy it again")
    if ending in TIFF_ENDINGS + PICTURE_ENDINGS:
        raise DataError(f"{path} is named {ending} but its first bytes are those of another format; copy it again")
    return find_format(path, level, more.get("series"))


def _no_image(path: Path) -> str:
    if path.name.endswith((".zarr", ".zip", ".ozx")):
        return f"{path} lacks its metadata: there is no zarr.json, .zgroup or .zarray in it; copy it again"
    return f"{path} is a folder and no zarr group; open an image in it"


def _check_finished(node: Node) -> None:
    """Refuse a result of ours whose run has not ended."""
    ours = node.attributes.get(OURS)
    if not isinstance(ours, dict) or ours.get("state") != "incomplete":
        return
    done = blocks_done(Path(node.where), ours)
    of = ours.get("blocks", "?")
    raise DataError(
        f"{node.where} is an unfinished result: {done} of {of} blocks; run the same command again to resume"
    )


def blocks_done(root: Path, ours: dict[str, Any]) -> int:
    """Count the blocks that the ledger of an unfinished result holds as done."""
    primary = ours.get("result")
    folder = Path(below(str(root), primary)) if isinstance(primary, str) and primary else root
    for ledger in (folder / ".napari_unet" / "done.jsonl", root / ".napari_unet" / "done.jsonl"):
        if ledger.is_file():
            return _records(ledger)
    return 0


def _records(ledger: Path) -> int:
    """Count the lines of blocks; of a file that holds anything else no more than its beginning is read."""
    found = other = 0
    with open_plain(ledger) as file:
        while other < NOISE and (line := file.readline(LINE)):
            is_record = RECORD.match(line) is not None
            found, other = found + is_record, 0 if is_record else other + len(line)
    return found


def _labels_path(where: str) -> str:
    """Return where the labels are that `where` is opened for."""
    if not is_remote(where) and not is_place(str(Path(where).expanduser())):
        return where
    where = where if is_remote(where) else str(Path(where).expanduser())
    node = read_node(where)
    if node is None or node.is_array:
        return where
    ours = node.attributes.get(OURS)
    ours = ours if isinstance(ours, dict) else {}
    result = ours.get("result")
    if isinstance(result, str) and result:
        return below(where, result) if ours.get("state") != "incomplete" else where
    inside = labels_inside(node)
    if len(inside) > 1:
        raise DataError(f"{where} holds {len(inside)} label images; open one of them: {', '.join(inside)}")
    return below(where, inside[0]) if inside else where
