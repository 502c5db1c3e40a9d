"""Models known by name: those that ship with the package, and those in a folder of one's own. Reads cards only."""

import dataclasses
from pathlib import Path
from typing import Any

from .cards import CARD, parse_card
from .units import in_one

SHIPPED = Path(__file__).parent / "data" / "models"
WORDS = {
    "restore": "gives a restored image",
    "super_resolve": "gives a finer image",
    "autoencode": "gives the image itself, through a bottleneck",
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A model as its card describes it, without its weights.

    Parameters
    ----------
    name : str
    path : Path
        Its folder.
    axes : str
        Axes the network looks along.
    channels : int
        Of its input.
    channel_names : tuple of str
    scale : tuple of float
        Pixel size an axis.
    units : tuple of (str or None)
    task : str
    classes : tuple of str
    record : dict
        How it came about.
    """

    name: str
    path: Path
    axes: str
    channels: int
    channel_names: tuple[str, ...]
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    task: str
    classes: tuple[str, ...]
    record: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Entry":
        """Read a card.

        Raises
        ------
        OSError, ValueError, KeyError, TypeError
            Where it is none.
        """
        card = parse_card(folder / CARD)
        return cls(
            name=folder.name.removesuffix(".model"),
            path=folder,
            axes=str(card["axes"]),
            channels=int(card["config"]["in_channels"]),
            channel_names=tuple(card["channel_names"]),
            scale=tuple(float(s) for s in card["scale"]),
            units=tuple(card["units"]),
            task=str(card["task"]["name"]),
            classes=tuple(card["task"].get("class_names", ())),
            record=dict(card["record"]),
        )

    @property
    def gives(self) -> str:
        """What its result is: "labels" or "image"."""
        return "image" if self.task in WORDS else "labels"

    def summary(self) -> str:
        """Return what a user chooses by, a line each: what it does, how well, learnt from what."""
        sizes, unit = in_one(self.scale, self.units)
        size = " x ".join(f"{s:g}" for s in sizes) + f" {unit or 'pixel'}"
        channels = f"{self.channels} channel{'s' * (self.channels != 1)}"
        lines = [f"{len(self.axes)}-D, {channels}, {size}; {WORDS.get(self.task) or self.task}"]
        lines[0] += f": {', '.join(self.classes)}" if self.classes else ""
        scores, source = self.record.get("scores"), self.record.get("data")
        if isinstance(scores, dict):
            lines += [f"held out: {k} {v:.3g}" for k, v in scores.items() if isinstance(v, float)][:1]
        lines += [source if isinstance(source, str) else str(self.record.get("learnt from", ""))]
        return "\n".join(filter(None, lines))


def models(folder: Path) -> dict[str, Entry]:
    """Return the models in a folder by name, none where it does not exist; what is no model is passed over."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            entry = Entry.read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        found[entry.name] = entry
    return found


def locate(what: str | Path) -> Path:
    """Return the folder of a model given by its path or, where nothing is there, by the name of one that ships."""
    path = Path(what).expanduser()
    if path.exists() or path.name != str(what):
        return path
    return SHIPPED / path.name if (SHIPPED / path.name / CARD).is_file() else path
