"""A training in a process of its own, heard and asked a line at a time: ``python -m napari_unet.training.process JOB``.

It writes one JSON object per line: "progress", "epoch", "view", and at last "done", "stopped" or "error". It takes
one per line on its input: ``{"ask": "pause"}`` keeps the state and ends; "stop" ends with the best so far as the
model; "leave" goes on although nobody listens any more; ``{"ask": "view", "id": 1, "image": 0, "box": [[0, 64], ...]}``
predicts a box of an image with the network as it is.
"""

import argparse
import base64
import contextlib
import dataclasses
import json
import queue
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import UnetError, UsageError
from ..events import Epoch, Progress
from ..settings import from_keys, to_keys
from .config import TrainConfig

if TYPE_CHECKING:
    from ..arrays.stack import Stack
    from ..arrays.views import Box
    from ..model import Model
    from .fit import Events, Training

ON_DISCONNECT = ("stop", "continue")
FIELDS = ("pairs", "out", "config", "init", "on_disconnect")
EVERY = 0.1  # seconds between two lines on the progress of a stage
LARGEST_VIEW = 2**22
END: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class TrainJob:
    """What a training process is to do.

    Parameters
    ----------
    pairs : sequence of mapping
        ``image`` and ``labels``, their paths (labels, or the images that are the targets); ``image_options`` and
        ``labels_options`` as `open_stack` takes them.
    out : str
        Model folder to make.
    config : mapping
        Fields of `TrainConfig`.
    init : str, optional
        Model to start from.
    on_disconnect : "stop" or "continue"
        What it does when nobody listens any more.

    Raises
    ------
    UsageError
        Where a field cannot be.
    """

    pairs: Sequence[Mapping[str, Any]]
    out: str
    config: Mapping[str, Any]
    init: str | None = None
    on_disconnect: str = "stop"

    def __post_init__(self) -> None:
        if not self.pairs or not all({"image", "labels"} <= set(pair) for pair in self.pairs):
            raise UsageError("pairs must name an image and its labels each, at least one")
        if self.on_disconnect not in ON_DISCONNECT:
            raise UsageError(f"on_disconnect is {self.on_disconnect!r}; choose one of {', '.join(ON_DISCONNECT)}")

    @property
    def settings(self) -> TrainConfig:
        """Its settings as `TrainConfig`."""
        given = from_keys(TrainConfig, self.config)
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise UsageError(f"config has {unknown[0]!r}; known are {', '.join(sorted(known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return TrainConfig(**values)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return to_keys(self)

    @classmethod
    def read(cls, path: Path) -> "TrainJob":
        """Read a job.

        Raises
        ------
        UsageError
            Where the file cannot be read as one.
        """
        try:
            values = from_keys(cls, json.loads(path.read_text("utf-8")))
            return cls(**{name: values[name] for name in FIELDS if name in values})
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path} is no job of a training: {error}") from error

    def stacks(self) -> "list[tuple[Stack, Stack]]":
        """Open all pairs lazily."""
        from ..sources import open_labels, open_stack

        other = open_stack if self.settings.learns_images else open_labels
        return [
            (
                open_stack(pair["image"], **pair.get("image_options", {})),
                other(pair["labels"], **pair.get("labels_options", {})),
            )
            for pair in self.pairs
        ]


