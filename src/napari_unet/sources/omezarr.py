"""OME-Zarr 0.1 to 0.6, and what surrounds it: pyramids, labels, plates, series, bare arrays."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arrays.stack import AXES
from ..errors import DataError, UnsafeError
from .arrange import UNKNOWN, Found, axis_letters, letters_of
from .omero import channel_names
from .transforms import Placing, chain, coordinate_system, placing
from .zarrays import open_array
from .zarrmeta import Node, array_info, below, children, is_remote, read_node

OURS = "napari_unet"
CLASSES = "_classes"  # behind the name of objects: the labels of what they are made of
SHOWN = 8  # names in a message: a line on a screen
KNOWN = 6  # of OME-Zarr 0.6, the newest draft whose metadata was read
VERSION = re.compile(r"(\d+)\.(\d+)")
MOST_LEVELS = 64  # each at most half of the one before: no size of 63 bits has more
TYPES = {"channel": "c", "time": "t"}  # of axes whose names say nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """One level of a pyramid: its path in the group, and the scale and translation of its elements.

    `scaled` and `moved` tell whether it has them of its own.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    scaled: bool
    moved: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Pyramid:
    """What the metadata of an OME-Zarr image says; `known` is one letter per dimension, `shape` the finest level's."""

    node: Node
    known: str
    units: tuple[str | None, ...]
    levels: tuple[Dataset, ...]
    shape: tuple[int, ...]
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]


def ome(node: Node) -> Mapping[str, Any]:
    """Return the OME part of a group's attributes, wherever its version keeps it."""
    inner = node.attributes.get("ome")
    return inner if isinstance(inner, dict) else node.attributes


def short_name(where: str) -> str:
    """Return the name that a stack at `where` goes by: the file's, without its endings."""
    parts = [p for p in where.rstrip("/").replace("\\", "/").split("/") if p]
    at = next((i for i in reversed(range(len(parts))) if parts[i].lower().endswith(".zarr")), len(parts) - 1)
    first = parts[at]
    for ending in (".zarr", ".ome"):
        first = first[: -len(ending)] if first.lower().endswith(ending) else first
    return "/".join([first, *parts[at + 1 :]])


def find(node: Node, level: int | None) -> Found:
    """Find the one image that `node` holds.

    Raises
    ------
    DataError
        Where there is none, or several; it names what is inside.
    """
    if node.is_array:
        return _bare(node, level)
    attributes = ome(node)
    if "multiscales" in attributes:
        return find_level(pyramid(node), level or 0)
    inside = images_inside(node)
    if len(inside) == 1:
        only = read_node(below(node.where, inside[0]))
        if only is None:
            raise DataError(f"{node.where}: its metadata names {inside[0]!r}, which is not there; copy it again")
        return find(only, level)
    raise DataError(_nothing_to_open(node, inside))


def _nothing_to_open(node: Node, inside: Sequence[str]) -> str:
    attributes = ome(node)
    kind = next((k for k in ("plate", "well") if k in attributes), "group")
    if inside:
        names = ", ".join(inside[:SHOWN]) + (" ..." if len(inside) > SHOWN else "")
        example = f"{node.where}/{inside[0]}"
        return f"{node.where} is a {kind} of {len(inside)} images; open one of them, such as {example}: {names}"
    arrays = [Path(c.where).name for c in children(node.where) if c.is_array]
    if arrays:
        return (
            f"{node.where} holds no multiscales metadata ({'zarr.json' if node.format == 3 else '.zattrs'}), only "
            f"arrays {', '.join(arrays[:SHOWN])}; open one, such as {node.where}/{arrays[0]}, and give its axes"
        )
    return f"{node.where} is a zarr {kind} without an image in it; nothing to open"


def images_inside(node: Node) -> list[str]:
    """List the paths of the images inside a plate, a well, a group of series, or a plain group."""
    attributes = ome(node)
    if "plate" in attributes:
        wells = _paths(attributes["plate"], "wells")
        return [f"{well}/{image}" for well in wells for image in _well_images(node, well)]
    if "well" in attributes:
        return _paths(attributes["well"], "images")
    groups = [c for c in children(node.where) if not c.is_array]
    found = [Path(c.where).name for c in groups if {"multiscales", "plate", "well"} & set(ome(c))]
    if not found and "bioformats2raw.layout" in attributes and is_remote(node.where):
        found = ["0"] if read_node(below(node.where, "0")) else []
    return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _well_images(node: Node, well: str) -> list[str]:
    inner = read_node(below(node.where, well))
    return _paths(ome(inner).get("well"), "images") if inner else []


