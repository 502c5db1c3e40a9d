"""Any stack, written block by block as OME-Zarr."""

import dataclasses
import math
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.cached import cached, check_countable
from ..arrays.stack import SPATIAL, Stack
from ..arrays.views import Box, cast
from ..errors import DataError
from ..events import Progress
from ..grid.blocks import boxes_of
from ..sources.identity import stored
from ..sources.omezarr import ome
from ..sources.zarrays import base_array
from ..sources.zarrmeta import read_node
from .admission import removal
from .ome import Output, is_name
from .result import ResultStore
from .verification import crc32

BLOCK_BYTES = 2**26  # 64 MiB held at once, read and checked
KEPT_BYTES = 2**27  # 128 MiB of chunks: those that two blocks share are decoded once
CHUNK = {2: 1024, 3: 128}  # edges: 1 to 8 MiB a file, as results of a run have
LEAST, MOST = 2**14, 2**24  # bytes of a source's chunk that are kept as they are: 16 kiB to 16 MiB


def save_stack(  # noqa: PLR0913
    stack: Stack,
    root: Path,
    *,
    kind: str = "image",
    name: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    version: str = "0.5",
) -> Generator[Progress, None, Path]:
    """Write a stack as OME-Zarr: pyramid, scale, units, translation and channel names; memory is a few blocks.

    A run that was stopped goes on when it is called again with the same stack.

    Parameters
    ----------
    root : Path
        The OME-Zarr group to make. Labels are added to the image that is there already.
    kind : {"image", "labels"}
        An image becomes the group itself, labels become ``labels/NAME`` in it.
    name : str, optional
        Of labels; the stack's, as far as it can be a name, if not given. Images go by their folder.
    attributes : mapping, optional
        As `Output` has them: ``colors`` and ``properties`` of labels, ``window`` of an image.
    overwrite : bool
        Replace what this program wrote there earlier.
    version : {"0.5", "0.4"}
        Of OME-Zarr; labels that are added to an image have the image's.

    Returns
    -------
    Path of the group that was written.

    Raises
    ------
    DataError
        Where labels are not integers, or negative, or the source is damaged.
    OutputError
        Where something is there already.
    ResourceError
        Where the disk is too small or may not be written.
    UsageError
        Where an argument cannot be.
    """
    root = Path(root).expanduser()
    check_countable(stack)
    stack = _storable(stack, kind)
    output, block = lay_out(stack, kind, name, attributes or {})
    boxes = list(boxes_of(stack.shape, block))
    inside = kind == "labels" and is_image(root)
    yield from removal(root, [output.path], inside, by_hand=True) if overwrite else ()
    with ResultStore.create(
        root,
        [output],
        blocks=len(boxes),
        settings=_settings(stack, boxes),
        provenance={"saved from": stack.source or stack.name},
        version=version,
        overwrite=overwrite,
        into_existing=inside,
    ) as store:
        yield from store.notices()
        yield from _copy(cached(stack, KEPT_BYTES), store, output, boxes)
        yield from store.finish()
    return root / output.path


def lay_out(stack: Stack, kind: str, name: str | None, attributes: Mapping[str, Any]) -> tuple[Output, tuple[int, ...]]:
    """Lay out what is written, and the block it is written in."""
    chunks, block = layout_of(stack)
    fields = ("axes", "shape", "scale", "units", "translation", "channel_names")
    output = Output(
        path=f"labels/{name or storable_name(stack.name)}" if kind == "labels" else "",
        kind=kind,
        dtype=_stored_dtype(stack.dtype, kind),
        chunks=chunks,
        attributes=attributes,
        **{field: getattr(stack, field) for field in fields},
    )
    return output, block


def storable_name(name: str) -> str:
    """Return a name for labels that is allowed, as near to `name` as can be."""
    plain = re.sub(r"[^A-Za-z0-9._ -]+", "_", name).strip("._ -")[:90].rstrip(". ")
    return plain if plain and is_name(plain) and not plain.isdigit() else f"labels-{plain or 1}"


