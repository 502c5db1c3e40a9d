"""What a coarser arithmetic changes: a sample of the image in it, and in float32."""

import dataclasses
import math

import numpy as np

from ..tiles import TileGrid
from .engine import Engine

SAMPLE = {2: 128, 3: 32}
WORTH = 50  # a run that takes this many samples is worth one


@dataclasses.dataclass(frozen=True, slots=True)
class Rounding:
    """How a result changes with the precision.

    Parameters
    ----------
    precision : str
        The one that was chosen.
    changed, voxels : int
        Voxels of the sample whose result is another than in float32; and all of them.
    off : float, optional
        Root mean square difference of intensities, as a part of their standard deviation; None for labels.
    """

    precision: str
    changed: int
    voxels: int
    off: float | None = None

    def __str__(self) -> str:
        if self.off is not None:
            return f"{self.precision} changes intensities by {100 * self.off:.2g} % of their spread, on a sample"
        return f"{self.precision} changes {100 * self.changed / self.voxels:.2g} % of the labels, on a sample"


def rounding(engine: Engine) -> Rounding | None:
    """Predict the middle of the image in the engine's precision and in float32, and count the labels that differ.

    Returns
    -------
    Rounding, or None where the engine computes in float32 or the image is so small that it is not worth it

    Raises
    ------
    DataError
        Where the sample cannot be read.
    """
    if engine.precision_name == "fp32":
        return None
    shape = tuple(engine.stack.size(axis) for axis in engine.axes)
    size = SAMPLE[engine.model.config.ndim]
    core, middle = [], []
    for axis, (n, stride) in enumerate(zip(shape, engine.footprint.stride, strict=True)):
        core.append(1 if axis < engine.batch_axes else math.ceil(size / stride) * stride)
        middle.append((n - 1) // 2 // core[-1])
    tile = TileGrid(shape, tuple(core), engine.footprint).tile(tuple(middle))
    if math.prod(shape) < WORTH * math.prod(b.stop - b.start for b in tile.read):
        return None
    data = engine.read(tile.read)
    ours, exact = (each.model.task.decode(each.logits(tile, data)) for each in (engine, engine.at("fp32")))
    changed = int((ours != exact).sum())
    if engine.model.task.result == "labels":
        return Rounding(engine.precision_name, changed, ours.size)
    a, b = (each.astype(np.float64) for each in (ours, exact))
    off = float(np.sqrt(np.square(a - b).mean()) / max(float(b.std()), np.finfo(np.float32).tiny))
    return Rounding(engine.precision_name, changed, ours.size, off)
