"""What a run sets out to do: its settings and the arrays it writes, kept beside the data and never trusted."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LedgerError, UnsafeError, UsageError
from ..files import plain, read, replace_json
from ..settings import PRESENT
from .ome import VERSIONS, check_path

FOLDER = ".napari_unet"  # hidden: no reader of zarr looks into it
PLAN = "plan.json"
TABLE_FOLDER = "table"  # in the group of labels; a file beside arrays is one that readers of zarr warn of
TABLE = f"{TABLE_FOLDER}/objects.csv"
FORMER_TABLE = "objects.csv"  # where earlier versions wrote it
MOST_BYTES = 2**24  # of a plan, as of other metadata; classes by the thousand take some 100 kB
MOST_BLOCKS = 2**48  # 64 Ki blocks for each chunk file that a file system of 2^32 files can hold
MOST_VALUES = 2**33  # of a block in one array: more than fits beside a network in any memory
LEVEL = re.compile(r"[0-9]{1,2}")  # a pyramid halves: 99 levels are more than any array has
# What earlier versions did not record of an image, and no run of theirs is refused for.
SINCE = tuple(f"settings.image.{name}" for name in ("files", "bytes", "digest"))
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
    def is_table(self) -> bool:
        """Whether these are the bytes of a table of objects, a file."""
        return self.array.split("/", 2)[2:] in ([TABLE], [FORMER_TABLE])

    @property
    def box(self) -> tuple[slice, ...]:
        """The region as slices."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def output(self) -> str:
        """Path of the output that the array is a level of, or the table is of: ``labels/NAME``."""
        return "/".join(self.array.split("/", 2)[:2]) if self.is_table else self.array.rpartition("/")[0]

    @property
    def level(self) -> int | None:
        """Number of that level; None where it is not an array."""
        name = self.array.rpartition("/")[2]
        return int(name) if LEVEL.fullmatch(name) else None

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
            if old.get(key) != new.get(key) and (key in old or key not in SINCE):
                name = key.removeprefix("settings.")
                name = PRESENT.get(name, name)
                return f"{name} was {_short(old.get(key))} and is now {_short(new.get(key))}"
        return None

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all, into the ledger's folder."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        replace_json(folder / PLAN, {"napari_unet": 1, "fingerprint": self.fingerprint, **fields})

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read it back.

        Raises
        ------
        LedgerError
            Where the file is damaged.
        UnsafeError
            Where it names outputs that lie outside of the result, or is a link.
        """
        path, remedy = folder / PLAN, "remove the result by hand to start again"
        try:
            values = json.loads(read(path, MOST_BYTES))
            plan = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
            plan._check(path)
            same = plan.fingerprint == values.get("fingerprint")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LedgerError(f"{path} is damaged ({_reason(error)}); {remedy}") from error
        if not same:
            raise LedgerError(f"{path} was changed by hand; {remedy}")
        return plan

    def _check(self, path: Path) -> None:
        """Refuse what no run can have planned."""
        if not isinstance(self.outputs, dict) or not self.outputs:
            raise ValueError("it names no outputs")
        for output in self.outputs:
            try:
                check_path(output, "labels" if output.startswith("labels/") else "image")
            except UsageError as error:
                raise UnsafeError(
                    f"{path} names the output {output[:200]!r}, which no run of this program writes; "
                    "the result is left as it is: choose another place"
                ) from error
        if type(self.blocks) is not int or not 1 <= self.blocks <= MOST_BLOCKS:
            raise ValueError(f"{str(self.blocks)[:40]} blocks")
        if self.version not in VERSIONS or type(self.inside) is not bool or not isinstance(self.settings, dict):
            raise ValueError(f"version {str(self.version)[:40]!r}, inside {str(self.inside)[:40]!r}")

    @property
    def made_by_hand(self) -> bool:
        """Whether a user saved this image or these labels, so that no run may replace them."""
        return "saved from" in self.provenance

    def fits(self, unit: Unit, regions: Sequence[Region]) -> bool:
        """Say whether a record can be of this plan: one of its blocks, regions inside its arrays."""
        if isinstance(unit, str):
            return all(map(self._holds, regions))
        return 0 <= unit < self.blocks and all(self._holds(r) and r.level == 0 for r in regions)

    def _holds(self, region: Region) -> bool:
        output = self.outputs.get(region.output)
        if not isinstance(output, dict):
            return False
        sizes = [b - a for a, b in zip(region.start, region.stop, strict=True)]
        if region.is_table:
            return len(sizes) == 1
        shape = output.get("shape")
        return (
            region.level is not None
            and isinstance(shape, list)
            and len(shape) == len(sizes)
            and all(0 <= a < b <= n for a, b, n in zip(region.start, region.stop, shape, strict=True))
            and math.prod(sizes) <= MOST_VALUES
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for name, part in value.items() for k, v in _flat(part, f"{prefix}.{name}" if prefix else name).items()
    }


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)[:200]