def _paths(listing: Any, key: str) -> list[str]:
    entries = listing.get(key) if isinstance(listing, dict) else None
    return [e["path"] for e in entries or [] if isinstance(e, dict) and isinstance(e.get("path"), str)]


def pyramid(node: Node) -> Pyramid:
    """Read the multiscales metadata of a group; slightly invalid files are taken as what they mean.

    Raises
    ------
    DataError
        Where nothing can be made of it, naming the file.
    """
    attributes = ome(node)
    listing = attributes.get("multiscales")
    first = listing[0] if isinstance(listing, list) and listing else None
    datasets = first.get("datasets") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(datasets, list) or not datasets:
        raise DataError(f"{node.where}: its multiscales metadata lists no datasets; open an array inside it, with axes")
    if len(datasets) > MOST_LEVELS:
        raise DataError(
            f"{node.where}: its metadata lists {len(datasets)} levels, which no pyramid has; it is not read"
        )
    usable = [d for d in datasets if isinstance(d, dict) and isinstance(d.get("path"), str)]
    if usable[:1] != datasets[:1]:
        raise DataError(f"{node.where}: its metadata has datasets without a path; open an array inside, with axes")
    top = read_node(below(node.where, usable[0]["path"]))
    if top is None or not top.is_array:
        raise DataError(
            f"{node.where}: its multiscales metadata names the array {usable[0]['path']!r}, which is not there; "
            "copy the image again, or open another array inside, with axes"
        )
    shape = array_info(top).shape
    system, beyond = coordinate_system(first, usable[0])
    known, units, said = _axes(system, len(shape), node.where)
    several = len(attributes["multiscales"])
    version = str(attributes.get("version") or first.get("version"))
    notes = [f"OME-Zarr {version} is newer than 0.{KNOWN}, as which it was read"] if _is_newer(version) else []
    notes += [*said, *([f"the first of {several} multiscales was taken"] if several > 1 else [])]
    notes += [f"{len(datasets) - len(usable)} datasets without a path were skipped"] if usable != datasets else []
    outer = None if beyond is not None else first.get("coordinateTransformations")
    levels = _levels([(d["path"], chain(d, beyond)) for d in usable], outer, len(shape), node)
    return Pyramid(node, known, units, levels, shape, channel_names(attributes), (*notes, *(beyond or ())))


def _is_newer(version: str) -> bool:
    found = VERSION.match(version)
    return found is not None and (int(found[1]) > 0 or int(found[2]) > KNOWN)


def _levels(datasets: Sequence[tuple[str, Any]], outer: Any, ndim: int, node: Node) -> tuple[Dataset, ...]:
    """Place each level by its own transformations, then by those of the multiscale."""
    around = placing(outer, ndim, node)[0]
    found = []
    for path, steps in datasets:
        own, scaled = placing(steps, ndim, node)
        placed = own.then(around)
        found.append(Dataset(path, placed.scale, placed.translation, scaled, any(own.translation)))
    return tuple(found)


def _axes(axes: Any, ndim: int, where: str) -> tuple[str, tuple[str | None, ...], tuple[str, ...]]:
    """Name the axes, with their units and notes: by name, else by type; ``?`` where neither helps.

    Versions before 0.3 are always tczyx.
    """
    if not isinstance(axes, list):
        return (AXES if ndim == len(AXES) else UNKNOWN * ndim), (None,) * ndim, ()
    entries = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    if len(entries) != ndim:
        raise DataError(f"{where}: its metadata has {len(entries)} axes, its array {ndim}; open that, with axes")
    letters = []
    for entry in entries:
        letter = axis_letters([str(entry.get("name", ""))])
        letters.append(TYPES.get(str(entry.get("type")), UNKNOWN) if letter == UNKNOWN else letter)
    notes = letters_of([entry.get("name") for entry in entries], ndim)[1] if letters == [UNKNOWN] * ndim else ()
    units = tuple(u if isinstance(u := entry.get("unit"), str) else None for entry in entries)
    return "".join(letters), units, notes


def find_level(image: Pyramid, level: int) -> Found:
    """Open one level of a pyramid, 0 the finest."""
    where = image.node.where
    if not 0 <= level < len(image.levels):
        raise DataError(f"{where} has levels 0 to {len(image.levels) - 1}, not {level}; choose one of these")
    chosen = image.levels[level]
    node = read_node(below(where, chosen.path))
    if node is None or not node.is_array:
        raise DataError(
            f"{where}: its multiscales metadata names the array {chosen.path!r}, which is not there; copy it again"
        )
    data = open_array(node)
    if data.ndim != len(image.known):
        raise DataError(
            f"{node.where} has {data.ndim} dimensions, its metadata {len(image.known)} axes; open it by its path"
        )
    placed, notes = _placed(image, level, tuple(data.shape))
    return Found(
        data,
        image.known,
        short_name(where),
        where,
        scale=placed.scale,
        units=image.units,
        translation=tuple(t if math.isfinite(t) else 0.0 for t in placed.translation),
        channel_names=image.channel_names if "c" in image.known else (),
        notes=(*image.notes, *notes, *_missing_note(image)),
    )


