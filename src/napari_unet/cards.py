"""A model's card, ``model.json``: read within limits, and told as text, without the network or its libraries."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ModelError
from .files import open_plain, read_plain
from .text import escaped
from .units import in_one

SHIPPED = Path(__file__).parent / "data" / "models"
WORDS = {
    "restore": "gives a restored image",
    "super_resolve": "gives a finer image",
    "autoencode": "gives the image itself, through a bottleneck",
    "diffuse": "gives samples of a restored image",
}
MADE = {"labels": "makes images for labels of objects", "none": "makes images like those that it learnt from"}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A model as its card describes it, without its weights.

    Parameters
    ----------
    path : Path
        Its folder.
    axes : str
        Axes the network looks along.
    channels : int
        Of its input.
    scale : tuple of float
        Pixel size per axis.
    record : dict
        How it came about.
    given : "image", "labels" or "none"
        What it is run on; of none the size alone counts.
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
    diameter: float | None = None
    shrink: tuple[float, ...] = ()
    given: str = "image"

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
            channels=_channels(card),
            channel_names=tuple(card["channel_names"]),
            scale=tuple(float(s) for s in card["scale"]),
            units=tuple(card["units"]),
            task=str(card["task"]["name"]),
            classes=tuple(card["task"].get("class_names", ())),
            record=dict(card["record"]),
            diameter=None if card.get("diameter") is None else float(card["diameter"]),
            shrink=tuple(float(s) for s in card.get("shrink", ())),
            given=str(card["task"].get("condition", "image")),
        )

    @property
    def learnt_diameter(self) -> float | None:
        """Diameter of objects in pixels of the training images; None where it is not known."""
        if self.diameter is None:
            return None
        return float(f"{self.diameter * (self.shrink[-1] if self.shrink else 1.0):.3g}")

    @property
    def gives(self) -> str:
        """What its result is: "labels" or "image"."""
        return "image" if self.task in WORDS else "labels"

    @property
    def sentence(self) -> str:
        """One plain sentence: what the model is for, and what it gives."""
        about = self.record.get("about")
        gives = "objects" if self.task == "instances" else self._words or ", ".join(self.classes) or self.task
        if not isinstance(about, str) or not about:
            return f"{gives[:1].upper()}{gives[1:]}; a model of your own."
        return f"{about[:1].upper()}{about[1:]}: {gives}."

    @property
    def _words(self) -> str:
        """What it gives, where that is an image, in words."""
        return MADE.get(self.given) or WORDS.get(self.task, "")

    def summary(self) -> str:
        """Describe the model in a few lines: task, score and training data."""
        sizes, unit = in_one(self.scale, self.units)
        size = " x ".join(f"{s:g}" for s in sizes) + f" {unit or 'pixel'}"
        channels = f"{self.channels} channel{'s' * (self.channels != 1)}"
        lines = [f"{len(self.axes)}-D, {channels}, {size}; {self._words or self.task}"]
        lines[0] += f": {', '.join(self.classes)}" if self.classes else ""
        scores, source = self.record.get("scores"), self.record.get("data")
        if isinstance(scores, dict):
            lines += [f"held out: {k} {v:.3g}" for k, v in scores.items() if isinstance(v, float)][:1]
        lines += [source if isinstance(source, str) else str(self.record.get("learnt from", ""))]
        return "\n".join(filter(None, lines))


def models(folder: Path) -> dict[str, Entry]:
    """Return the models in a folder by name, none where it does not exist; other folders are skipped."""
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


CARD = "model.json"
CARD_BYTES = 2**20  # a card is numbers and a history; more is an attack or a mistake
FORMAT = "napari_unet model"  # tells our model.json from those of others
VERSION = 1  # raised only where an older package could misread a card
# Two names, so that a model can be replaced: the new weights lie beside the old until the card points to them.
WEIGHTS = ("weights.safetensors", "weights-2.safetensors")
HEADER_BYTES = 4 * 2**20  # of a safetensors file: some 100 bytes per weight
TILE_EXACT_NORMS = ("batch", "none")  # the others take statistics from the tile
CONDITIONS = ("image", "labels", "none")  # what samples are made for
# What a network for objects tells apart, by index; the order is in each model's weights.
OBJECT_CLASSES = ("background", "inside", "border")
LINE = 200  # characters of a record's entry that are shown
SIZES = {"F16": 2, "F32": 4, "I64": 8, "U8": 1}  # bytes of the element types that our models have
AGAIN = "get the model again"
HASHED = 2**20  # bytes of weights in memory at a time


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it is a model of ours, of whatever version."""
    try:
        return bool(parse_card(Path(path) / CARD).get("format") == FORMAT)
    except (OSError, ValueError, RecursionError):
        return False


