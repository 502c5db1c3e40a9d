"""How the work of a run is shared among workers: tasks of tiles, or of parts of columns."""

import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .job import Job

EACH = 4  # parts of the work per worker, at least, so that none waits long for the last
TILES = 32  # of a task: what a lost worker loses at most


def parts_of(
    job: "Job", pending: Collection[int], workers: int, near: tuple[float, ...] | None = None
) -> Iterator[tuple[int, ...]]:
    """Yield the tasks: some tiles each, or a part of a column each, as long as all workers are at work.

    A stream that begins inside a column first computes what lies before it, as far as the network looks; the parts
    are as long as makes the whole the fastest.
    """
    route, grid, flow = job.route(), job.grid, job.layout.flow
    if flow is None:
        numbers = list(route.pieces(pending, near))
        step = min(TILES, max(1, len(numbers) // (workers * EACH)))
        yield from (tuple(numbers[i : i + step]) for i in range(0, len(numbers), step))
        return
    foot = grid.footprint
    step = part_length(
        grid.counts[flow],
        math.prod(grid.counts) // grid.counts[flow],
        workers,
        2 * (foot.halo[flow] + foot.margin[flow]) / grid.core[flow],
    )
    for column in job.columns().columns(pending, near):
        numbers = list(column.blocks)
        yield from (tuple(numbers[i : i + step]) for i in range(0, len(numbers), step))


def part_length(blocks: int, columns: int, workers: int, extra: float) -> int:
    """Return how many blocks of a column to compute in one task so that all are done the soonest.

    Parameters
    ----------
    blocks, columns, workers : int
        Blocks a column; columns; workers.
    extra : float
        What a task computes beside its own, in blocks.
    """

    def rounds(length: int) -> float:
        tasks = columns * math.ceil(blocks / length)
        return math.ceil(tasks / workers) * (length + extra)

    return min(range(1, blocks + 1), key=lambda length: (rounds(length), -length))
