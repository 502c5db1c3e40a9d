"""A result at the image's own pixels, where the network ran at others: made block by block of what that gave."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.resample import Resampled, ResampledLabels
from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase
from ..errors import DataError
from ..events import Progress
from ..faults import persist
from ..grid.tiles import scaled
from ..objects.scratch import discard
from ..store import Output, ResultStore
from ..store.layout import WORKING
from .diffusion import SamplingEngine
from .flow import IMAGE, DoneBlocks, raise_unfinished
from .outputs import SAMPLES
from .samples import EachSample, OverSamples

if TYPE_CHECKING:
    from .job import Job

STAGE, MEAN = "pixel size", "mean of samples"


def ratios(own: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    """Return the size of own pixels in others, per axis."""
    return tuple(a / b for a, b in zip(own, other, strict=True))


def brought(stack: Stack, own: Stack, kind: str = "image") -> Stack:
    """Return an image or labels, lazily, at the pixels of another stack, which shows the same part of the world."""
    data = resampling(kind)(stack.data, own.shape, ratios(own.scale, stack.scale))
    return dataclasses.replace(own, data=data)


def resampling(kind: str) -> type[Resampled]:
    """Return how a result of a kind, "labels" or "image", is brought to other pixels."""
    return ResampledLabels if kind == "labels" else Resampled


@contextlib.contextmanager
def workplace(job: "Job", store: ResultStore) -> Iterator[ResultStore]:
    """Open the store that the network's blocks go to: that of the result, or, at other pixels, one in its ledger.

    That one is removed when all is made of it.
    """
    if job.own is None or (not store.pending() and (job.own.objects is None or store.has_table)):
        yield store
        return
    folder = store.ledger / WORKING
    work = ResultStore.create(
        folder,
        job.decoder.outputs,
        blocks=len(job.grid),
        settings=store.plan.settings,
        provenance={},
        break_lock=True,  # the lock of the result is held, so the run that made this is gone
        reopen=True,
    )
    with work:
        yield work
    discard(folder)


def bring_back(job: "Job", work: ResultStore, store: ResultStore) -> Iterator[Progress]:
    """Write the blocks of the result that are not done, but for those of objects, from what the network gave.

    Labels take the one of most weight, images are interpolated linearly: what is written does not depend on blocks.

    Raises
    ------
    IncompleteError
        After all others are done, where the image that stands beside its labels could not be read.
    """
    own = job.own
    if own is None or work is store:
        return
    failed: dict[int, str] = {}
    for event in own.through(_Brought(job, own, work), store, None, failed):
        stage = STAGE if samples_of(job) == 1 else MEAN
        yield dataclasses.replace(event, done=job.apart + store.count, total=job.total, stage=stage)
    raise_unfinished(failed, len(own.grid))


def samples_of(job: "Job") -> int:
    """Return how many samples the network of a job gives of each time point."""
    engine = job.decoder.engine
    return engine.samples if isinstance(engine, SamplingEngine) else 1


class _Brought:
    """A way through the blocks at the image's own pixels."""

    def __init__(self, job: "Job", own: "Job", work: ResultStore) -> None:
        self._own = own
        outputs = {output.path: output for output in own.decoder.outputs}
        given = {output.path: output for output in job.decoder.outputs}
        self._samples = samples_of(job)
        sources = dict.fromkeys(outputs, "") if self._samples > 1 else {path: path for path in given}
        self._arrays = {
            path: self._array(job, given[source], outputs[path], work.arrays[source])
            for path, source in sources.items()
        }
        self._channels = {path: outputs[path].axes.find("c") for path in self._arrays}

    def _array(self, job: "Job", output: Output, own: Output, data: LazyArray) -> LazyBase:
        """Return what the network gave at the pixels of the result: cut, or resampled; of samples what they are."""
        scale = output.scale
        if self._samples > 1:
            new = "t" not in own.axes
            scale = scale[1:] if new else scale
            if own.path == SAMPLES:
                at = own.axes.index("c")
                data = EachSample(data, self._samples, new, "c" in output.axes, own.dtype)
                scale = scale if "c" in output.axes else (*scale[:at], 1.0, *scale[at:])
            else:
                data = OverSamples(data, self._samples, new, own.path == "uncertainty", own.dtype)
        kind, sizes = resampling(output.kind), ratios(own.scale, scale)
        if job.region is None:
            return kind(data, own.shape, sizes)
        return job.region.cut(data, own.axes, job.region.taken, job.factors, sizes, kind)

    def build(self) -> None:
        """Do nothing: the network has run."""

    def pieces(self, pending: Collection[int], near: Sequence[float] | None = None) -> Iterator[int]:
        """Yield the numbers of the blocks."""
        return iter(sorted(pending))

    def read(self, number: int) -> dict[str, np.ndarray] | DataError:
        """Return a block's values, (channels, *tiled axes) each, and the image where that is written too."""
        engine, box = self._own.decoder.engine, self._own.grid[number].write
        values, finer = {}, scaled(box, engine.factors)
        try:
            if self._own.decoder.wants_image:
                values[IMAGE] = engine.read(box)
            for path, array in self._arrays.items():
                at = self._channels[path]
                full = finer if at < 0 else (*finer[:at], slice(0, array.shape[at]), *finer[at:])
                data = persist(functools.partial(array.read, full))
                values[path] = data[None] if at < 0 else np.moveaxis(data, at, 0)
        except DataError as error:
            return error
        return values

    def compute(self, number: int, got: dict[str, np.ndarray] | DataError) -> dict[str, np.ndarray] | DataError:
        """Return what was read: the network has run."""
        return got

    def decode(self, number: int, got: dict[str, np.ndarray] | DataError) -> DoneBlocks:
        """Bring a block's values to their arrays."""
        if isinstance(got, DataError):
            return [(number, got)]
        return [(number, self._own.decoder.regions(self._own.grid[number].write, got))]


def covered(box: Box, finer: Sequence[float], size: Sequence[int], own: Sequence[int]) -> Box:
    """Return the elements of the image whose centres lie in a box of `size`, which ends where the image does."""
    found = []
    for b, f, n, most in zip(box, finer, size, own, strict=True):
        low, high = (min(max(math.ceil(end * f - 0.5), 0), most) for end in (b.start, b.stop))
        found.append(slice(low, most if b.stop >= n else high))
    return tuple(found)