class EventWriter:
    """Writes events, one per line; where nobody listens any more, it writes nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._last = out, (float("-inf"), "")

    def write(self, event: str, **values: Any) -> None:
        """Write an event."""
        with contextlib.suppress(OSError, ValueError):
            self._out.write(json.dumps({"event": event, **values}, default=str) + "\n")
            self._out.flush()

    def report(self, event: Progress | Epoch) -> None:
        """Write an event of the training; of progress the first and the last of a stage, and a few a second between."""
        if isinstance(event, Epoch):
            self.write("epoch", **dataclasses.asdict(event))
            return
        now, stage = time.monotonic(), event.stage
        if stage != self._last[1] or now - self._last[0] >= EVERY or event.done == event.total or stage == "plan":
            self._last = now, stage
            self.write("progress", **dataclasses.asdict(event))


class Views:
    """Predictions of boxes with the network as it is.

    Parameters
    ----------
    images : list of Stack
    """

    def __init__(self, images: "list[Stack]") -> None:
        self.training: Training | None = None  # of which there is none before it is planned
        self._images = images
        self._statistics: dict[int, Any] = {}

    def answer(self, request: Mapping[str, Any], writer: EventWriter) -> None:
        """Predict what was asked for, and say where it is."""
        import numpy as np

        model = None if self.training is None else self.training.model()
        index, box = int(request["image"]), tuple(slice(*map(int, ends)) for ends in request["box"])
        size = float(np.prod([b.stop - b.start for b in box]))
        if model is None or not 0 <= index < len(self._images) or not 0 < size <= LARGEST_VIEW:
            return
        labels = np.ascontiguousarray(self.predicted(model, index, box))
        about = {"image": index, "box": request["box"], "shape": labels.shape, "factors": model.config.factors}
        about |= {"attributes": model.task.attributes(), "kind": model.task.result}
        data = base64.b64encode(zlib.compress(labels.data, 1)).decode("ascii")
        writer.write("view", id=request["id"], **about, dtype=str(labels.dtype), data=data)

    def predicted(self, model: "Model", index: int, box: "Box") -> Any:
        """Return the result of a model on a box of an image's tiled axes."""
        from ..inference.engine import Engine
        from ..inference.lazy import Preview

        stack = self._images[index]
        if index not in self._statistics:
            self._statistics[index] = model.normalisation.measure(stack)
        view = Preview(Engine(stack, model, self._statistics[index]))
        return view.read(box)


def labels_in(event: Mapping[str, Any]) -> Any:
    """Return the labels of a "view" event, of its box; or the intensities, on their own grid."""
    import numpy as np

    data = zlib.decompress(base64.b64decode(event["data"]))
    return np.frombuffer(data, event["dtype"]).reshape(event["shape"]).copy()


def listen(requests: "queue.SimpleQueue[Any]", where: TextIO) -> None:
    """Take what is asked, a line at a time, to the end of the input."""
    for line in where:
        with contextlib.suppress(ValueError):
            requests.put(json.loads(line))
    requests.put(END)


def run(job: TrainJob, writer: EventWriter, requests: "queue.SimpleQueue[Any]") -> None:
    """Train, say what happens, and do what is asked between steps."""
    pairs = job.stacks()
    on_disconnect, ending = job.on_disconnect, False
    views = Views([image for image, _ in pairs])
    with contextlib.closing(_events(job, pairs, views)) as events:
        try:
            while True:
                writer.report(next(events))
                view = None
                while not requests.empty():
                    what = requests.get()
                    word = ("pause" if on_disconnect == "stop" else "leave") if what is END else what.get("ask")
                    view = what if word == "view" else view
                    if word == "pause":
                        raise KeyboardInterrupt
                    ending = ending or word == "stop"
                    on_disconnect = "continue" if word == "leave" else on_disconnect
                if ending and views.training is not None:
                    views.training.end_soon()
                if view is not None:
                    views.answer(view, writer)
        except StopIteration as end:
            writer.write("done", model=job.out, card=end.value.card())


def _events(job: TrainJob, pairs: "list[tuple[Stack, Stack]]", views: Views) -> "Events":
    """Train; once it is planned, `views` looks into it."""
    from ..model import load_model
    from .fit import begin

    init = None if job.init is None else load_model(job.init)
    views.training = yield from begin(pairs, Path(job.out), job.settings, init)
    return (yield from views.training.events())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job of a file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m napari_unet.training.process")
    parser.add_argument("job", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on with the run that was stopped")
    given = parser.parse_args(arguments)
    writer, requests = EventWriter(sys.stdout), queue.SimpleQueue[Any]()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=listen, args=(requests, sys.stdin), daemon=True).start()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            job = TrainJob.read(given.job)
            run(_resumed(job) if given.resume else job, writer, requests)
        except KeyboardInterrupt:
            writer.write("stopped")
        except UnetError as error:
            writer.write("error", message=" ".join(str(error).split()), kind=type(error).__name__)
            return error.exit_code
        except Exception as error:  # noqa: BLE001 - whoever listens is told; all of it is in the traceback
            about = {"kind": type(error).__name__, "traceback": traceback.format_exc()}
            writer.write("error", message=f"{type(error).__name__}: {error}", **about)
            return 1
    return 0


def _resumed(job: TrainJob) -> TrainJob:
    return dataclasses.replace(job, config={**job.config, "resume": True})


if __name__ == "__main__":
    sys.exit(main())
