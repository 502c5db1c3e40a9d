"""What was computed for somebody to look at is not computed again by the run."""

import contextlib
import dataclasses
from collections.abc import Iterator

from ..errors import DataError, UsageError
from ..events import Block, Progress
from ..stack import Stack
from ..store import ResultStore
from .flow import IMAGE
from .job import Job
from .lazy import LazyBlocks
from .view import Preview

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


def taken_over(job: Job, store: ResultStore, blocks: LazyBlocks | None) -> Iterator[Progress]:
    """Write the blocks of which all was computed before; yield an event each.

    Nothing is taken over where the earlier result is another one: of another model, other intensities or arithmetic,
    or where more is written than it has. Each block's intensities are read again and must be the same.
    """
    decoder, engine = job.decoder, job.decoder.engine
    more = {output.path for output in decoder.outputs[1:]} - {"", "error"}
    if blocks is None or more or not _same(job, blocks):
        return
    for number in job.pending(store):
        box = job.grid[number].write
        with contextlib.suppress(DataError):  # named when its turn comes
            known = blocks.known(box, engine)
            if known is not None:
                values = {decoder.outputs[0].path: known}
                if decoder.wants_image:
                    values[IMAGE] = engine.read(box)
                store.write(number, decoder.regions(box, values))
                yield Block(store.count, job.total, "predict", box=job.box(number))


def _same(job: Job, blocks: LazyBlocks) -> bool:
    """Say whether two engines give the same result of the same intensities."""
    model = dataclasses.replace(job.decoder.engine.model, task=job.decoder.task)
    names = ("axes", "statistics", "precision", "fill", "mirror")
    pairs = [(getattr(job.decoder.engine, name), getattr(blocks.engine, name)) for name in names]
    pairs += [(model.sha256, blocks.engine.model.sha256), (job.grid.shape, blocks.grid.shape)]
    return all(new == old for new, old in pairs)
