"""What of a run is done: the ledger, a line a unit, each with its checksum, beside the data."""

import functools
import json
import operator
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np

from ..errors import LedgerError
from ..faults import persist
from ..files import open_to_append, open_to_read, replacing
from .plan import FOLDER, MOST_BLOCKS, PLAN, Plan, Region, Unit

__all__ = ["DONE", "FINISHED", "FOLDER", "PLAN", "Journal", "Plan", "Records", "Region", "Unit"]

DONE = "done.jsonl"
FINISHED = "finished"
LINE = json.JSONEncoder(separators=(",", ":"))  # without spaces: a block takes some 100 bytes, a million of them 100 MB
SUM = b'{"sum":"'  # what a line with a checksum begins with; those of earlier versions have none
BEFORE = (b'{"unit"', b'{"forget"')
SUMMED = len(SUM) + 10  # its 8 digits, the quote and the comma: the rest is what they are the checksum of
LONGEST = 2**22  # bytes of a line; what is longer is none of ours
NOISE = 2**26  # bytes without any record after which a file is not a ledger
PLACES = 2**24  # blocks whose places are held in an array: 128 MB if all are used
FORGOTTEN = 1000  # units per line


class Records(Mapping[Unit, tuple[Region, ...]]):
    """What was written of each unit that is done; only the places in the file are held, so that millions are cheap.

    Parameters
    ----------
    path : Path
        The file; it need not exist.
    blocks : int
        Numbers below this cost 8 bytes each, others more.
    """

    def __init__(self, path: Path, blocks: int) -> None:
        self._path = path
        self._places = np.zeros(min(blocks, PLACES), np.int64)  # one more than the place, 0 where there is none
        self._others: dict[Unit, int] = {}
        self.count = 0  # of blocks; kept beside them, as one thread may ask while another records

    def _numbered(self, unit: object) -> TypeGuard[int]:
        return type(unit) is int and 0 <= unit < len(self._places)

    def put(self, unit: Unit, place: int) -> None:
        """Say where in the file a unit stands."""
        self.count += isinstance(unit, int) and unit not in self
        if self._numbered(unit):
            self._places[unit] = place + 1
        else:
            self._others[unit] = place

    def drop(self, unit: Unit) -> None:
        """Forget a unit, known or not."""
        self.count -= isinstance(unit, int) and unit in self
        if self._numbered(unit):
            self._places[unit] = 0
        else:
            self._others.pop(unit, None)

    @property
    def blocks(self) -> np.ndarray:
        """Numbers of the blocks, ascending."""
        others = [unit for unit in self._others if isinstance(unit, int)]
        return np.concatenate([np.flatnonzero(self._places), np.array(sorted(others), np.int64)])

    @property
    def named(self) -> list[str]:
        """Units that are not blocks."""
        return [unit for unit in self._others if isinstance(unit, str)]

    def walk(self) -> Iterator[tuple[Unit, tuple[Region, ...]]]:
        """Yield all units with what was written of them, in the order of the file, reading it once."""
        if not len(self):
            return
        numbers = np.flatnonzero(self._places)
        found: list[tuple[int, Unit]] = [*zip((self._places[numbers] - 1).tolist(), numbers.tolist(), strict=True)]
        found += [(place, unit) for unit, place in self._others.items()]
        with open_to_read(self._path) as file:
            for place, unit in sorted(found, key=operator.itemgetter(0)):
                file.seek(place)
                yield unit, _parsed(file.readline(LONGEST))[1]

    def of_blocks(self) -> Iterator[tuple[int, Region]]:
        """Yield the blocks with each region that was written of them."""
        for unit, regions in self.walk():
            if isinstance(unit, int):
                yield from ((unit, region) for region in regions)

    def place(self, unit: Unit) -> int:
        """Return where in the file a unit stands."""
        place = int(self._places[unit]) - 1 if self._numbered(unit) else self._others[unit]
        if place < 0:
            raise KeyError(unit)
        return place

    def __getitem__(self, unit: Unit) -> tuple[Region, ...]:
        place = self.place(unit)
        with open_to_read(self._path) as file:
            file.seek(place)
            return _parsed(file.readline(LONGEST))[1]

    def __contains__(self, unit: object) -> bool:
        return bool(self._places[unit]) if self._numbered(unit) else unit in self._others

    def __iter__(self) -> Iterator[Unit]:
        yield from np.flatnonzero(self._places).tolist()
        yield from self._others

    def __len__(self) -> int:
        return int(np.count_nonzero(self._places)) + len(self._others)


def _entry(line: bytes) -> dict[str, Any]:
    """Return what a line says.

    Raises
    ------
    ValueError
        Where it says nothing, or its checksum is another.
    """
    if line.startswith(SUM):
        line, said = b"{" + line[SUMMED:], line[len(SUM) : SUMMED - 2]
        if said != b"%08x" % zlib.crc32(line.rstrip(b"\n")):
            raise ValueError("another checksum")
    elif not line.startswith(BEFORE):
        raise ValueError("no record")
    entry = json.loads(line)
    return dict(entry)


def _parsed(line: bytes) -> tuple[Unit, tuple[Region, ...]]:
    entry = _entry(line)
    unit = _unit(entry["unit"])
    return unit, tuple(_region(*parts) for parts in entry["regions"])


