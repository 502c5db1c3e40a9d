"""The arrays of a result: where each lies in the store, its axes, scale and chunks."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays.stack import SPATIAL, Stack
from ..arrays.views import Box
from ..grid.finer import blank, result_geometry, with_channels
from ..grid.tiles import TileGrid
from ..model import Model
from ..objects import ObjectConfig, label_dtype
from ..sources.omezarr import CLASSES
from ..store import Output
from ..store.ome import is_name
from ..store.save import storable_name
from .engine import Engine

OVERVIEW_BYTES = 2**30  # 1 GiB: an image beside labels is made coarser until it is no larger
SAMPLES = "samples"  # where each of them lies in the store
CHUNK_2D, CHUNK_3D = 1024, 128  # edges: 1 to 8 MiB a file, what viewers and object stores read well


def result_path(model: Model, name: str | None) -> str:
    """Return where in the store the result lies: an image at its root, labels by the name given, or the model's."""
    if model.task.result == "image":
        return ""
    own = str(model.record.get("name") or model.task.name)
    return f"labels/{name or (own if is_name(own) else storable_name(own))}"


def classes_path(model: Model, name: str | None) -> str:
    """Return where the labels lie that the network gives: those of the result, or the classes that objects are of."""
    return result_path(model, name) + CLASSES * (model.task.objects is not None)


def labels_output(engine: Engine, grid: TileGrid, name: str | None) -> Output:
    """Lay out ``labels/NAME``, or ``labels/NAME_classes`` of objects: the image's axes without c, at its scale."""
    task = engine.model.task
    return Output(
        path=classes_path(engine.model, name),
        kind="labels",
        axes=engine.axes,
        shape=grid.shape,
        dtype=np.dtype(task.dtype),
        chunks=chunks_of(grid.core, grid.shape, engine.axes),
        attributes=task.attributes(),
        **_geometry(engine.stack, engine.axes),
    )


def objects_output(engine: Engine, grid: TileGrid, name: str | None, objects: ObjectConfig) -> Output:
    """Lay out ``labels/NAME`` for objects, beside the classes that they are made of.

    Ids have 32 bits where there cannot be more objects, and 64 bits otherwise.
    """
    most = math.prod(grid.shape) // max(objects.min_size, 1)
    classes = labels_output(engine, grid, name)
    return dataclasses.replace(
        classes,
        path=result_path(engine.model, name),
        dtype=label_dtype(most),
        attributes={},  # an id is not a class: it has neither the colour nor the name of one
    )


def image_output(engine: Engine, grid: TileGrid) -> Output:
    """Lay out an image as the result: on its own grid, channels as the task has them."""
    task = engine.model.task
    return _finer_output(engine, grid, "", task.names, np.dtype(task.dtype))


def error_output(engine: Engine, grid: TileGrid) -> Output:
    """Lay out how far the result is from the image."""
    return _finer_output(engine, grid, "error", engine.model.task.names, np.dtype(np.float32))


def std_output(engine: Engine, grid: TileGrid) -> Output:
    """Lay out the standard deviation of each intensity, in the result's units."""
    return _finer_output(engine, grid, "uncertainty", engine.model.task.names, np.dtype(np.float32))


def samples_output(engine: Engine, grid: TileGrid, samples: int) -> Output:
    """Lay out each sample: a channel, or, where the result has several, as many in a row."""
    names = engine.model.task.names
    each = [(f"sample {i + 1}", name if len(names) > 1 else "") for i in range(samples) for name in names]
    dtype = np.dtype(engine.model.task.dtype)
    return _finer_output(engine, grid, SAMPLES, tuple(" ".join(filter(None, both)) for both in each), dtype)


def _finer_output(engine: Engine, grid: TileGrid, path: str, names: tuple[str, ...], dtype: np.dtype[Any]) -> Output:
    axes, fields = result_geometry(engine.stack, engine.axes, engine.factors, len(names))
    geometry: dict[str, Any] = dict(fields)
    core, shape = (
        tuple(math.ceil(n * f) for n, f in zip(sizes, engine.factors, strict=True)) for sizes in (grid.core, grid.shape)
    )
    chunks = list(chunks_of(core, shape, engine.axes))
    if "c" in axes:
        chunks.insert(axes.index("c"), 1)
    return Output(
        path=path,
        kind="image",
        axes=axes,
        dtype=dtype,
        chunks=tuple(chunks),
        channel_names=names if len(names) > 1 else (),
        **geometry,
    )


def result_of(stack: Stack, model: Model) -> Stack:
    """Return a stack of zeros that lies where the result of a model on another stack does."""
    task = model.task
    names = task.names if task.result == "image" else ()
    return dataclasses.replace(
        blank(stack, model.factors, np.dtype(task.dtype), names), name=f"{stack.name} {task.name}"
    )


def probabilities_output(engine: Engine, grid: TileGrid, dtype: str) -> Output:
    """Lay out the probabilities, one channel per class."""
    task = engine.model.task
    axes, at = with_channels(engine.axes)
    shape, chunks = list(grid.shape), list(chunks_of(grid.core, grid.shape, engine.axes))
    shape.insert(at, task.out_channels)
    chunks.insert(at, 1)
    geometry = _geometry(engine.stack, engine.axes)
    for field, value in (("scale", 1.0), ("units", None), ("translation", 0.0)):
        geometry[field] = (*geometry[field][:at], value, *geometry[field][at:])
    return Output(
        path="probabilities",
        kind="image",
        axes=axes,
        shape=tuple(shape),
        dtype=np.dtype(dtype),
        chunks=tuple(chunks),
        channel_names=tuple(map(str, task.names)),
        **geometry,
    )