def holds_card(path: Path) -> bool:
    """Whether a folder holds a model's card: one of ours, or one so damaged that it does not say whose it is."""
    try:
        return bool(parse_card(path / CARD).get("format") == FORMAT)
    except OSError:
        return os.path.isfile(path / CARD)  # noqa: PTH113 - no error where the disk refuses to say
    except (ValueError, RecursionError):
        return True


def parse_card(path: Path) -> dict[str, Any]:
    """Read a card, not more than its greatest size; ValueError where it is none."""
    found = json.loads(read_plain(path, CARD_BYTES), parse_float=_finite, parse_constant=_finite)
    if not isinstance(found, dict):
        raise ValueError("it holds no table")
    return found


def _finite(text: str) -> float:
    """Read a number; JSON has neither NaN nor infinity, nor does a card."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def read_card(path: Path) -> dict[str, Any]:
    """Read a card of a version that is known.

    Raises
    ------
    ModelError
        Naming the file and what is wrong with it.
    """
    try:
        card = parse_card(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is not a model: it has no {CARD}; give the folder that holds one") from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}; check that it is there and that you may read it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {reason(error)}; get the model again") from error
    if card.get("format") != FORMAT:
        raise ModelError(
            f"{path} is not a model card of this package: it says {str(card.get('format'))[:100]!r}, not {FORMAT!r}; "
            "get the model again, or renew this package"
        )
    version = card.get("version")
    if not isinstance(version, int) or version < 1:
        raise ModelError(f"{path} is damaged: its version is {str(version)[:100]!r}; get the model again")
    if version > VERSION:
        raise ModelError(f"{path} has version {version}, this package reads up to {VERSION}; update napari-unet-stacks")
    return card


def describe_model(folder: Path) -> str:
    """Return the text of a model's card, after checking the size and hash of its weights.

    Raises
    ------
    ModelError
        Where card or weights are missing or damaged.
    """
    path = folder / CARD
    card = read_card(path)
    try:
        count = _count(folder, card["weights"])
        return card_text(card, count, str(card["sha256"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} cannot be used: {reason(error)}; get the model again") from error


def card_text(card: Mapping[str, Any], count: int, sha256: str) -> str:
    """Describe a model, one property per line.

    Parameters
    ----------
    card : mapping
        Plain values, as ``model.json`` has them.
    count : int
        Number of its weights.
    """
    config, task, record = card["config"], card["task"], card["record"]
    lines = {
        "task": f"{task['name']}: {', '.join(map(str, task_names(task)))}",
        "network": _network(config, count),
        "axes": str(card["axes"]),
        "channels": ", ".join(map(str, card["channel_names"])) or str(_channels(card)),
        "pixel size": " x ".join(f"{s:g} {u or ''}".strip() for s, u in zip(card["scale"], card["units"], strict=True)),
        **({} if card.get("diameter") is None else {"objects": _across(card)}),
        "intensities": " ".join(str(v) for v in card["normalisation"].values() if v not in ([], ())),
        "sha256": sha256,
    }
    lines |= {k: _short(v) for k, v in record.items() if k not in lines and isinstance(v, str | int | float)}
    scores = record.get("scores")
    if isinstance(scores, dict):
        lines["scores"] = ", ".join(f"{k} {v:.4g}" for k, v in scores.items() if isinstance(v, int | float))
    width = max(map(len, lines))
    return "\n".join(f"{escaped(key):{width}}  {escaped(value)}" for key, value in lines.items())


def _channels(card: Mapping[str, Any]) -> int:
    """Return how many channels of an image a model takes: of samples it takes those of the result too, as noise."""
    drawn = len(card["task"]["channels"]) if card["task"]["name"] == "diffuse" else 0
    return int(card["config"]["in_channels"]) - drawn


def _network(config: Mapping[str, Any], count: int) -> str:
    """Say what a network is, and whether its results depend on the tiles."""
    if config.get("kind") == "onnx":
        halo, stride, window = (" x ".join(map(str, config.get(name, ()))) for name in ("halo", "stride", "window"))
        exact = f"; {config['whole']}: expect seams" if config["whole"] else f"; looks {halo} far, grid {stride}"
        exact = f"; runs in windows of {window} at fixed places, as {config['whole']}" if window else exact
        return f"{config['ndim']}-D ONNX network, {config['bytes']:,} bytes{exact}"
    if config.get("kind") == "known":
        told = [" x ".join(map(str, config[name])) for name in ("halo", "window")]
        lie = "that overlap and are weighed" if config.get("blended") else "at fixed places"
        fixed = f"runs in windows of {told[1]} {lie}, as its norm takes statistics of each"
        return (
            f"{config['ndim']}-D {config['network']}, {count:,} weights; {fixed if told[1] else f'looks {told[0]} far'}"
        )
    exact = "" if config["norm"] in TILE_EXACT_NORMS else "; its norm takes statistics from the tile: expect seams"
    size = f"depth {config['depth']}, {config['base_features']} features, {count:,} weights"
    return f"{config['ndim']}-D U-Net, {size}{exact}"


def _across(card: Mapping[str, Any]) -> str:
    """Say how far objects are across in what a model has learnt from, and what was made of the images."""
    sizes, unit = in_one(card["scale"], card["units"])
    diameter = float(card["diameter"])
    size = f", {diameter * min(sizes):.3g} {unit}" if unit else ""
    shrink = card.get("shrink") or ()
    made = f"; {' x '.join(f'{s:.3g}' for s in shrink)} pixels of an image make one" if shrink else ""
    return f"{diameter:.3g} pixels across{size}{made}"


def task_names(task: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the name of each thing a task tells apart: classes, or channels of an image."""
    named = task.get("class_names") or task.get("channels") or task.get("values", ())
    if task["name"] != "instances":
        return tuple(named)
    return (*OBJECT_CLASSES, *(f"objects of {name}" for name in task.get("object_classes", ())))


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file: (entries, where the data begin); ValueError or TypeError where none."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(HEADER_BYTES, path.stat().st_size - 8):
            raise ValueError(f"the header would have {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise TypeError("the header is not a table")
    return header, 8 + length


def reason(error: BaseException) -> str:
    """Return what an error says, in one short line."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)[:300]


def _count(folder: Path, weights: Mapping[str, Any]) -> int:
    """Count the floating numbers of a model's weights, once their hash is right."""
    name = weights["file"]
    if name not in WEIGHTS:
        raise ModelError(f"{folder / CARD} names the weights {name!r}; it must be one of {', '.join(WEIGHTS)}")
    path, found = folder / name, hashlib.sha256()
    try:
        header, start = read_header(path)
        entries = [value for key, value in header.items() if key != "__metadata__"]
        size = start + sum(math.prod(entry["shape"]) * SIZES[entry["dtype"]] for entry in entries)
        if size != path.stat().st_size:
            raise ModelError(f"{path} is truncated or damaged: {path.stat().st_size} bytes instead of {size}; {AGAIN}")
        with open_plain(path) as file:
            while part := file.read(HASHED):
                found.update(part)
        if found.hexdigest() != weights["sha256"]:
            raise ModelError(f"{path} is truncated or damaged: its sha256 is not the one in {CARD}; {AGAIN}")
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}; check that it is there and that you may read it"
        ) from error
    return sum(math.prod(entry["shape"]) for entry in entries if entry["dtype"] not in ("I64", "U8"))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."
