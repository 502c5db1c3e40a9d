"""A trained model: network, task, normalisation and where it comes from; one folder on disk, checked when loaded."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
import torch

from ..arrays.stack import SPATIAL
from ..cards import (
    CARD,
    CARD_BYTES,
    FORMAT,
    VERSION,
    WEIGHTS,
    card_text,
    is_model,
    locate,
    parse_card,
    read_card,
    reason,
)
from ..errors import UNUSABLE, ModelError, OutputError, ResourceError
from ..files import make_folder, plain, replace
from ..intensities.normalise import Normalisation
from ..network import (
    Graph,
    GraphConfig,
    Known,
    KnownConfig,
    LearntConfig,
    NetworkConfig,
    UNet,
    UNetConfig,
    read_network,
)
from ..network.graph import WEIGHT
from ..settings import FORMER
from ..task import Task, read_task
from .foreign import refuse_foreign
from .weights import check_finite, check_shapes, expected, meta, read_weights, write_weights

PARTIAL = ".partial"
HISTORY = "history"


@dataclasses.dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Model:
    """A network and all it takes to use it.

    Parameters
    ----------
    weights : dict of name to array
        As the network names them; floating ones are kept as float32.
    axes : "yx" or "zyx"
        Axes the network looks along.
    scale : tuple of float
        Pixel size it was trained at, one per axis.
    channel_names : tuple of str
        One an input channel, or none.
    diameter : float, optional
        How far objects are across in what it has learnt from, in pixels of the finest axis at the pixel size `scale`.
    shrink : tuple of float
        Pixels of the images it has learnt from that made one of these, per axis; empty where images were learnt as they
        are, and are run as they are.
    record : dict
        How it came about, plain values: data fingerprint, seed, versions, history, scores.

    Attributes
    ----------
    sha256 : str
        Hash of all that decides its results: network, weights, task, normalisation, axes, pixel size.

    Raises
    ------
    ModelError
        Where the parts do not fit each other.
    """

    config: NetworkConfig
    weights: dict[str, np.ndarray]
    task: Task
    normalisation: Normalisation
    axes: str
    scale: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    channel_names: tuple[str, ...] = ()
    diameter: float | None = None
    shrink: tuple[float, ...] = ()
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    sha256: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        ndim = self.config.ndim
        if self.axes != SPATIAL[-ndim:]:
            raise ModelError(
                f"the model's axes are {self.axes!r}, a {ndim}-D network has {SPATIAL[-ndim:]!r}; give these"
            )
        self._fill("scale", (1.0,) * ndim, ndim)
        self._fill("units", (None,) * ndim, ndim)
        self._fill("channel_names", (), self.in_channels)
        self._fill("shrink", (), ndim)
        across = () if self.diameter is None else (self.diameter,)
        for name, values in (("scale", self.scale), ("shrink", self.shrink), ("diameter", across)):
            if not all(isinstance(s, int | float) and 0 < s < math.inf for s in values):
                raise ModelError(f"the model's {name} is {values}; it must be positive")
        if self.task.out_channels != self.config.out_channels:
            raise ModelError(
                f"the network gives {self.config.out_channels} channels, its task {self.task.name!r} needs "
                f"{self.task.out_channels}; give the network as many out_channels"
            )
        if bool(self.task.drawn) != self.config.timed or self.in_channels < 1:
            raise ModelError(
                f"the task {self.task.name!r} draws {self.task.drawn} channels, the network takes "
                f"{self.config.in_channels} and is {'told a time' if self.config.timed else 'told no time'}; train anew"
            )
        if self.task.factors and len(self.task.factors) != ndim:
            raise ModelError(f"the task's upscale is {self.task.factors}; a {ndim}-D network needs {ndim} numbers")
        weights = {k: v.astype(np.float32) if v.dtype.kind == "f" else v.copy() for k, v in self.weights.items()}
        check_shapes({k: (v.shape, v.dtype.kind == "f") for k, v in weights.items()}, self.config, "the model")
        check_finite(weights, "the model")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "record", plain(self.record, odd=lambda _: None))
        object.__setattr__(self, "sha256", self._digest())

    def _fill(self, name: str, default: tuple[Any, ...], length: int) -> None:
        value = tuple(getattr(self, name)) or default
        if value and len(value) != length:
            raise ModelError(f"the model's {name} are {value}; {length} are needed")
        object.__setattr__(self, name, value)

    def described(self) -> dict[str, Any]:
        """Return all but weights and record, as plain values: what ``model.json`` says."""
        return {
            "config": self.config.to_json(),
            "task": self.task.to_json(),
            "normalisation": self.normalisation.to_json(),
            "axes": self.axes,
            "scale": list(self.scale),
            "units": list(self.units),
            "channel_names": list(self.channel_names),
            **({} if self.diameter is None else {"diameter": self.diameter}),  # as cards are that have none
            **({"shrink": list(self.shrink)} if self.shrink else {}),
        }

    def _digest(self) -> str:
        parts = {name: _chosen(getattr(self, name)) for name in ("config", "task", "normalisation")}
        told = self.described() | parts | {"task name": self.task.name}
        found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for key in sorted(self.weights):
            value = np.ascontiguousarray(self.weights[key])
            found.update(json.dumps([key, value.dtype.str, value.shape]).encode())
            found.update(value.data)
        return found.hexdigest()

    @property
    def unet(self) -> UNetConfig:
        """What a U-Net of ours is built from.

        Raises
        ------
        ModelError
            Where the network is another one.
        """
        if isinstance(self.config, UNetConfig):
            return self.config
        name = self.config.network if isinstance(self.config, KnownConfig) else "ONNX"
        raise ModelError(
            f"the model is an imported {name} network: it can be run and previewed; encoding and export take a "
            "U-Net of this package"
        )

    @property
    def learnt(self) -> LearntConfig:
        """What a network that can learn is built from.

        Raises
        ------
        ModelError
            Where the network cannot learn.
        """
        if isinstance(self.config, GraphConfig):
            raise ModelError(
                "the model to start from is an imported ONNX network, which is a finished program and cannot learn; "
                "start from a U-Net of this package, or import a package with the state dict of a network that is known"
            )
        return self.config

    @property
    def in_channels(self) -> int:
        """Channels of the images that it takes."""
        return self.config.in_channels - self.task.drawn

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the result for one of the image, per axis of the network."""
        return self.task.factors or self.config.factors

    @property
    def seams(self) -> str:
        """Why results depend on the tiles; empty where they do not."""
        if isinstance(self.config, GraphConfig):
            return self.config.whole
        return "" if self.config.tile_exact else "its norm takes statistics from the tile"

    def imported(self, device: str | torch.device = "cpu") -> Graph | Known:
        """Return the imported network, made ready to run.

        Raises
        ------
        UsageError
            Where the packages for it are not installed.
        ModelError, UnsafeError
            Where it is a U-Net of ours, or cannot be run.
        """
        if isinstance(self.config, KnownConfig):
            return Known(self.config, self.weights, device)
        if not isinstance(self.config, GraphConfig):
            raise ModelError(
                "the model is a U-Net of this package, not an imported network; its network is model.network()"
            )
        return Graph(self.config, self.weights[WEIGHT].tobytes())

    def network(self, device: str | torch.device = "cpu") -> UNet:
        """Return the network with its weights, in eval mode.

        Raises
        ------
        ModelError
            Where it is no U-Net of ours.
        """
        net = cast("UNet", meta(self.unet))
        tensors = {key: torch.tensor(value, device=device) for key, value in self.weights.items()}
        net.load_state_dict(tensors, strict=True, assign=True)
        return net.eval()

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False, half: bool = False) -> "Model":
        """Write the model's folder; whatever happens, what lies there is the old model, the new one, or none.

        Parameters
        ----------
        folder : path
            New, empty, or a model's (with `overwrite`); other files beside a model's own are left alone.
        half : bool
            Store kernels as float16: half the size, rounded.

        Returns
        -------
        Model
            What was stored; another one than this only where `half` rounded it.

        Raises
        ------
        OutputError
            Where the folder holds a model already, or something else.
        ResourceError
            Where it cannot be written; an old model is still there then.
        """
        folder = Path(folder)
        old = _check_target(folder, overwrite)
        model = self
        if half:
            model = dataclasses.replace(self, weights=safetensors.numpy.load(write_weights(self.weights, half)))
        data = write_weights(model.weights, half)
        name = next(name for name in WEIGHTS if name != old)
        file = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        card = _card_bytes({**model.described(), "weights": file, "sha256": model.sha256}, model.record)
        new = not folder.exists()
        try:
            make_folder(folder)
            replace(folder / name, data)
            replace(folder / CARD, card)
        except OSError as error:
            if _points_to(folder) != name:
                _tidy(folder, {name}, new)
            raise ResourceError(
                f"the model cannot be written to {folder}: {error.strerror or error}; choose another place for it"
            ) from error
        _tidy(folder, set(WEIGHTS) - {name}, False)
        return model

    def card(self) -> str:
        """Return what a person wants to know of it, one per line."""
        count = sum(v.size for v in self.weights.values() if v.dtype.kind == "f")
        return card_text(self.described() | {"record": self.record}, count, self.sha256)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Load a model's folder; nothing in it is ever run.

    Parameters
    ----------
    path : path
        Its folder, or the name of a model that ships.

    Raises
    ------
    UnsafeError
        For files of others that may hold code.
    ModelError
        Naming the file that is missing, damaged, of a newer version, or does not fit.
    """
    folder = locate(Path(path))
    _refuse_foreign(folder)
    if folder.is_file() and folder.name == CARD:
        folder = folder.parent
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a model; a model is a folder with {CARD}")
    card = read_card(folder / CARD)
    try:
        config = read_network(card["config"])
        expected(config)
        task, normalisation = read_task(card["task"]), Normalisation.from_json(card["normalisation"])
        name, sha256 = card["weights"]["file"], str(card["weights"]["sha256"])
        rest: dict[str, Any] = {key: tuple(card[key]) for key in ("scale", "units", "channel_names")}
        rest |= {"diameter": card.get("diameter"), "shrink": tuple(card.get("shrink", ()))}
        axes, record = str(card["axes"]), dict(card["record"])
    except UNUSABLE as error:
        raise ModelError(f"{folder / CARD} cannot be used: {reason(error)}; get the model again") from error
    if name not in WEIGHTS:
        raise ModelError(f"{folder / CARD} names the weights {name!r}; it must be one of {', '.join(WEIGHTS)}")
    weights = read_weights(folder / name, config, sha256)
    try:
        model = Model(config, weights, task, normalisation, axes, record=record, **rest)
    except UNUSABLE as error:
        raise ModelError(f"{folder / CARD} cannot be used: {reason(error)}; get the model again") from error
    if model.sha256 != card.get("sha256"):
        raise ModelError(f"{folder / CARD} was changed after the model was saved (sha256 differs); get the model again")
    return model


def _refuse_foreign(folder: Path) -> None:
    """Refuse files of other model formats."""
    if not (folder / CARD).is_file() and folder.name != CARD:
        refuse_foreign(folder)


def _chosen(part: Any) -> dict[str, Any]:
    """Return the fields that are not at their default: one that comes later leaves the hash of older models alone."""
    if isinstance(part, GraphConfig | KnownConfig):
        return part.to_json()
    values = {field.name: (getattr(part, field.name), field.default) for field in dataclasses.fields(part)}
    return {FORMER.get(name, name): value for name, (value, default) in values.items() if value != default}


def _check_target(folder: Path, overwrite: bool) -> str | None:
    """Return the name of the weights of the model that lies there, if one does."""
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link; give the folder itself")
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a new folder for the model")
    if (folder / CARD).exists():
        if not is_model(folder):
            raise OutputError(f"{folder} holds a {CARD} that is not ours; give a new folder for the model")
        if not overwrite:
            raise OutputError(f"{folder} holds a model already; give another folder, or overwrite it")
        return _points_to(folder) or WEIGHTS[0]
    others = [p.name for p in folder.iterdir() if p.name not in WEIGHTS and not p.name.endswith(PARTIAL)]
    if others:
        raise OutputError(f"{folder} is not a model and holds {others[0]!r}; give a new folder for the model")
    return None


def _points_to(folder: Path) -> str | None:
    """Return the name of the weights that the card of a folder names, None where it has none of ours."""
    if not is_model(folder):
        return None
    weights = parse_card(folder / CARD).get("weights")
    name = weights.get("file") if isinstance(weights, dict) else None
    return name if name in WEIGHTS else None


def _card_bytes(card: dict[str, Any], record: dict[str, Any]) -> bytes:
    """Return the card's bytes; a history too long for it is thinned, every second entry at a time."""
    while True:
        whole = {"format": FORMAT, "version": VERSION, **card, "record": record}
        data = json.dumps(whole, indent=1, allow_nan=False).encode()
        if len(data) <= CARD_BYTES:
            return data
        history = record.get(HISTORY)
        if not isinstance(history, list) or len(history) < 2:
            raise ModelError(f"the model's record has {len(data)} bytes, the most is {CARD_BYTES}; record less")
        record = {**record, HISTORY: history[::-2][::-1]}


def _tidy(folder: Path, names: set[str], whole: bool) -> None:
    with contextlib.suppress(OSError):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        if whole:
            folder.rmdir()
