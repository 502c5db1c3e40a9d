"""The folder of a run, ``OUT.training`` beside the model folder: what it is, what it goes on from, what it ends as."""

import dataclasses
import json
import platform
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..device import versions
from ..errors import UNUSABLE, DataError, OutputError, ResourceError
from ..events import Progress, wait
from ..faults import persist
from ..files import make_folder, refuse_link, remove_leftovers
from ..model import Model
from ..network import KnownConfig, windowed
from ..settings import former_names, from_keys, to_keys
from ..store.lock import Lock
from ..store.ome import NAME
from ..store.plan import FOLDER
from ..task import Task, read_task
from .checkpoint import Checkpoints, write_atomic
from .config import TrainConfig
from .plan import TrainingPlan

RUN = "run.json"
FINISHING = "finished"  # says that the model folder is of this run, so that an extended run may replace it
VERSION = 1  # of run.json
PACKAGES = ("napari-unet-stacks", "torch", "numpy", "safetensors")  # whose versions the model's record names


def training_folder(out: Path) -> Path:
    """Return the folder that holds the state of the training of a model folder."""
    return out.with_name(out.name + ".training")


@dataclasses.dataclass(slots=True)
class Run:
    """One training and its folder.

    Parameters
    ----------
    folder : Path
        ``OUT.training``.
    identity : dict
        Settings that must stay the same when it is resumed.
    data : dict
        Fingerprint of the data.
    """

    folder: Path
    plan: TrainingPlan
    task: Task
    identity: dict[str, Any]
    data: dict[str, Any]
    channel_names: tuple[str, ...] = ()
    lock: Lock | None = None

    @property
    def out(self) -> Path:
        """Return the model folder it makes."""
        return self.folder.with_name(self.folder.name.removesuffix(".training"))

    def create(self, break_lock: bool = False) -> None:
        """Make the folder; the first thing that a training writes.

        Raises
        ------
        ResourceError
            Where it cannot be written.
        """
        try:
            make_folder(self.folder / FOLDER)
        except OSError as error:
            raise ResourceError(
                f"cannot make {self.folder}: {error.strerror or error}; choose another --out"
            ) from error
        self.take(break_lock)
        values = {
            "version": VERSION,
            "plan": self.plan.to_json(),
            "task": self.task.to_json(),
            "settings": self.identity,
            "data": self.data,
            "channel_names": list(self.channel_names),
        }
        write_atomic(self.folder / "plan.txt", ("\n".join(self.plan.summary()) + "\n").encode())
        write_atomic(self.folder / RUN, json.dumps(values, indent=1).encode())

    def take(self, break_lock: bool = False) -> Lock:
        """Lock the folder for this process."""
        make_folder(self.folder / FOLDER)
        self.lock = Lock.acquire(self.folder / FOLDER, break_lock=break_lock)
        remove_leftovers([self.folder])  # of one that was killed, or whose disk was full
        return self.lock

    def beat(self) -> None:
        """Show that this process is alive; refuse where another one has taken the lock."""
        if self.lock is not None:
            self.lock.beat()

    def release(self) -> None:
        """Give the lock back."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read the run of a folder.

        Raises
        ------
        OutputError
            Where there is none.
        UnsafeError
            Where the folder is a link.
        DataError
            Where its description is damaged.
        """
        refuse_link(folder)
        path = folder / RUN
        if not path.is_file():
            raise OutputError(f"{folder} holds no training; start one without --resume")
        try:
            values = json.loads(persist(path.read_bytes))
            plan, task = TrainingPlan.from_json(values["plan"]), read_task(values["task"])
            names = tuple(values["channel_names"])
            return cls(folder, plan, task, dict(values["settings"]), dict(values["data"]), names)
        except UNUSABLE as error:
            raise DataError(f"{path} is damaged: {' '.join(str(error).split())[:300]}; start a new run") from error

    def check_same(self, identity: Mapping[str, Any], digest: str) -> None:
        """Refuse to go on with other settings or other data.

        Raises
        ------
        OutputError
            Naming what changed.
        """
        known = to_keys(TrainConfig()) | dict(self.identity)  # a setting that came later has its default
        changed = [k for k in identity if json.dumps(identity[k]) != json.dumps(known.get(k))]
        if changed:
            k = changed[0]
            name = former_names(TrainConfig).get(k, k)
            raise OutputError(
                f"{self.folder} was started with {name} = {known.get(k)}, now it is {identity[k]}; "
                "resume with the same settings, or choose another --out"
            )
        if digest != self.data["digest"]:
            raise OutputError(
                f"{self.folder} was started on other data (images, labels or pixel sizes changed); "
                "resume with the same data, or choose another --out"
            )

    def model(
        self, weights: Mapping[str, Tensor], record: dict[str, Any], settings: Mapping[str, Any] | None = None
    ) -> Model:
        """Return the model with some weights of the network, and fields of its task as validation has set them."""
        network = self.plan.network
        return Model(
            config=windowed(network, self.plan.patch) if isinstance(network, KnownConfig) else network,
            weights={k: v.cpu().numpy() for k, v in weights.items()},
            task=dataclasses.replace(cast("Any", self.task), **from_keys(type(self.task), settings or {})),
            normalisation=self.plan.normalisation,
            axes=self.plan.axes,
            scale=self.plan.spacing,
            units=self.plan.units,
            channel_names=self.channel_names,
            diameter=self.plan.diameter,
            shrink=self.plan.shrink,
            record=record,
        )

    def finish(self) -> Model:
        """Write the best model so far to the model folder, and return it.

        Raises
        ------
        OutputError
            Where no epoch has been validated.
        """
        best, last = Checkpoints(self.folder, "best").load(), Checkpoints(self.folder).load()
        if best is None or last is None:
            raise OutputError(f"{self.folder} has no validated epoch yet; continue with --resume")
        state = last.state
        row: dict[str, Any] = next((row for row in state["history"] if row["step"] == best.state["step"]), {})
        count, name = len(self.data["stacks"]), self.out.name.removesuffix(".model")
        licence = self.identity.get("licence")
        record = (
            ({"name": name} if NAME.fullmatch(name) else {})
            | ({"licence": licence} if licence else {})
            | {key: self.data[key] for key in ("contrast", "appearance", "foreground") if key in self.data}
            | {
                "learnt from": f"{count} labelled image{'s' * (count != 1)}",
                "data": self.data,
                "settings": self.identity,
                "plan": self.plan.to_json(),
                "steps": state["step"],
                "minutes": round(state["elapsed"] / 60, 3),
                "best": row,
                "scores": {k: v for k, v in row.items() if k.startswith((self.task.score, "class_"))},
                "history": state["history"],
                "device": best.state["device"],
                "threads": best.state["threads"],
                "precision": best.state["precision"],
                "versions": {"python": platform.python_version()} | versions(*PACKAGES),
            }
        )
        model = self.model(best.tensors, record, best.state.get("task", {}))
        mine = self.folder / FINISHING
        again = mine.exists()
        write_atomic(mine, b"")
        model.save(self.out, overwrite=again)
        for kind in ("best", "checkpoint"):  # the run may be extended later, which takes the last ones only
            Checkpoints(self.folder, kind, 1).tidy()
        return model


def finish(out: Path, *, break_lock: bool = False) -> Model:
    """Make the model of a training that was stopped: the best so far, written to `out`; `finishing` says more.

    Parameters
    ----------
    break_lock : bool
        Take over from a training on another machine that is known to be gone.

    Raises
    ------
    OutputError
        Where there is no training of `out` with a validated epoch.
    """
    return wait(finishing(out, break_lock))


def finishing(out: Path, break_lock: bool = False) -> Generator[Progress, None, Model]:
    """Do what `finish` does, and say where it takes over from a training that is gone."""
    run = Run.open(training_folder(Path(out)))
    lock = run.take(break_lock)
    try:
        yield from lock.notices()
        return run.finish()
    finally:
        run.release()
