"""In another process: what the first preview needs is loaded, and how long a run will take is tried on a sample."""

import dataclasses
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnetError
from . import away
from .away import Run

if TYPE_CHECKING:
    from .. import Preflight, Stack

EDGE = {2: 384, 3: 96}  # pixels of a sample: a few blocks of a preview, computed in less than a second on two cores
PLANES = 12  # of a sample in 3-D
GREY = 200  # values of a sample's noise: all that matters is that it is not constant, which would be computed once only
START = 2.0  # seconds that any run takes: it opens, measures intensities, and writes the pyramid
_tried: dict[Any, float] = {}  # seconds per pixel, by what they depend on


def warm() -> Generator[None, None, None]:
    """Load what any network needs, which takes seconds."""
    yield
    from .. import preview  # noqa: F401 - with it come torch and all that a first preview waits for


def check(run: Run) -> "Generator[None, None, tuple[Preflight, float | None]]":
    """Say what a run will take, and about how many seconds; None of these where a sample cannot be computed."""
    found = yield from away.check(run)
    try:
        return found, (yield from seconds(run))
    except UnetError:
        return found, None


def seconds(run: Run) -> Generator[None, None, float]:
    """Return about how long a run will take: a sample of noise is computed once for each model and device."""
    from .. import load_model, preview

    config, axes = run.config, run.stack.axes
    key = (run.models, config.device, config.precision, config.tta, config.diameter, config.resample, run.stack.scale)
    if key not in _tried:
        models = tuple(map(load_model, run.models))
        yield
        sample = _sample(run.stack, "z" in models[0].axes)
        shown = preview(sample, models, dataclasses.replace(config, block=None, region=None, scheduler=None))
        box = tuple(slice(0, n) for n, a in zip(sample.shape, axes, strict=True) if a != "c")
        began, done = time.perf_counter(), 0
        for number, (part, _values) in enumerate(shown.blocks(shown.working_box(box))):
            if number == 0:  # what is loaded on first use
                first = time.perf_counter() - began, _voxels(part)
                began = time.perf_counter()
            else:
                done += _voxels(part)
            yield
        spent = time.perf_counter() - began
        size = [n for n, a in zip(sample.shape, axes, strict=True) if a != "c"]
        run_at = float(np.prod(shown.lazy.grid.shape)) / float(np.prod(size))  # pixels of the network for one of these
        _tried[key] = run_at * (spent / done if done else first[0] / first[1])
    return START + _run_alone(run) * _tried[key]


def _run_alone(run: Run) -> float:
    """Return how many pixels of the image the network is given: of a part, what it sees around included."""
    from ..inference.prepare import prepare

    pixels = float(np.prod([float(n) for n, a in zip(run.stack.shape, run.stack.axes, strict=True) if a != "c"]))
    region = None if run.config.region is None else prepare(run.stack, run.models, run.config).region
    if region is None:
        return pixels
    return pixels * _voxels(region.taken.values()) / _voxels(region.run.values())


def _voxels(box: Any) -> int:
    return int(np.prod([b.stop - b.start for b in box]))


def _sample(stack: "Stack", deep: bool) -> "Stack":
    """Return noise of an image's axes, type and pixel size."""
    sizes = {"t": 1, "z": PLANES if deep else 1, "c": stack.size("c")}
    shape = [min(n, sizes.get(a, EDGE[3 if deep else 2])) for a, n in zip(stack.axes, stack.shape, strict=True)]
    noise = np.random.default_rng(0).integers(0, GREY, shape)
    kind = stack.dtype if stack.dtype.kind in "uif" else np.dtype(np.uint8)
    return dataclasses.replace(stack, data=noise.astype(np.int8 if kind == np.int8 else kind), source=None)
