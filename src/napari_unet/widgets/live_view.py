"""What a training makes of the part that is viewed: asked for when the one before has come, and always drawn."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from ..grid.finer import blank
from ..grid.tiles import scaled
from ..process.remote import Remote
from ..training.job import View, ViewRequest
from .layers import Place, look, seen
from .paint import painted_colours
from .results import contrast
from .source import Source, usual_axes
from .training_request import TrainingRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel

PULSE = 250  # milliseconds between two looks whether it is time to ask
EVERY = 3.0  # seconds between two predictions at least
REST = 4.0  # times as long as a prediction took, until the next: it takes a fifth of the training's time at most
OPACITY = 0.5  # so that what was painted shows through


class LiveView:
    """The layer of a training's prediction; one is on its way at most, so that a slow one is late and not lost.

    Parameters
    ----------
    parent : QObject
        With which it ends.
    """

    def __init__(self, viewer: "ViewerModel", parent: Any) -> None:
        self.viewer, self.layer = viewer, None
        self.on = True
        self._request: TrainingRequest | None = None
        self._training: Remote | None = None
        self._cut: frozenset[int] = frozenset()
        self._asked = 0
        self._waiting, self._next = False, 0.0
        self._since = 0.0
        self._pulse = QTimer(parent)
        self._pulse.setInterval(PULSE)
        self._pulse.timeout.connect(self.ask)

    def begin(self, training: Remote, request: TrainingRequest | None, cut: frozenset[int]) -> None:
        """Follow a training; of the pairs in `cut` a part alone is learnt from, whose place is not known here."""
        self._training, self._request, self._cut = training, request, cut
        self._waiting, self._next = False, 0.0
        self._pulse.start()

    def end(self) -> None:
        """Ask no more."""
        self._pulse.stop()
        self._training = None

    def ask(self) -> None:
        """Ask the training for a prediction of what is seen now, when it is time."""
        if not self.on or self._training is None or self._request is None or self._waiting:
            return
        if time.monotonic() < self._next:
            return
        pairs = self._request.pairs
        shown = [i for i, (image, _) in enumerate(pairs) if image in self.viewer.layers and image.visible]
        shown = [i for i in shown if i not in self._cut]
        if not shown:
            return
        image = pairs[shown[-1]][0]
        axes = usual_axes(image)
        box = seen(self.viewer, image, axes, Source(image, axes).stack())
        self._asked += 1
        self._waiting = self._training.ask(ViewRequest(self._asked, shown[-1], box))
        self._since = time.monotonic()

    def draw(self, view: View) -> None:
        """Show a prediction that came, however late."""
        now = time.monotonic()
        self._waiting, self._next = False, now + max(EVERY, REST * (now - self._since))
        if self._request is None:
            return
        image = self._request.pairs[view.request.image][0]
        if image not in self.viewer.layers:
            return
        axes = usual_axes(image)
        stack = blank(Source(image, axes).stack(), view.factors, view.data.dtype)
        ones = (1,) * (len(stack.axes) - len(view.factors))
        place = Place.of(image, axes, stack)
        box = scaled(view.request.box, (*ones, *view.factors))
        data, translate = np.asarray(place.arranged(view.data, stack.axes)), place.corner(box, stack.axes)
        name, shown = f"{image.name} live", place.shown() | {"translate": translate}
        kept: Any = self.layer
        if kept in self.viewer.layers and kept.name == name and kept.ndim == data.ndim:
            kept.data = data
            for field, value in shown.items():
                setattr(kept, field, value)
            return
        if kept in self.viewer.layers:
            self.viewer.layers.remove(kept)
        made: Any
        selected = set(self.viewer.layers.selection)
        if view.kind == "image":
            made = self.viewer.add_image(
                data, name=name, contrast_limits=contrast(data) or image.contrast_limits, **shown
            )
        else:
            drawn = self._request.pairs[view.request.image][1]
            colours = painted_colours(drawn) or look(view.attributes)
            made = self.viewer.add_labels(data, name=name, opacity=OPACITY, **shown, **colours)
            made.editable = False
            if drawn in self.viewer.layers:  # below what is painted
                self.viewer.layers.move(self.viewer.layers.index(made), self.viewer.layers.index(drawn))
        self.layer = made
        self.viewer.layers.selection = selected  # nobody loses the brush
