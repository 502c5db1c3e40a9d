"""What a run will take, said before it begins: blocks, memory, disk, and whether an earlier run is resumed."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..arrays.stack import Stack
from ..files import existing, plain
from ..intensities.normalise import Statistics
from ..model import Models
from ..sources.identity import STORED
from ..store import find
from ..store.admission import room_of
from ..store.journal import Journal
from ..store.layout import WORKING
from .config import LATER, PredictConfig
from .events import Preflight
from .layout import block_bytes
from .prepare import Prepared, prepare


def preflight(stack: Stack, models: Models, out: Path, config: PredictConfig) -> Preflight:
    """Say what `predict` with the same arguments will take; reads no image data.

    Raises
    ------
    ModelError, DataError, OutputError
        As `predict`, as far as it is known before anything is read.
    """
    ready = prepare(stack, models, config)
    job, root = ready.job(), ready.root(out)
    found = find(root, [ready.path], config.in_source)
    state, done = "new", 0
    if found is not None:
        journal = Journal.of(*found)
        state = "finished" if journal.finished else "unfinished"
        state = "other" if any(differences(found[1].settings, ready)) else state
        done = len(journal.blocks)
        if job.own is not None and (within := find(found[0] / WORKING, [job.decoder.outputs[0].path], False)):
            done += len(Journal.of(*within).blocks)
    return Preflight(
        blocks=job.total,
        done=done,
        way=job.summary(0, config.memory),
        memory=block_bytes(job.decoder.engine, job.layout),
        disk=room_of(job.outputs)
        + (room_of(job.decoder.outputs) if job.own is not None else 0)
        + sum(room_of(stage.outputs) for stage in job.stages[:2]),  # one is read, and one is written
        free=float(shutil.disk_usage(existing(root)).free),
        state=state,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A setting that an earlier run had another value of."""

    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {self.was} and is now {self.now}"

    @property
    def rises(self) -> bool:
        """Whether a number, or each of several, is no smaller than it was."""
        pairs = (
            [(self.was, self.now)] if not isinstance(self.now, list) else zip(self.was or [], self.now, strict=False)
        )
        numbers = [(a, b) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
        return bool(numbers) and all(a <= b for a, b in numbers)


def differences(settings: Mapping[str, Any], ready: Prepared) -> Iterator[Difference]:
    """Yield the settings in which an earlier run differs from this one.

    Blocks, and a precision left open, make no difference; nor do intensities, where they were not measured.

    Parameters
    ----------
    settings : mapping
        Of the earlier run, as its journal has them.
    """
    wanted = plain(ready.settings())
    if ready.is_measured:
        wanted["image"]["intensities"] = plain(_as_measured(ready.engine.statistics, settings.get("image", {})))
    free = {"block", "precision"} if ready.config.precision == "auto" else {"block"}
    image, was = wanted.pop("image"), settings.get("image", {})
    wanted |= {name: None for name in LATER if name not in wanted}
    pairs = [(name, settings.get(name), value) for name, value in wanted.items() if name not in free]
    pairs += [
        (f"image {name}", was.get(name), value) for name, value in image.items() if name in was or name not in STORED
    ]
    yield from (Difference(name, old, new) for name, old, new in pairs if old != new)


def _as_measured(now: Statistics, image: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return intensities; those of an earlier run, where that measured a large image, or noise, in another way."""
    was = image.get("intensities")
    if isinstance(was, dict) and (now.is_taken_as_empty or now.cells > int(was.get("cells", 0))):
        return was
    return now.to_json()
