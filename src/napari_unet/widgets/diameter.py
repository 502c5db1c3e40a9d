"""How large objects are: typed, or measured on what a preview shows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from magicgui.widgets import Container, LineEdit, Widget

from ..cards import Entry
from ..errors import UsageError
from .panel import button, field

FEWEST = 3  # objects: the median of fewer says little


class DiameterForm(Container[Widget]):
    """The diameter of objects in pixels of the image; there for models that know that of their training.

    Parameters
    ----------
    shown : callable
        Returns the labels of the preview, None where there is none.
    fail : callable
        Told why nothing could be measured.
    """

    def __init__(self, shown: Callable[[], Any], fail: Callable[[str], None]) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._shown, self._fail = shown, fail
        self._known = False
        self.line = LineEdit(tooltip="Diameter of objects in pixels of this image; it is resampled to fit the model")
        measure = button("Measure", self.measure, "Take the median diameter of the objects that the preview shows")
        self.append(field("diameter", self.line, measure))

    def suit(self, entry: Entry | None) -> None:
        """Offer what a model takes."""
        self._known = entry is not None and entry.diameter is not None
        self.visible = self._known
        learnt = entry.learnt_diameter if entry is not None and self._known else None
        self.line.native.setPlaceholderText(f"{learnt:g} pixels, as in training" if learnt else "as in training")

    def chosen(self) -> float | None:
        """Return what is chosen; None where nothing is.

        Raises
        ------
        UsageError
            Where it is no number.
        """
        written = self.line.value.strip()
        if not written or not self._known:
            return None
        try:
            return float(written.replace(",", "."))
        except ValueError as error:
            raise UsageError(f"the diameter is {written!r}; give a number of pixels, such as 25") from error

    def measure(self) -> None:
        """Measure what the preview shows."""
        shown = self._shown()
        sizes = [] if shown is None else diameters_seen(np.squeeze(np.asarray(shown)))
        if len(sizes) < FEWEST:
            self._fail(f"the preview shows {len(sizes)} whole objects; press Preview first, where more can be seen")
            return
        self.line.value = f"{np.median(sizes):.3g}"


def diameters_seen(labels: np.ndarray) -> list[float]:
    """Return the equivalent diameters of the objects that lie wholly inside."""
    from ..training.annotation import equivalent_diameters

    counts = np.bincount(labels.ravel())
    counts[0] = 0
    for axis in range(labels.ndim):
        for end in (0, -1):
            counts[np.unique(np.take(labels, end, axis))] = 0
    return equivalent_diameters(counts, labels.ndim, 1.0)