def layout_of(stack: Stack) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the chunks to write, and the blocks to read: whole chunks of both, as far as that can be.

    Returns
    -------
    (chunks, block)
        A block is a multiple of the chunks, or ends where the stack does.
    """
    source = _source_chunks(stack)
    if _is_moderate(stack, source):
        return source, _grown(source, source, stack)
    flat = 3 if sum(n > 1 for a, n in zip(stack.axes, stack.shape, strict=True) if a in SPATIAL) == 3 else 2
    chunks = [min(CHUNK[flat], n) if a in SPATIAL else 1 for a, n in zip(stack.axes, stack.shape, strict=True)]
    block = _covering(chunks, source, stack.shape)
    while math.prod(block) * stack.dtype.itemsize > BLOCK_BYTES:
        ratio = [c / s for c, s in zip(chunks, source, strict=True)]
        thick = max(range(len(chunks)), key=ratio.__getitem__)
        if ratio[thick] <= 1 or chunks[thick] <= 8:
            break
        chunks[thick] = math.ceil(chunks[thick] / 2)
        wide = [i for i, a in enumerate(stack.axes) if a in SPATIAL and 2 * chunks[i] <= min(source[i], CHUNK[2])]
        if wide:
            chunks[min(wide, key=chunks.__getitem__)] *= 2
        block = _covering(chunks, source, stack.shape)
    return tuple(chunks), _grown(block, chunks, stack)


def _source_chunks(stack: Stack) -> tuple[int, ...]:
    """Return what is read at once; arrays in memory and mapped files have no chunks."""
    if isinstance(base_array(stack)[0], np.ndarray):
        return (1,) * len(stack.shape)
    return tuple(min(c, n) for c, n in zip(stack.chunks, stack.shape, strict=True))


def _is_moderate(stack: Stack, source: Sequence[int]) -> bool:
    """Say whether chunks are neither too small, too large nor too flat to be kept."""
    spatial = [(c, n) for a, c, n in zip(stack.axes, source, stack.shape, strict=True) if a in SPATIAL]
    size = math.prod(source) * stack.dtype.itemsize
    return all(min(16, n) <= c <= CHUNK[2] for c, n in spatial) and (
        LEAST <= size <= MOST or (size < LEAST and tuple(source) == stack.shape)
    )


def _covering(chunks: Sequence[int], source: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the least multiple of `chunks` that holds a chunk of the source, no larger than the stack."""
    return tuple(min(n, math.ceil(s / c) * c) for c, s, n in zip(chunks, source, shape, strict=True))


def _grown(block: Sequence[int], chunks: Sequence[int], stack: Stack) -> tuple[int, ...]:
    """Lengthen a block along the last axes while it stays small: fewer steps, the same files."""
    size = list(block)
    for axis in reversed(range(len(size))):
        room = BLOCK_BYTES // 4 // (math.prod(size) * stack.dtype.itemsize)
        if room > 1:
            size[axis] = min(stack.shape[axis], size[axis] // chunks[axis] * chunks[axis] * room or size[axis])
    return tuple(size)


def _storable(stack: Stack, kind: str) -> Stack:
    """Bring a stack to what can be stored: native integers or floats, integers for labels."""
    if kind == "labels" and stack.dtype.kind not in "biu":
        raise DataError(f"{stack.name} holds {stack.dtype}, labels are integers; convert it with astype('uint16')")
    if kind == "labels" and "c" in stack.axes and stack.size("c") == 1:
        stack = stack.select(c=0)
    if kind == "labels" and isinstance(stack.data, np.ndarray) and stack.source is None:
        _check_labels(stack.data, stack.name)
    if stack.dtype.kind == "b":
        return dataclasses.replace(stack, data=cast(stack.data, np.uint8))
    if not stack.dtype.isnative:
        return dataclasses.replace(stack, data=cast(stack.data, stack.dtype.newbyteorder("=")))
    return stack


def _stored_dtype(dtype: np.dtype[Any], kind: str) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}") if kind == "labels" and dtype.kind == "i" else dtype


def _settings(stack: Stack, boxes: Sequence[Box]) -> dict[str, Any]:
    """Return what must be equal for a run to go on: what the stack is, and some of its values if nothing names it."""
    found: dict[str, Any] = {"source": stack.source, "axes": stack.axes, "shape": list(stack.shape)}
    found |= {"dtype": stack.dtype.str, "scale": list(stack.scale)}
    files = stored(stack)
    found |= {"image": files.to_json()} if files is not None else {}
    if stack.source is None:
        whole = isinstance(base_array(stack)[0], np.ndarray)
        middle = [boxes[len(boxes) // 2]]
        found["content"] = crc32(np.array([crc32(stack.read(box)) for box in (boxes if whole else middle)]))
    return found


def is_image(root: Path) -> bool:
    """Say whether there is an OME-Zarr image at `root`."""
    node = read_node(str(root)) if root.is_dir() else None
    return node is not None and not node.is_array and "multiscales" in ome(node)


def _copy(stack: Stack, store: ResultStore, output: Output, boxes: Sequence[Box]) -> Generator[Progress, None, None]:
    pending = store.pending()
    yield Progress(len(boxes) - len(pending), len(boxes), "save")
    for done, block in enumerate(pending, len(boxes) - len(pending) + 1):
        data = stack.read(boxes[block])
        if output.kind == "labels" and data.dtype.kind == "i" and data.min() < 0:
            raise DataError(
                f"{stack.name} has the label {data.min()}; labels begin at 0, the background: renumber them"
            )
        store.write(block, {output.path: (boxes[block], data.astype(output.dtype, copy=False))})
        yield Progress(done, len(boxes), "save")


def _check_labels(data: np.ndarray, name: str) -> None:
    if data.dtype.kind == "i" and data.min() < 0:
        raise DataError(f"{name} has the label {data.min()}; labels begin at 0, the background: renumber them")
