"""Blocks that a preview has computed are not computed again by the run."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError, UsageError
from ..events import Block, Progress
from ..store import ResultStore
from .flow import IMAGE
from .job import Job
from .lazy import LazyBlocks, Preview

Shown = Stack | Preview


def blocks_of(shown: Shown) -> LazyBlocks:
    """Return the blocks that lie behind a preview, or behind a stack of `predict_lazy`.

    Raises
    ------
    UsageError
        Where it is a stack of another kind.
    """
    if isinstance(shown, Preview):
        return shown.lazy
    blocks = LazyBlocks.behind(shown)
    if blocks is None:
        raise UsageError(f"{shown.name} was not given by predict_lazy in this process; leave shown out, or give that")
    return blocks


def reuse_blocks(job: Job, store: ResultStore, blocks: LazyBlocks | None) -> Iterator[Progress]:
    """Write the blocks of which all was computed before; yield an event each.

    Nothing is taken over where the earlier result is another one: of another model, other intensities or arithmetic, or
    of other blocks where those matter; nor where more is written than it has. Each block's intensities are read again
    and must be the same.
    """
    if blocks is None or not _same(job, blocks):
        return
    grid = job.grid
    touched = {at for box in blocks.boxes() for at in grid.under(box)}
    numbers = sorted(int(np.ravel_multi_index(at, grid.counts)) for at in touched)
    for number in (number for number in numbers if number not in store):
        box = grid[number].write
        values = _values(job, blocks, box)
        if values is not None:
            store.write(number, job.decoder.regions(box, values))
            yield Block(store.count, job.total, "predict", box=job.box(number))


def _values(job: Job, blocks: LazyBlocks, box: Box) -> dict[str, np.ndarray] | None:
    """Return a block's values as the decoder takes them; None where they are not known, or not to be had."""
    decoder = job.decoder
    try:
        known = blocks.known(box, decoder.engine)
        if known is None:
            return None
        image = {IMAGE: decoder.engine.read(box)} if decoder.wants_image else {}
    except DataError:  # named when its turn comes
        return None
    return {decoder.outputs[0].path: known, **image}


def _same(job: Job, blocks: LazyBlocks) -> bool:
    """Say whether the blocks are all that is written, and the same, where the intensities are."""
    more = {output.path for output in job.decoder.outputs[1:]} - {"", "error"}
    if more or not job.decoder.engine.model.config.tile_exact:
        return False
    model = dataclasses.replace(job.decoder.engine.model, task=job.decoder.task)
    names = ("axes", "statistics", "precision", "fill", "tta", "steps", "seed", "samples", "origin")
    pairs = [(getattr(job.decoder.engine, name, None), getattr(blocks.engine, name, None)) for name in names]
    pairs += [(model.sha256, blocks.engine.model.sha256), (job.grid.shape, blocks.grid.shape)]
    return all(new == old for new, old in pairs)