def uncertainty_output(engine: Engine, grid: TileGrid) -> Output:
    """Lay out the uncertainty: 0 where one class is certain, 255 where all are as likely."""
    return Output(
        path="uncertainty",
        kind="image",
        axes=engine.axes,
        shape=grid.shape,
        dtype=np.dtype(np.uint8),
        chunks=chunks_of(grid.core, grid.shape, engine.axes),
        attributes={"window": (0, 255)},
        **_geometry(engine.stack, engine.axes),
    )


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of (K, *S) probabilities as a part of the largest there is: (*S), 0 to 1 (Shannon 1948)."""
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return np.asarray((probabilities * surprise).sum(0) / np.log(len(probabilities)))


def overview_output(engine: Engine, grid: TileGrid, coarser: tuple[int, ...]) -> Output:
    """Lay out the image that stands beside its labels, each element the mean of `coarser` of the source's."""
    stack = engine.stack
    factor = dict(zip(engine.axes, coarser, strict=True)) | {"c": 1}
    shape = tuple(math.ceil(n / factor[a]) for a, n in zip(stack.axes, stack.shape, strict=True))
    core = tuple(c // f for c, f in zip(grid.core, coarser, strict=True))
    sizes = dict(
        zip(
            engine.axes,
            chunks_of(core, tuple(shape[stack.axes.index(a)] for a in engine.axes), engine.axes),
            strict=True,
        )
    )
    steps = [
        (factor[a], scale, start) for a, scale, start in zip(stack.axes, stack.scale, stack.translation, strict=True)
    ]
    return Output(
        path="",
        kind="image",
        axes=stack.axes,
        shape=shape,
        dtype=np.dtype(np.uint8) if stack.dtype == bool else stack.dtype.newbyteorder("="),
        chunks=tuple(sizes.get(a, 1) for a in stack.axes),
        scale=tuple(f * scale for f, scale, _ in steps),
        units=stack.units,
        translation=tuple(start + (f - 1) / 2 * scale for f, scale, start in steps),
        channel_names=stack.channel_names,
    )


def coarseness(stack: Stack, axes: str) -> tuple[int, ...]:
    """Return how many elements one of the overview's stands for, per axis of `axes`: powers of 2 in space."""
    size = math.prod(stack.shape) * stack.dtype.itemsize
    factor = 1
    while (
        math.prod(math.ceil(n / factor) if a in SPATIAL else n for a, n in zip(stack.axes, stack.shape, strict=True))
        * (stack.dtype.itemsize)
        > OVERVIEW_BYTES
        and factor < size
    ):
        factor *= 2
    return tuple(factor if a in SPATIAL else 1 for a in axes)


def chunks_of(core: tuple[int, ...], shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Cut a block into equal chunks: at most 128 per axis in 3-D, 1024 in 2-D; about as many where it has no parts."""
    flat = sum(n > 1 for n, a in zip(shape, axes, strict=True) if a in SPATIAL) < 3
    chunks = []
    for c, n in zip(core, shape, strict=True):
        size, most = min(c, n), CHUNK_2D if flat else CHUNK_3D
        parts = math.ceil(size / most)
        while c < n and c % parts:
            parts += 1
        if size / parts < min(size, most) / 4:  # a block of a large prime number
            parts = min((p for p in range(1, c + 1) if c % p == 0), key=lambda p: abs(math.log(c / p / most)))
        chunks.append(math.ceil(size / parts))
    return tuple(chunks)


def place(output: Output, box: Box, values: np.ndarray) -> tuple[Box, np.ndarray]:
    """Bring (C, ...) values to an output's axes and element type, cut where that ends: (box, data)."""
    ends = [n for n, axis in zip(output.shape, output.axes, strict=True) if axis != "c"]
    if any(b.stop > n for b, n in zip(box, ends, strict=True)):
        box = tuple(slice(b.start, min(b.stop, n)) for b, n in zip(box, ends, strict=True))
        values = values[(slice(None), *(slice(0, b.stop - b.start) for b in box))]
    if output.dtype.kind in "iu" and values.dtype.kind == "f":
        values = np.rint(values)
    values = values.astype(output.dtype, copy=False)
    if "c" not in output.axes:
        return box, values[0]
    at = output.axes.index("c")
    return (*box[:at], slice(0, output.shape[at]), *box[at:]), np.moveaxis(values, 0, at)


def rescaled(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Bring probabilities from [0, 1] to the range of an element type: 0 to 255 for uint8."""
    return values * np.iinfo(dtype).max if dtype.kind == "u" else values


def mean_of(data: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Mean of boxes of `factors` in (C, *S); at the far border of what is there. One layer of boxes after the other."""
    if max(factors) == 1:
        return data
    starts = [np.arange(0, n, f) for n, f in zip(data.shape, factors, strict=True)]
    means = np.empty([len(at) for at in starts])
    for i, start in enumerate(starts[1]):
        layer = data[:, start : start + factors[1]].sum(axis=1, dtype=np.float64)
        for axis in range(2, data.ndim):
            layer = np.add.reduceat(layer, starts[axis], axis - 1) if factors[axis] > 1 else layer
        means[:, i] = layer
    for axis, (at, n) in enumerate(zip(starts, data.shape, strict=True)):
        counts = np.diff(np.append(at, n))
        means /= counts.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
    return means


def _geometry(stack: Stack, axes: str) -> dict[str, Any]:
    return {field: stack.values_along(axes, field) for field in ("scale", "units", "translation")}