def _unit(value: Any) -> Unit:
    if isinstance(value, str) or (type(value) is int and 0 <= value < MOST_BLOCKS):
        return value
    raise ValueError(f"no unit: {value!r:.40}")


def _region(array: Any, start: Any, stop: Any, crc: Any) -> Region:
    numbers = [*start, *stop, crc]
    if not isinstance(array, str) or len(start) != len(stop) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("no region")
    return Region(array, tuple(start), tuple(stop), crc)


def _pieces(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (place, line); one that is longer than any of ours comes in several, none of which is a record."""
    place = 0
    while line := file.readline(LONGEST):
        yield place, line
        place += len(line)


class Journal:
    """The append-only record of what is done.

    A unit is recorded after its data is written. What cannot be read back from the record, or cannot be of the plan,
    counts as not done.

    Parameters
    ----------
    folder : Path
        The ledger's folder, which exists.
    blocks : int
        Number of blocks, where it is known.
    plan : Plan, optional
        What the records have to fit.

    Attributes
    ----------
    damaged : int
        Whole lines that are not records any more; lines that a kill has cut are none of them.

    Raises
    ------
    LedgerError
        Where the file holds anything but records.
    UnsafeError
        Where it is a link.
    """

    def __init__(self, folder: Path, blocks: int = 0, plan: Plan | None = None) -> None:
        self.folder, self.damaged = folder, 0
        self.records = Records(folder / DONE, blocks)
        self._plan = plan
        self._mutex = threading.Lock()
        self._file: BinaryIO | None = None
        self._torn = False
        try:
            with open_to_read(folder / DONE) as file:
                self._replay_all(file)
        except FileNotFoundError:
            return

    @classmethod
    def of(cls, folder: Path, plan: Plan) -> "Journal":
        """Read the record of a plan's run."""
        return cls(folder, plan.blocks, plan)

    def _replay_all(self, file: BinaryIO) -> None:
        noise = 0
        for place, line in _pieces(file):
            noise = 0 if self._replay(line, place) else noise + len(line)
            if noise > NOISE:
                raise LedgerError(f"{self.folder / DONE} is not a record of a run; remove the result by hand")
            self._torn = not line.endswith(b"\n")

    def _replay(self, line: bytes, place: int) -> bool:
        """Take up a line: whether it is a record."""
        try:
            entry = _entry(line)
            if "forget" in entry:
                for unit in [_unit(each) for each in entry["forget"]]:
                    self.records.drop(unit)
                return True
            unit, regions = _parsed(line)
            if self._plan is not None and not self._plan.fits(unit, regions):
                raise ValueError("not of this plan")
        except (ValueError, KeyError, TypeError, RecursionError):
            self._count_damage(line)
            return False
        self.records.put(unit, place)
        return True

    def _count_damage(self, line: bytes) -> None:
        """Look whether a line was whole once; one that may have said what was forgotten costs what follows from blocks.

        Blocks that it may have named need nothing: their checksums are verified before the run is finished.
        """
        if not line.startswith(b"{") or not line.rstrip().endswith(b"]}"):
            return
        self.damaged += 1
        if b'"unit"' not in line:
            for unit in self.records.named:
                self.records.drop(unit)

    def mend(self) -> None:
        """Write the record anew without what is damaged in it; no other process may be writing."""
        if not self.damaged:
            return
        self.close()
        with replacing(self.folder / DONE) as file, open_to_read(self.folder / DONE) as before:
            self.records.drop(FINISHED)  # what was lost is to be made again
            for unit in self.records:
                place = self.records.place(unit)
                before.seek(place)
                self.records.put(unit, file.tell())
                file.write(before.readline(LONGEST).rstrip(b"\n") + b"\n")
        self.damaged, self._torn = 0, False

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, and nothing of its record is lost since."""
        whole = self._plan is None or self.records.count >= self._plan.blocks
        return FINISHED in self.records and whole and not self.damaged

    @property
    def blocks(self) -> np.ndarray:
        """Numbers of the blocks that are done, ascending."""
        return self.records.blocks

    def append(self, unit: Unit, regions: Sequence[Region] = ()) -> None:
        """Record a unit as done."""
        parts = [[r.array, r.start, r.stop, r.crc32] for r in regions]
        self.records.put(unit, persist(lambda: self._write({"unit": unit, "regions": parts})))

    def forget(self, units: Sequence[Unit]) -> None:
        """Record that units are not done after all."""
        for first in range(0, len(units), FORGOTTEN):
            part = list(units[first : first + FORGOTTEN])
            persist(functools.partial(self._write, {"forget": part}))
        for unit in units:
            self.records.drop(unit)

    def _write(self, entry: Mapping[str, Any]) -> int:
        """Append a line; return where it begins."""
        text = LINE.encode(entry).encode()
        line = SUM + b'%08x",' % zlib.crc32(text) + text[1:] + b"\n"
        with self._mutex:
            if self._file is None or not os.fstat(self._file.fileno()).st_nlink:  # the folder was removed
                self.close()
                self._file = open_to_append(self.folder / DONE)
            whole = b"\n" + line if self._torn else line
            place = self._file.seek(0, os.SEEK_END) + len(whole) - len(line)
            self._torn = True
            if self._file.write(whole) == len(whole):
                self._torn = False
        return place

    def close(self) -> None:
        """Close the file; whatever is recorded later opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None
