"""What a run sets out to do and what of it is done: a plan and a ledger beside the data."""

import dataclasses
import hashlib
import io
import json
import math
import operator
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ..errors import OutputError
from ..files import replace_json

FOLDER = ".napari_unet"
PLAN, DONE = "plan.json", "done.jsonl"
FINISHED = "finished"
Unit = int | str
LINE = json.JSONEncoder(separators=(",", ":"))


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A box of one array, and the checksum of what was written there.

    Parameters
    ----------
    array : str
        Path of the array below the result's root.
    start, stop : tuple of int
        The box, in elements.
    crc32 : int
        Of the elements' bytes in C order.
    """

    array: str
    start: tuple[int, ...]
    stop: tuple[int, ...]
    crc32: int

    @property
    def box(self) -> tuple[slice, ...]:
        """The region as slices."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __str__(self) -> str:
        return f"{self.array}[{', '.join(f'{a}:{b}' for a, b in zip(self.start, self.stop, strict=True))}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run sets out to do; a run may only be resumed with an equal plan.

    Parameters
    ----------
    settings, outputs : mapping
        JSON values: what the user and the program chose, and the arrays that are written, by path.
    blocks : int
        Units of work.
    version : str
        Of OME-Zarr.
    inside : bool
        Whether the result lies in a group that is not ours.
    provenance : mapping
        JSON values, kept but not compared.
    created : str
        When the run was first started.
    """

    settings: Mapping[str, Any]
    outputs: Mapping[str, Any]
    blocks: int
    version: str
    inside: bool
    provenance: Mapping[str, Any]
    created: str = ""

    def __post_init__(self) -> None:
        for field in ("settings", "outputs", "provenance"):
            object.__setattr__(self, field, plain(getattr(self, field)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that must be equal for a run to go on."""
        text = json.dumps(self._compared(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _compared(self) -> dict[str, Any]:
        names = {"settings": self.settings, "outputs": self.outputs, "order": list(self.outputs)}
        return {**names, "blocks": self.blocks, "version": self.version, "inside": self.inside}

    def difference(self, other: "Plan") -> str | None:
        """Name the first field that is not the same in `other`, with both values; None where they are equal."""
        old, new = _flat(self._compared()), _flat(other._compared())
        for key in dict.fromkeys([*new, *old]):
            if old.get(key) != new.get(key):
                name = key.removeprefix("settings.")
                return f"{name} was {_short(old.get(key))} and is now {_short(new.get(key))}"
        return None

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all, into the ledger's folder."""
        replace_json(folder / PLAN, {"napari_unet": 1, "fingerprint": self.fingerprint, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read it back.

        Raises
        ------
        OutputError
            Where the file is damaged.
        """
        try:
            values = json.loads((folder / PLAN).read_text("utf-8"))
            plan = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{folder / PLAN} is damaged ({error}); remove the result by hand to start anew"
            ) from error
        if plan.fingerprint != values.get("fingerprint"):
            raise OutputError(f"{folder / PLAN} was changed by hand; remove the result by hand to start anew")
        return plan


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
        self._places = np.zeros(blocks, np.int64)  # one more than the place, 0 where there is none
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
        """Units that are no blocks."""
        return [unit for unit in self._others if isinstance(unit, str)]

    def walk(self) -> Iterator[tuple[Unit, tuple[Region, ...]]]:
        """Yield all units with what was written of them, in the order of the file, reading it once."""
        if not len(self):
            return
        numbers = np.flatnonzero(self._places)
        found: list[tuple[int, Unit]] = [*zip((self._places[numbers] - 1).tolist(), numbers.tolist(), strict=True)]
        found += [(place, unit) for unit, place in self._others.items()]
        with self._path.open("rb") as file:
            for place, unit in sorted(found, key=operator.itemgetter(0)):
                file.seek(place)
                yield unit, _parsed(file.readline())[1]

    def of_blocks(self) -> Iterator[tuple[int, Region]]:
        """Yield the blocks with each region that was written of them."""
        for unit, regions in self.walk():
            if isinstance(unit, int):
                yield from ((unit, region) for region in regions)

    def __getitem__(self, unit: Unit) -> tuple[Region, ...]:
        place = int(self._places[unit]) - 1 if self._numbered(unit) else self._others[unit]
        if place < 0:
            raise KeyError(unit)
        with self._path.open("rb") as file:
            file.seek(place)
            return _parsed(file.readline())[1]

    def __contains__(self, unit: object) -> bool:
        return bool(self._places[unit]) if self._numbered(unit) else unit in self._others

    def __iter__(self) -> Iterator[Unit]:
        yield from np.flatnonzero(self._places).tolist()
        yield from self._others

    def __len__(self) -> int:
        return int(np.count_nonzero(self._places)) + len(self._others)


def _parsed(line: bytes) -> tuple[Unit, tuple[Region, ...]]:
    entry = json.loads(line)
    regions = [Region(a, tuple(start), tuple(stop), crc) for a, start, stop, crc in entry["regions"]]
    return entry["unit"], tuple(regions)


class Journal:
    """The append-only record of what is done.

    A unit is recorded after its data is written. What cannot be read back from the record counts as not done.

    Parameters
    ----------
    folder : Path
        The ledger's folder, which exists.
    blocks : int
        Number of blocks, where it is known.
    """

    def __init__(self, folder: Path, blocks: int = 0) -> None:
        self.folder = folder
        self.records = Records(folder / DONE, blocks)
        self._mutex = threading.Lock()
        self._file: io.FileIO | None = None
        self._torn = False
        path, place = folder / DONE, 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    self._replay(line, place)
                    place += len(line)
                    self._torn = not line.endswith(b"\n")

    def _replay(self, line: bytes, place: int) -> None:
        try:
            entry = json.loads(line)
            if "forget" in entry:
                for unit in entry["forget"]:
                    self.records.drop(unit)
                return
            self.records.put(_parsed(line)[0], place)
        except (ValueError, KeyError, TypeError):
            return

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return FINISHED in self.records

    @property
    def blocks(self) -> np.ndarray:
        """Numbers of the blocks that are done, ascending."""
        return self.records.blocks

    def append(self, unit: Unit, regions: Sequence[Region] = ()) -> None:
        """Record a unit as done."""
        parts = [[r.array, r.start, r.stop, r.crc32] for r in regions]
        self.records.put(unit, self._write({"unit": unit, "regions": parts}))

    def forget(self, units: Sequence[Unit]) -> None:
        """Record that units are not done after all."""
        if units:
            self._write({"forget": list(units)})
        for unit in units:
            self.records.drop(unit)

    def _write(self, entry: Mapping[str, Any]) -> int:
        """Append a line; return where it begins."""
        line = LINE.encode(entry).encode() + b"\n"
        with self._mutex:
            if self._file is None or not os.fstat(self._file.fileno()).st_nlink:  # somebody removed the folder
                self.close()
                self._file = (self.folder / DONE).open("ab", buffering=0)
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


def plain(value: Any) -> Any:
    """Bring settings to what JSON gives back: lists, dicts of str, numbers; anything else as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for name, part in value.items() for k, v in _flat(part, f"{prefix}.{name}" if prefix else name).items()
    }


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
