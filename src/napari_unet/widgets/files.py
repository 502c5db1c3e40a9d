"""Files in and out of the viewer: OME-Zarr and big TIFFs are read lazily, layers are saved as OME-Zarr."""

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import View
from ..errors import DataError
from .appearance import as_layer, classes, geometry, lazy, limited, limits, look_of, of_a_run, overview
from .writing import LayerTuple, write_image, write_labels, write_layers

__all__ = ["add_layers", "get_reader", "read", "write_image", "write_labels", "write_layers"]

TIFFS = (".tif", ".tiff")
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
IN_MEMORY = 2**26  # 64 MiB: read as a whole, which is faster than block by block
MOST_IMAGES = 32  # of a file, as layers; a list that can still be looked through
OURS = "napari_unet"
RGB = "RGB taken as three channels"
COLOURS = {1: ("gray",), 2: ("magenta", "green"), 0: ("cyan", "yellow", "magenta", "red", "green", "blue")}
EMPTY: Mapping[str, Any] = MappingProxyType({})


def get_reader(path: str | Path | Sequence[str | Path]) -> Callable[..., list[LayerTuple]] | None:
    """Return what reads a zarr group or array, a TIFF, or a file of a microscope; None for anything else.

    Parameters
    ----------
    path : str, or a sequence of one
        Several paths to be stacked are not read.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if len(paths) != 1:
        return None
    where = str(paths[0])
    if "://" in where:
        return read if where.rstrip("/").endswith(".zarr") else None
    if Path(where).is_dir():
        return read if any(Path(where, mark).is_file() for mark in MARKS) else None
    from ..sources.formats.table import ENDINGS

    return read if where.lower().endswith(TIFFS + ENDINGS) else None


def read(path: str | Path | Sequence[str | Path]) -> list[LayerTuple]:
    """Open an image, and the labels inside it, as layers; nothing but metadata is read.

    Parameters
    ----------
    path : str, or a sequence of one

    Returns
    -------
    list of (data, arguments, type) of layers

    Raises
    ------
    DataError, UnsafeError, UsageError
        As `napari_unet.open_stack` does.
    """
    from ..sources.omezarr import ome
    from ..sources.zarrmeta import is_place, is_remote, read_node

    where = str(path if isinstance(path, str | Path) else path[0])
    if not is_remote(where):
        where = str(Path(where).expanduser())
        if not is_place(where):
            return _tiff(where)
    node = read_node(where)
    if node is None or node.is_array:
        return _array(where, node)
    if "multiscales" not in ome(node):
        return _group(where, node)
    if "image-label" in ome(node):
        return _labels(where)
    return [*overview(node, _images(where)), *_hidden(where, node), *_inside(where, node)]


def add_layers(viewer: Any, path: str | Path, labels_only: bool = False) -> list[Any]:
    """Open an image with this reader, whatever others could read it, and return the layers that were added.

    Parameters
    ----------
    labels_only : bool
        Leave out images, such as the small one that a result holds beside its labels, where there are labels.
    """
    from napari.layers import Layer

    found = read(path)
    kept = [layer for layer in found if layer[2] == "labels"] if labels_only else found
    return [viewer.add_layer(Layer.create(*layer)) for layer in kept or found]


def reading(path: str) -> Generator[None, None, list[LayerTuple]]:
    """Open an image as `read` does, as a piece of work beside the window: an address may take its time."""
    yield
    return read(path)


def _hidden(where: str, node: Any) -> list[LayerTuple]:
    """Read what else a finished result of ours holds, such as probabilities."""
    from ..sources.omezarr import images_inside
    from ..sources.zarrmeta import below

    ours = node.attributes.get(OURS)
    if not isinstance(ours, dict) or ours.get("state") != "complete":
        return []
    found = [layer for name in images_inside(node) for layer in _images(below(where, name))]
    return [(data, {**about, "visible": False}, kind) for data, about, kind in found]


def _group(where: str, node: Any) -> list[LayerTuple]:
    """Read a group that is no image itself: a result of ours, a group of labels, or a series of one image."""
    from ..sources import open_stack
    from ..sources.omezarr import images_inside, ome
    from ..sources.zarrmeta import below, read_node

    ours = node.attributes.get(OURS)
    if isinstance(ours, dict) and ours.get("state") == "complete":
        return _hidden(where, node) + _inside(where, node)
    if "labels" in ome(node):
        groups = [below(where, name) for name in _strings(ome(node)["labels"])]
        found = [layer for group in groups if read_node(group) is not None for layer in _labels(group)]
        if found:
            return found
    labels = [] if isinstance(ours, dict) else _inside(where, node)
    images = images_inside(node)
    if labels and not images:
        return labels
    if not images or len(images) > MOST_IMAGES or isinstance(ours, dict) or "plate" in ome(node):
        open_stack(where)  # raises: it names the images inside, or says how far an unfinished result is
    return [*_several(where, images), *labels]


def _several(where: str, images: Sequence[str]) -> list[LayerTuple]:
    """Read the images of a series with their labels: the first, and the others as hidden layers."""
    from napari.utils.notifications import show_info

    from ..sources.zarrmeta import below, read_node

    if len(images) == 1:
        inner = read_node(below(where, images[0]))
        return [*_images(where), *(_inside(inner.where, inner) if inner else [])]
    show_info(f"{Path(where).name} holds {len(images)} images; {images[0]} is shown, the others are hidden layers")
    layers = []
    for image in images:
        inner = read_node(below(where, image))
        found = [*_images(below(where, image)), *(_inside(inner.where, inner) if inner else [])]
        layers += [(d, a if image == images[0] else {**a, "visible": False}, kind) for d, a, kind in found]
    return layers


def _strings(values: Any) -> list[str]:
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []


def _inside(where: str, node: Any) -> list[LayerTuple]:
    """Read the labels of an image; classes that objects are made of are hidden below these."""
    from ..sources.omezarr import CLASSES, labels_inside
    from ..sources.zarrmeta import below, read_node

    names = labels_inside(node)
    parts = {name + CLASSES for name in names} & set(names)
    found = []
    for name in sorted(names, key=lambda name: name not in parts):
        group = below(where, name)
        layers = _labels(group) if read_node(group) is not None else []
        found += [(data, about | {"visible": False} if name in parts else about, kind) for data, about, kind in layers]
    return found


def _array(where: str, node: Any) -> list[LayerTuple]:
    """Read an array by its own path; one whose axes nothing names is shown without their names."""
    from ..sources import open_stack
    from ..sources.arrange import UNKNOWN
    from ..sources.omezarr import find

    if node is not None and UNKNOWN in (found := find(node, None)).known and len(found.data.shape) > 2:
        return [_unnamed(found)]
    return _shown([open_stack(where)], where, {})


def _tiff(where: str) -> list[LayerTuple]:
    """Read each image of a TIFF file: the one that is taken without a choice, and the others as hidden layers."""
    from napari.utils.notifications import show_info

    from ..sources import open_stack
    from ..sources.tiff import tiff_names

    path = Path(where)
    if path.suffix.lower() not in TIFFS or not path.is_file():
        return _shown([open_stack(where)], where, {})
    names = {i: f"{i} {name}".strip() for i, name in tiff_names(path).items()}
    if len(names) == 1:
        return _of_tiff(path, {}, "")
    first, *others = list(names)[:MOST_IMAGES]
    rest = len(names) - MOST_IMAGES
    show_info(
        f"{path.name} holds {len(names)} images; {names[first]} is shown, the one of most pixels, the others are "
        f"hidden layers{f', without the last {rest}' if rest > 0 else ''}"
    )
    layers = _of_tiff(path, {"series": first}, f" [{names[first]}]")
    for number in others:
        try:
            found = _of_tiff(path, {"series": number}, f" [{names[number]}]")
        except DataError as error:
            show_info(f"image {names[number]}: {error}")
        else:
            layers += [(data, {**about, "visible": False}, kind) for data, about, kind in found]
    return layers


def _of_tiff(path: Path, opening: Mapping[str, Any], called: str) -> list[LayerTuple]:
    """Read one image of a TIFF file; of one that lacks planes what is there, and say so."""
    from napari.utils.notifications import show_warning

    from ..sources import open_stack
    from ..sources.arrange import arrange, check_dtype, name_axes
    from ..sources.tiff import find_tiff, tiff_levels

    series = opening.get("series")
    try:
        found = find_tiff(path, None, series)
    except DataError as error:
        found = find_tiff(path, None, series, allow_incomplete=True)
        opening = {**opening, "allow_incomplete": True}
        show_warning(f"{error}\nWhat is there is shown.")
    found = dataclasses.replace(found, name=found.name + called)
    check_dtype(found.data.dtype, found.name)
    try:
        name_axes(tuple(found.data.shape), found.known, None, found.name)
    except DataError:
        data, about, kind = _unnamed(found)
        return [(data, {**about, "metadata": {OURS: dict(opening)}} if opening else about, kind)]
    coarser = [open_stack(path, level=i, **opening) for i in range(1, tiff_levels(path, series))]
    return _shown([arrange(found, None), *coarser], str(path), {}, opening)


def _unnamed(found: Any) -> LayerTuple:
    return lazy(found.data), {"name": found.name, "contrast_limits": limits(found.data)}, "image"


def _images(where: str) -> list[LayerTuple]:
    """Read the pyramid of the image at `where`, one layer per channel."""
    from ..sources import open_stack
    from ..sources.omezarr import images_inside, levels_there, ome, pyramid
    from ..sources.zarrmeta import below, read_node

    node = read_node(where)
    while node is not None and not node.is_array and "multiscales" not in ome(node):
        inside = images_inside(node)
        node = read_node(below(node.where, inside[0])) if len(inside) == 1 else None
    if node is None or node.is_array:
        return _shown([open_stack(where)], where, {})
    levels = [open_stack(where, level=i) for i in levels_there(pyramid(node))]
    return _shown(levels, where, ome(node))


def _shown(
    levels: list[Stack], where: str, attributes: Mapping[str, Any], opening: Mapping[str, Any] = EMPTY
) -> list[LayerTuple]:
    """Bring the levels of one image to layers; `opening` says how it is opened from `where`."""
    first, ours = levels[0], {"path": where, **opening}
    if RGB in first.notes and first.dtype == np.uint8 and first.size("c") == 3:
        at = first.axes.index("c")
        order = [i for i in range(len(first.axes)) if i != at] + [at]
        about = {**geometry(first.select(c=0)), "name": first.name, "rgb": True, "metadata": {OURS: ours}}
        return [as_layer([View.of(level.data).transpose(order) for level in levels], about, "image")]
    if "c" not in first.axes:
        about = {"name": first.name, "metadata": {OURS: ours}, **geometry(first), **look_of(attributes, 0)}
        return [as_layer([level.data for level in levels], limited(about, levels), "image")]
    count, layers = first.size("c"), []
    colours = COLOURS.get(count, COLOURS[0])
    for channel in range(count):
        cut = [level.select(c=channel) for level in levels]
        name = first.channel_names[channel] if first.channel_names else f"channel {channel}"
        about = {
            "name": f"{first.name}: {name}" if count > 1 else first.name,
            "metadata": {OURS: {**ours, "channel": channel}},
            "blending": "additive" if count > 1 else "translucent",
            "colormap": colours[channel % len(colours)],
            **geometry(cut[0]),
            **look_of(attributes, channel),
        }
        layers.append(as_layer([level.data for level in cut], limited(about, cut), "image"))
    return layers


def _labels(where: str) -> list[LayerTuple]:
    """Read a label image; where it has channels, one layer each. Small ones are a copy that can be painted on."""
    from ..arrays.views import cast
    from ..sources import open_stack
    from ..sources.omezarr import levels_there, ome, pyramid
    from ..sources.zarrmeta import read_node

    node = read_node(where)
    if node is None or "multiscales" not in ome(node):
        return []
    levels = [open_stack(where, level=i) for i in levels_there(pyramid(node))]
    if levels[0].dtype.kind == "f":
        return _images(where)
    described = ome(node).get("image-label")
    about = {"name": levels[0].name.rpartition("/")[2], "metadata": {OURS: {"path": where}}}
    about |= classes(described if isinstance(described, dict) else {}) | of_a_run(where)
    layers = []
    for channel in range(levels[0].size("c")):
        cut = [level.select(c=channel) if "c" in level.axes else level for level in levels]
        data: list[Any] = [cast(c.data, np.uint8) if c.dtype.kind == "b" else c.data for c in cut]
        if math.prod(cut[0].shape) * cut[0].dtype.itemsize <= IN_MEMORY:
            data = [cut[0].read(tuple(slice(0, n) for n in cut[0].shape)).astype(data[0].dtype)]
        layers.append(as_layer(data, about | geometry(cut[0]), "labels"))
    return layers
