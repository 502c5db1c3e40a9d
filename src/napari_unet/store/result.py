"""Results in OME-Zarr: written block by block, resumed after any interruption, published only when all is there."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr

from ..arrays.views import Box
from ..errors import IncompleteError, LedgerError, UsageError
from ..events import Progress
from ..files import disk, remove
from ..threads import in_threads
from . import consolidated, layout
from .admission import admit, check_folder, check_outputs, check_room, enter
from .blocks import BlockWriter
from .chunks import combined, marked
from .journal import DONE, FINISHED, PLACES, Journal, Plan, Region, Unit
from .levels import Pyramids
from .lock import Lock
from .marks import RECORD, mark
from .ome import VERSIONS, Output, group_attributes
from .pyramid import levels_of, shown_ranges
from .table import TABLE_UNIT, table_written, with_classes
from .verification import problem_of, verify

__all__ = ["Output", "ResultStore", "verify"]


class ResultStore:
    """Arrays of one result, the record of what is done, and the lock that keeps others out.

    Made by `create`; a context manager. One thread writes.

    Attributes
    ----------
    arrays : dict of str to zarr.Array
        Level 0 of each output, by its path.
    done : set of int
        Numbers of the blocks that are written.
    """

    def __init__(self, root: Path, outputs: Sequence[Output], plan: Plan, journal: Journal, lock: Lock) -> None:
        self.root, self.outputs, self.plan = root, {o.path: o for o in outputs}, plan
        self._journal, self._lock = journal, lock
        self.notices = lock.notices  # events that say how the lock was got
        self._levels = {o.path: levels_of(o) for o in outputs}
        self.arrays: dict[str, zarr.Array[Any]] = {}
        self._marks = np.zeros(min(plan.blocks, PLACES), np.uint64)  # of blocks that were written and read back here
        self._pyramids = Pyramids(root, self.outputs, self._levels, journal, plan.version, self._is_written)
        self._owners = {
            o.path: np.zeros([math.ceil(n / u) for n, u in zip(o.shape, o.unit, strict=True)], np.int32)
            for o in outputs
        }

    @classmethod
    def create(  # noqa: PLR0913
        cls,
        root: Path,
        outputs: Sequence[Output],
        *,
        blocks: int,
        settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
        version: str = "0.5",
        overwrite: bool = False,
        into_existing: bool = False,
        break_lock: bool = False,
        reopen: bool = False,
    ) -> "ResultStore":
        """Make a store, or take up an unfinished run with the same settings.

        Parameters
        ----------
        root : Path
            The OME-Zarr group to make; with `into_existing` one that is there.
        outputs : sequence of Output
            The first is the result proper; the ledger lies in its folder.
        blocks : int
            Number of blocks, each of which `write` is called for.
        settings : mapping
            JSON values that must be equal for a run to be resumed.
        provenance : mapping
            JSON values kept in the attributes; without times, so that equal runs give equal bytes.
        version : {"0.5", "0.4"}
            Of OME-Zarr; with `into_existing` that of the group, whatever is given here.
        overwrite : bool
            Remove an earlier result of this program, finished or not.
        into_existing : bool
            Add labels to an image's own group, and leave all else in it as it is.
        break_lock : bool
            Take the lock of a run on another machine that is known to be gone.
        reopen : bool
            Take up a finished run with these settings too: nothing is computed again, every block is checked.

        Raises
        ------
        UsageError
            Where outputs cannot be.
        OutputError
            Where something is there that is not an unfinished run with these settings.
        ResourceError
            Where the disk is too small or may not be written.
        """
        root = Path(root)
        version = layout.version_inside(root) if into_existing else version
        check_outputs(outputs, blocks, version, into_existing)
        check_folder(root)
        plan = Plan(settings, {o.path: o.to_json() for o in outputs}, blocks, version, into_existing, provenance)
        with disk(root):
            found = admit(root, plan, overwrite, reopen)
            check_room(root, outputs, found, overwrite)
            lock = enter(root, plan, overwrite, break_lock, reopen)
            try:
                return cls._open(root, outputs, plan, lock)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def _open(cls, root: Path, outputs: Sequence[Output], plan: Plan, lock: Lock) -> "ResultStore":
        """Make what is missing, under the lock."""
        ledger = layout.ledger_of(root, list(plan.outputs))
        found = layout.find(root, list(plan.outputs), plan.inside)
        if found is None:
            remove(ledger / DONE)  # of a run that was being removed
            plan.save(ledger)
        else:
            plan = found[1]
        store = cls(root, outputs, plan, Journal.of(ledger, plan), lock)
        store._journal.mend()
        mark(ledger, plan.version, RECORD)
        layout.tidy(root, list(plan.outputs))
        layout.list_labels(root, plan.version, remove=plan.outputs, via=ledger)
        if any(o.kind == "labels" for o in outputs) and layout.read_group(root / "labels") is None:
            layout.write_group(root / "labels", plan.version, {}, ledger, at_once=False)
        for path in store._groups():
            layout.write_group(root / path, plan.version, store._ours(path, "incomplete"), ledger, at_once=False)
        for output in outputs:
            folder = root / output.path / "0"
            store.arrays[output.path] = layout.make_array(folder, output, store._levels[output.path][0], plan.version)
        store._claim_recorded()
        return store

    def _claim_recorded(self) -> None:
        """Take up what the blocks of an earlier run wrote."""
        for block, region in self._journal.records.of_blocks():
            try:
                self._claim(block, region.output, region.box)
            except UsageError as error:
                raise LedgerError(f"{self.ledger / DONE} is damaged: {error}; start again with --overwrite") from error

    @property
    def ledger(self) -> Path:
        """Folder of the record of what is done; what is kept in it goes when the result does."""
        return self._journal.folder

    @property
    def done(self) -> set[int]:
        """Numbers of the blocks that are written."""
        return set(self._journal.blocks.tolist())

    @property
    def count(self) -> int:
        """How many blocks are written."""
        return self._journal.records.count

    def __contains__(self, block: int) -> bool:
        """Whether a block is written."""
        return block in self._journal.records

    def pending(self) -> list[int]:
        """Return the numbers of the blocks that are not written, ascending."""
        todo = np.ones(self.plan.blocks, bool)
        todo[self._journal.blocks] = False
        return np.flatnonzero(todo).tolist()

    def write(self, block: int, regions: Mapping[str, tuple[Box, np.ndarray]]) -> None:
        """Write one block, then record it as done.

        Parameters
        ----------
        block : int
            Its number, from 0.
        regions : mapping of output path to (box, data)
            Boxes begin and end where chunks (or shards) do, or at the array's end, and are disjoint between blocks.

        Raises
        ------
        UsageError
            Where a region does not fit its array, the chunks or other blocks; nothing is written then.
        ResourceError
            Where the disk is full; the block is not done then.
        """
        if not 0 <= block < self.plan.blocks or self._journal.finished:
            raise UsageError(
                f"block {block} cannot be written; {self.plan.blocks} blocks can, until the result is finished"
            )
        self.writer.check(regions)
        for path, (box, _) in regions.items():
            self._claim(block, path, box)
        with disk(self.root):
            self.beat()
            self._forget(block, [(path, box) for path, (box, _) in regions.items()])
            written = self.writer.put(regions)
            self._journal.append(block, [region for region, _ in written])
            if block < len(self._marks) and all(mark for _, mark in written):
                self._marks[block] = combined(mark for _, mark in written)
            for path, (box, data) in regions.items():
                self._pyramids.take(path, box, data)

    def beat(self) -> None:
        """Say that work on this store goes on."""
        self._lock.beat()

    def renew(self, blocks: Iterable[int] = ()) -> None:
        """Forget all that follows from blocks, before others write some of them, and `blocks` that were done."""
        self.beat()
        known = [block for block in blocks if block in self._journal.records]
        self._journal.forget([*self._journal.records.named, *known])

    def _forget(self, block: int, boxes: Iterable[tuple[str, Box]]) -> None:
        """Forget a block that is about to be written, where it was done, and what follows from it."""
        self._marks[block : block + 1] = 0
        units: list[Unit] = [block, TABLE_UNIT, *(unit for each in boxes for unit in self._pyramids.over(*each))]
        self._journal.forget([unit for unit in units if unit in self._journal.records])

    def record(self, block: int, regions: Sequence[Region]) -> None:
        """Record a block that another process wrote with this store's `writer`; `renew` was called before.

        Raises
        ------
        UsageError
            Where its regions are another block's.
        """
        self.beat()
        for region in regions:
            self._claim(block, region.output, region.box)
        self._forget(block, [(region.output, region.box) for region in regions])
        self._journal.append(block, regions)

    @property
    def has_table(self) -> bool:
        """Whether the table of objects is written."""
        return TABLE_UNIT in self._journal.records

    def record_table(self, path: str) -> None:
        """Record the table of an output as written; it is forgotten where a block is written anew."""
        self._journal.append(TABLE_UNIT, [table_written(self.root, path)])

    @property
    def writer(self) -> BlockWriter:
        """What writes blocks here."""
        return BlockWriter(self.root, self.outputs, self.arrays)

    @property
    def sent_writer(self) -> BlockWriter:
        """What writes blocks in another process, as long as this run goes on."""
        return dataclasses.replace(self.writer, root=self.root.absolute(), permit=self._lock.permit)

    def _claim(self, block: int, path: str, box: Box) -> None:
        """Keep two blocks out of one file."""
        cells = self._cells(path, box)
        others = cells[(cells != 0) & (cells != block + 1)]
        if others.size:
            raise UsageError(
                f"{path or 'image'}: block {block} overlaps block {others[0] - 1} at {box}; blocks must be disjoint"
            )
        cells[...] = block + 1

    def finish(self) -> Iterator[Progress]:
        """Check every block, make the pyramids, then publish; can be stopped and done again at any point.

        Raises
        ------
        IncompleteError
            Where blocks are missing or do not read back as they were written; those are to be done again.
        """
        pending = self.pending()
        if pending:
            raise IncompleteError(
                f"{self.root} is unfinished: {len(pending)} of {self.plan.blocks} blocks are missing; "
                "run the same command again"
            )
        for path, owners in self._owners.items():
            if not owners.all():
                raise IncompleteError(
                    f"{path or 'image'}: the {self.plan.blocks} blocks leave {int((owners == 0).sum())} files "
                    "unwritten; choose blocks that cover the image"
                )
        with disk(self.root):
            yield from self._check_blocks()
            for event in self._pyramids.build():
                self._lock.beat()
                yield event
            self._publish()

    def _check_blocks(self) -> Iterator[Progress]:
        """Read back what an earlier run or another process wrote, and what has changed since it was read back here."""
        damaged: dict[Unit, str] = {}
        units = ((unit, regions) for unit, regions in self._journal.records.walk() if isinstance(unit, int))
        for number, ((block, _), problem) in enumerate(in_threads(self._problem, units), 1):
            self.beat()
            if problem:
                damaged[block] = problem
            yield Progress(number, self.plan.blocks, "verify")
        if damaged:
            self._journal.forget(list(damaged))
            raise IncompleteError(
                f"{len(damaged)} of {self.plan.blocks} blocks do not read back as they were written "
                f"({next(iter(damaged.values()))}); run the same command again to write them again"
            )

    def _problem(self, recorded: tuple[int, tuple[Region, ...]]) -> str:
        block, regions = recorded
        of = [(self.arrays[region.output], region) for region in regions]
        if block < len(self._marks) and self._marks[block]:
            marks = (marked(self.root / region.array, array, region.box) for array, region in of)
            if combined(marks) == self._marks[block]:
                return ""
        return next(filter(None, (problem_of(array, self.root, region) for array, region in of)), "")

    def _is_written(self, path: str, box: Box) -> bool:
        """Whether all blocks under a box of an output are."""
        found = self._cells(path, box)
        return bool(found.all()) and all(block - 1 in self for block in np.unique(found).tolist())

    def _cells(self, path: str, box: Box) -> np.ndarray:
        """Return the cells of the files under a box: one more than the number of the block that each is of, or 0."""
        unit = self.outputs[path].unit
        return self._owners[path][
            tuple(slice(b.start // u, math.ceil(b.stop / u)) for b, u in zip(box, unit, strict=True))
        ]

    def _publish(self) -> None:
        """Say what the arrays are: inner groups first, the outermost last."""
        ledger = self._journal.folder
        for path in sorted(self._groups(), key=len, reverse=True):
            attributes = self._ours(path, "complete")
            if path in self.outputs:
                output, levels = with_classes(self.outputs[path], self.root), self._levels[path]
                attributes |= group_attributes(output, levels, self.plan.version, self._window(output), self._has_image)
            if not path:
                self._list()
            layout.write_group(self.root / path, self.plan.version, attributes, ledger)
        if self.plan.inside:
            self._list()
            consolidated.renew(self.root, list(self.outputs), VERSIONS[self.plan.version], ledger)
        if not self._journal.finished:
            self._journal.append(FINISHED)

    def _list(self) -> None:
        labels = [path for path, output in self.outputs.items() if output.kind == "labels"]
        layout.list_labels(self.root, self.plan.version, add=labels, via=self._journal.folder)

    @property
    def _has_image(self) -> bool:
        return self.plan.inside or "" in self.outputs

    def _groups(self) -> list[str]:
        """List the groups that are ours to describe."""
        return list(dict.fromkeys([*self.outputs, *([] if self.plan.inside else [""])]))

    def _ours(self, path: str, state: str) -> dict[str, Any]:
        """Return our own attributes of a group: all of them on the outermost, the state on each."""
        primary = next(iter(self.outputs))
        found: dict[str, Any] = {"state": state, "blocks": self.plan.blocks}
        if path == (primary if self.plan.inside else ""):
            result = "" if self.plan.inside else primary
            found |= {"result": result, "settings": self.plan.settings, "provenance": self.plan.provenance}
        return {"napari_unet": found}

    def _window(self, output: Output) -> list[tuple[float, float]]:
        """Return what to show of each channel: as given, else the 0.1 and 99.9 percentiles of the coarsest level."""
        if output.kind == "labels":
            return []
        if "window" in output.attributes:
            channels = output.shape[output.axes.index("c")] if "c" in output.axes else 1
            return [tuple(output.attributes["window"])] * channels
        levels = self._levels[output.path]
        array = layout.make_array(self.root / output.path / str(len(levels) - 1), output, levels[-1], self.plan.version)
        return shown_ranges(array, output.axes)

    def close(self) -> None:
        """Give back the lock."""
        self._journal.close()
        self._lock.release()

    def __enter__(self) -> "ResultStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