def _shapes_to(image: Pyramid, level: int, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """List the shapes from the finest level to one that does not say its scale, without those that are not there."""
    shapes = [image.shape]
    for i in range(1, level if not image.levels[level].scaled else 0):
        if _is_there(image, i):
            node = read_node(below(image.node.where, image.levels[i].path))
            shapes += [array_info(node).shape] if node is not None else []
    return [*(s for s in shapes if all(n >= m for n, m in zip(s, shape, strict=True))), shape]


def _placed(image: Pyramid, level: int, shape: tuple[int, ...]) -> tuple[Placing, list[str]]:
    """Return where the elements of a level lie: as it says, else by how much smaller it is than the finest."""
    chosen, finest = image.levels[level], image.levels[0]
    placed, notes = Placing(chosen.scale, chosen.translation), []
    coarser = Placing(finest.scale, finest.translation).through(_shapes_to(image, level, shape))
    plane = [i for i, a in enumerate(image.known) if a in "yx" and coarser.scale[i] >= 1.5 * finest.scale[i]]
    if level and not chosen.scaled:
        placed = Placing(coarser.scale, chosen.translation if chosen.moved else coarser.translation)
    elif level and plane and all(chosen.scale[i] == finest.scale[i] for i in plane):
        notes.append(f"level {level} says the pixel size of level 0, though it is smaller")
    odd = [a for a, t in zip(image.known, placed.translation, strict=True) if not math.isfinite(t)]
    notes += [f"the position along {', '.join(odd)} is not a finite number; 0 was taken"] if odd else []
    return placed, notes


def levels_there(image: Pyramid) -> list[int]:
    """List the levels that can be opened; the finest must be there, others may have been lost on the way."""
    return [0, *(i for i in range(1, len(image.levels)) if _is_there(image, i))]


def _is_there(image: Pyramid, level: int) -> bool:
    try:
        node = read_node(below(image.node.where, image.levels[level].path))
        return node is not None and node.is_array and len(array_info(node).shape) == len(image.shape)
    except DataError:
        return False


def _missing_note(image: Pyramid) -> list[str]:
    """Say which levels are not there or damaged; of addresses that would take a request each."""
    if is_remote(image.node.where):
        return []
    gone = []
    for i in range(1, len(image.levels)):
        with contextlib.suppress(UnsafeError):  # is said by who opens that level
            gone += [] if _is_there(image, i) else [str(i)]
    return [f"level {', '.join(gone)} of its pyramid is not there, or damaged"] if gone else []


def _bare(node: Node, level: int | None) -> Found:
    """Open an array by its own path: with what the group around it knows, else with its dimension names."""
    if level:
        raise DataError(f"{node.where} is a single array, there is no level {level}; leave it out")
    info = array_info(node)
    around = None if is_remote(node.where) else _in_pyramid(Path(node.where))
    if around is not None:
        return dataclasses.replace(around, source=node.where)
    names = info.dimension_names or node.attributes.get("_ARRAY_DIMENSIONS")
    known, notes = letters_of(names if isinstance(names, list | tuple) else (), len(info.shape))
    return Found(open_array(node), known, short_name(node.where), node.where, notes=notes)


def _in_pyramid(path: Path) -> Found | None:
    """Open an array as the level that the group around it takes it for; None where that says nothing usable."""
    for parent in list(path.parents)[:2]:
        try:
            group = read_node(str(parent))
            if group is None or group.is_array or "multiscales" not in ome(group):
                continue
            image = pyramid(group)
            at = [level.path for level in image.levels].index(path.relative_to(parent).as_posix())
            return find_level(image, at)
        except (DataError, ValueError):
            continue
    return None


def labels_inside(node: Node) -> list[str]:
    """List the label images of an OME-Zarr image, as paths inside it."""
    group = read_node(below(node.where, "labels"))
    if group is None:
        return []
    listed = ome(group).get("labels")
    names = [n for n in listed if isinstance(n, str)] if isinstance(listed, list) else []
    if not names:
        names = [Path(c.where).name for c in children(group.where) if not c.is_array and "multiscales" in ome(c)]
    return [f"labels/{name}" for name in names]
