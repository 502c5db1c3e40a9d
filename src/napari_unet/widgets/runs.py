"""What the Segment widget runs in another process, or in a thread where its image cannot be sent there."""

import contextlib
import dataclasses
import functools
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arrays.views import Box
from ..events import Block
from ..inference import PredictConfig
from ..process.parcel import NotSentError, pack
from ..process.remote import Remote, working
from . import away, speed
from .away import Finished, Run
from .layers import warm_up
from .live import Live
from .source import Source

if TYPE_CHECKING:
    from .. import Preflight, Seam, Stack

SHOWN = ("predict", "mean of samples")  # stages whose blocks are those of the layer that fills in
LOOK_PATIENCE = 10.0  # seconds: a look that is left ends with its block, and its process has the network ready


@dataclasses.dataclass(frozen=True)
class Request:
    """A run as the form describes it.

    Parameters
    ----------
    channels : int
        That the first model takes.
    models : tuple of Path
        Folders, each of the model that takes what the one before gives.
    near : tuple of float, or None
        Indices, along the tiled axes, of the viewed position.
    """

    source: Source
    channels: int
    models: tuple[Path, ...]
    out: Path
    config: PredictConfig
    near: tuple[float, ...] | None = None

    @property
    def root(self) -> Path:
        """Where the result's group is."""
        return Path(self.source.path or "") if self.config.in_source else self.out

    def run(self) -> Run:
        """Return it as it is sent, with the image opened.

        Raises
        ------
        DataError
            Where the image cannot be opened as described.
        """
        return Run(self.source.stack(self.channels), self.models, self.out, self.config, self.near)


def segment(request: Request) -> Generator[Any, None, Finished]:
    """Run a model into an OME-Zarr; yields the events of `predict`, after `Opened` a `Live` to look at."""
    from .. import Opened

    live = None
    with contextlib.closing(Remote(away.segment, request.run()).events()) as events:
        try:
            yield next(events)
            warm_up()  # while the other process loads what it needs
            while True:
                event = next(events)
                if isinstance(event, Opened):
                    live = Live(event)
                    yield live
                elif live is not None and isinstance(event, Block) and event.stage in SHOWN:
                    live.add(event.box)
                yield event
        except StopIteration as end:
            result: Finished = end.value
    return result if live is None else dataclasses.replace(result, labels=live.finish(result.result))


def check(request: Request) -> "Generator[None, None, tuple[Preflight, float | None]]":
    """Say what a run will take, and about how many seconds."""
    return Remote(speed.check, request.run(), brief=True, hollow=True).events()


def seams(request: Request) -> "Generator[Any, None, Seam]":
    """Predict a sample again on a shifted grid."""
    return Remote(away.seams, request.run()).events()


class Look:
    """The exact result of the part that is viewed, kept while image, model and settings stay the same."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._data = request.source.layer.data
        self.stack: Stack = request.source.stack(request.channels)

    def fits(self, request: Request) -> bool:
        """Whether another request asks for the same result."""
        same = dataclasses.replace(request, out=self.request.out, near=self.request.near)
        return same == self.request and request.source.layer.data is self._data

    @functools.cached_property
    def _run(self) -> Run:
        return dataclasses.replace(self.request.run(), stack=self.stack)

    def at(self, box: Box) -> Generator[Any, None, None]:
        """Yield a `Looked`, then (whole box, its part, result there), what is kept first, then from the middle outward.

        The box asked for is one of the image; the boxes given are of the result.
        """
        sent: bytes | Run = self._run
        with working():
            with contextlib.suppress(NotSentError):
                sent = pack(self._run)  # by what it packs to, the other process knows what it has
            yield from Remote(away.look, sent, box, brief=True, patience=LOOK_PATIENCE).events()
