"""What a run sets out to do and what of it is done: a plan and a ledger beside the data."""

import dataclasses
import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError

FOLDER = ".napari_unet"
PLAN, DONE = "plan.json", "done.jsonl"
FINISHED = "finished"
Unit = int | str


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
        replace(folder / PLAN, {"napari_unet": 1, "fingerprint": self.fingerprint, **dataclasses.asdict(self)})

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


class Journal:
    """The append-only record of what is done.

    A unit is recorded after its data is written. What cannot be read back from the record counts as not done.

    Parameters
    ----------
    folder : Path
        The ledger's folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[Unit, tuple[Region, ...]] = {}
        self._mutex = threading.Lock()
        self._torn = False
        path = folder / DONE
        if path.exists():
            data = path.read_bytes()
            self._torn = bool(data) and not data.endswith(b"\n")
            for line in data.splitlines():
                self._replay(line)

    def _replay(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if "forget" in entry:
                for unit in entry["forget"]:
                    self.records.pop(unit, None)
                return
            regions = [Region(a, tuple(start), tuple(stop), crc) for a, start, stop, crc in entry["regions"]]
            self.records[entry["unit"]] = tuple(regions)
        except (ValueError, KeyError, TypeError):
            return

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return FINISHED in self.records

    @property
    def blocks(self) -> set[int]:
        """Numbers of the blocks that are done."""
        return {unit for unit in self.records if isinstance(unit, int)}

    def append(self, unit: Unit, regions: Sequence[Region] = ()) -> None:
        """Record a unit as done."""
        parts = [[r.array, r.start, r.stop, r.crc32] for r in regions]
        self._write({"unit": unit, "regions": parts})
        self.records[unit] = tuple(regions)

    def forget(self, units: Sequence[Unit]) -> None:
        """Record that units are not done after all."""
        if units:
            self._write({"forget": list(units)})
        for unit in units:
            self.records.pop(unit, None)

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._mutex, (self.folder / DONE).open("ab", buffering=0) as file:
            whole = b"\n" + line if self._torn else line
            self._torn = True
            if file.write(whole) == len(whole):
                self._torn = False


def replace(path: Path, values: Mapping[str, Any], via: Path | None = None) -> None:
    """Write a JSON file so that it is there whole or not at all.

    Parameters
    ----------
    path : Path
    values : mapping
    via : Path, optional
        Folder of the same disk for the temporary file; the file's own if not given.
    """
    temporary = (via or path.parent) / f"{path.name.lstrip('.')}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
