"""How what is read looks as a layer: scale and position, contrast, colours, and the table of labels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import LazyArray, View
from ..units import is_known
from .writing import MOST_ROWS, LayerTuple

OURS = "napari_unet"
WHITE = ("FFFFFF", "")  # no colour of its own


class LayerView(View):
    """A view with what a layer asks for besides."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def lazy(data: LazyArray) -> Any:
    """Return lazy data as a layer takes it."""
    return data if hasattr(data, "size") else LayerView(*_fields(View.of(data)))


def _fields(view: View) -> tuple[Any, ...]:
    return view.base, view.index, view.order


def as_layer(levels: Sequence[LazyArray], about: dict[str, Any], kind: str) -> LayerTuple:
    """Put levels into a layer; labels that stay on disk are given as a pyramid, as that cannot be painted on."""
    data = [lazy(level) for level in levels]
    several = len(data) > 1 or (kind == "labels" and not isinstance(data[0], np.ndarray))
    return (data if several else data[0]), {**about, "multiscale": several}, kind


def geometry(stack: Stack) -> dict[str, Any]:
    """Return scale, position and units of a layer; units that the viewer may not know are left out."""
    return {
        "scale": stack.scale,
        "translate": stack.translation,
        "units": tuple(u if u and is_known(u) else "pixel" for u in stack.units),
        "axis_labels": tuple(stack.axes),
    }


def look_of(attributes: Mapping[str, Any], channel: int) -> dict[str, Any]:
    """Return contrast limits and colour of a channel, where ``omero`` has them and they can be."""
    from ..sources.omero import look

    said, found = look(attributes, channel), {}
    if "limits" in said:
        found["contrast_limits"] = said["limits"]
    if "colour" in said:
        found["colormap"] = "gray" if said["colour"] in WHITE else f"#{said['colour'].lower()}"
    if "visible" in said:
        found["visible"] = said["visible"]
    return found


def limited(about: dict[str, Any], levels: Sequence[Stack]) -> dict[str, Any]:
    """Add contrast limits where the file has none: of the middle plane of the coarsest level."""
    return about if "contrast_limits" in about else {**about, "contrast_limits": limits(levels[-1].data)}


def limits(data: LazyArray) -> tuple[float, float] | None:
    """Return the range of values of the middle of an image."""
    if np.dtype(data.dtype).kind == "b" or len(data.shape) < 2:
        return (0.0, 1.0)
    if data.dtype == np.uint8:
        return (0.0, 255.0)
    middle = [n // 2 for n in data.shape[:-2]]
    plane = [slice(max(0, n // 2 - 1024), n // 2 + 1024) for n in data.shape[-2:]]
    values = np.asarray(data[(*middle, *plane)]).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1)


def classes(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return colours of labels, and a table of what is known of them: row i is label i, row 0 the background."""
    from ..sources.omero import described, label_colour

    found: dict[str, Any] = {}
    shades = {value: label_colour(e) for value, e in described(about, "colors").items()}
    colours: dict[int | None, list[float]] = {value: shade for value, shade in shades.items() if shade is not None}
    if colours:
        found["colormap"] = {None: [0.5, 0.5, 0.5, 1.0], 0: [0.0] * 4} | colours
    properties = described(about, "properties")
    highest = max(properties, default=0)
    keys = dict.fromkeys(k for e in properties.values() for k in e if k != "label-value")
    if 0 < highest <= MOST_ROWS and min(properties) >= 0 and keys:
        found["features"] = {"index": list(range(highest + 1))} | {
            str(key): [properties.get(i, {}).get(key, _missing(key, i, properties)) for i in range(highest + 1)]
            for key in keys
        }
    return found


def _missing(key: str, row: int, properties: Mapping[int, Mapping[str, Any]]) -> Any:
    if all(isinstance(e.get(key, 0), int | float) for e in properties.values()):
        return math.nan
    return "background" if key == "class" and not row else ""


def of_a_run(where: str) -> dict[str, Any]:
    """Return what a layer of a run's labels has besides: the name of image and model, and the table of objects.

    Parameters
    ----------
    where : str
        Of the labels; nothing is returned of those that no model made.
    """
    from ..sources.omezarr import CLASSES
    from ..sources.pairs import stem
    from ..sources.zarrmeta import is_remote, read_node
    from ..store.table import read_table, table_of

    root, _, name = where.rpartition("/labels/")
    node = read_node(root) if root else None
    ours = node.attributes.get(OURS) if node is not None else None
    made = ours.get("provenance") if isinstance(ours, dict) else None
    if not isinstance(made, dict) or "model" not in made:
        return {}
    image, source, model = stem(Path(root)), made.get("source"), made["model"]
    parts = " classes" if name.endswith(CLASSES) else ""
    name = str((model.get("name") if isinstance(model, dict) else None) or name.removesuffix(CLASSES))
    about = {"path": where, **({"image": source} if isinstance(source, str) else {})}
    found = {"name": (image if name in image else f"{image} {name}") + parts, "metadata": {OURS: about}}
    table = Path() if is_remote(where) else table_of(Path(where))
    features = read_table(table) if table.is_file() else {}
    return found | ({"features": features} if features else {})


def overview(node: Any, layers: list[LayerTuple]) -> list[LayerTuple]:
    """Name the small image that a result holds of what it was made of: it is not that image."""
    ours = node.attributes.get(OURS)
    if not isinstance(ours, dict) or not str(ours.get("result", "")).startswith("labels/"):
        return layers
    return [(data, about | {"name": f"{about['name']} overview"}, kind) for data, about, kind in layers]
