"""What a path would be opened as, in words."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from ..arrays.stack import Stack
from ..errors import AxesError
from ..text import byte_size
from .formats.table import FORMATS, ending_of
from .omezarr import OURS, SHOWN, images_inside, labels_inside, levels_there, ome, pyramid
from .open import TIFF_ENDINGS, More, blocks_done, open_stack
from .pairs import list_images
from .tiff import tiff_images, tiff_levels
from .zarrays import missing_chunks
from .zarrmeta import Node, is_place, is_remote, read_node

Rows = list[tuple[str, str]]


def describe(path: str | Path, **more: Unpack[More]) -> Rows:
    """Describe an image, a zarr group or a folder of images; reads metadata only.

    Returns
    -------
    list of (name, value)
        Of the finest level: axes, shape, dtype, chunks, scale; then further levels, channels, labels inside, missing
        chunks, the state of a result, and what was decided on opening.

    Raises
    ------
    DataError, UnsafeError, UsageError
        As `open_stack` does, where there is nothing to say.
    """
    where = str(path) if is_remote(str(path)) else str(Path(path).expanduser())
    node = read_node(where) if is_place(where) else None
    if node is None and not is_remote(where) and Path(where).is_dir():
        images = list_images(where)
        return [("kind", f"folder of {len(images)} images"), *[("image", p.name) for p in images[:SHOWN]]]
    rows: Rows = [("path", where), ("kind", _kind(node, where))]
    if node is not None:
        rows += _state(node)
        ours = node.attributes.get(OURS)
        if isinstance(ours, dict) and ours.get("state") == "incomplete":
            return rows
        single = node.is_array or "multiscales" in ome(node)
        inside = [] if single else images_inside(node)
        labels = [] if single else labels_inside(node)
        if len(inside) > 1 or (labels and not inside):
            rows += [("image", name) for name in inside[:SHOWN]]
            return [*rows, ("images inside", str(len(inside))), *[("labels", name) for name in labels]]
    rows += _image(where, node, more)
    return rows


def _kind(node: Node | None, where: str) -> str:
    if node is None:
        return f"{ending_of(where).lstrip('.').upper() or 'unknown'} file"
    if node.is_array:
        return f"zarr v{node.format} array"
    version = ome(node).get("version") or _first(ome(node).get("multiscales")).get("version")
    what = next((k for k in ("plate", "well") if k in ome(node)), None)
    name = (
        f"OME-Zarr {version or '(no version)'}" if {"multiscales", "plate", "well"} & set(ome(node)) else "zarr group"
    )
    return f"{name}{f' {what}' if what else ''} (zarr v{node.format})"


def _first(listing: Any) -> dict[str, Any]:
    first = listing[0] if isinstance(listing, list) and listing else None
    return first if isinstance(first, dict) else {}


def _state(node: Node) -> Rows:
    ours = node.attributes.get(OURS)
    if not isinstance(ours, dict):
        return []
    state = f"{ours.get('state', 'unknown')} result of napari-unet"
    if ours.get("state") == "incomplete":
        done = blocks_done(Path(node.where), ours)
        state = f"unfinished: {done} of {ours.get('blocks', '?')} blocks; the command that started it continues it"
    rows = [("state", state)]
    provenance = ours.get("provenance")
    if isinstance(provenance, dict):
        rows += [(f"made with {key}", _short(value)) for key, value in provenance.items()]
    return rows


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _image(where: str, node: Node | None, more: More) -> Rows:
    if node is not None:
        more = {"allow_incomplete": True}
    try:
        stack = open_stack(where, **more)
    except AxesError as error:
        if not (node.is_array if node is not None else ending_of(where) in FORMATS):
            raise
        return [("axes", f"to be given ({error})")]
    rows = [*_stack(stack)]
    inside = tiff_images(Path(where)) if node is None and Path(where).suffix.lower() in TIFF_ENDINGS else []
    rows += [(f"image {i}", text) for i, text in inside] if len(inside) > 1 else []
    for number in _levels(where, node, more)[1:]:
        level = open_stack(where, level=number, **more)
        rows.append((f"level {number}", f"{_sizes(level.axes, level.shape)}, scale {_scale(level)}"))
    return rows + [("labels", name) for name in (labels_inside(node) if node and not node.is_array else [])]


def _levels(where: str, node: Node | None, more: More) -> Sequence[int]:
    if node is not None:
        return levels_there(pyramid(node)) if not node.is_array and "multiscales" in ome(node) else [0]
    return range(tiff_levels(Path(where), more.get("series")) if Path(where).suffix.lower() in TIFF_ENDINGS else 1)


def _stack(stack: Stack) -> Iterator[tuple[str, str]]:
    yield "axes", stack.axes
    size = math.prod(stack.shape) * stack.dtype.itemsize
    yield "shape", f"{_sizes(stack.axes, stack.shape)}, {stack.dtype}, {byte_size(size)}"
    yield "chunks", " x ".join(map(str, stack.chunks))
    yield "scale", _scale(stack)
    if any(stack.translation):
        yield "translation", ", ".join(f"{a} {t:g}" for a, t in zip(stack.axes, stack.translation, strict=True))
    if stack.channel_names:
        yield "channels", ", ".join(stack.channel_names)
    missing = missing_chunks(stack)
    if missing:
        yield "missing chunks", f"{missing}; they read as the fill value"
    for note in stack.notes:
        yield "note", note


def _sizes(axes: str, shape: tuple[int, ...]) -> str:
    return " x ".join(f"{a} {n}" for a, n in zip(axes, shape, strict=True))


def _scale(stack: Stack) -> str:
    parts = zip(stack.axes, stack.scale, stack.units, strict=True)
    return ", ".join(f"{a} {s:g}{f' {u}' if u else ''}" for a, s, u in parts if a != "c")
