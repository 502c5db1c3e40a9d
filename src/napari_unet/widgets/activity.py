"""Work in napari's own list of activities, where it can be seen and stopped whatever panel is open."""

import io
from collections.abc import Callable

from napari.utils import cancelable_progress

STEPS = 1000  # of a whole piece of work


class Activity(cancelable_progress):
    """A line in the list of activities.

    Parameters
    ----------
    name : str
    stop : callable
        Called when the user cancels it there.
    """

    def __init__(self, name: str, stop: Callable[[], None]) -> None:
        super().__init__(total=STEPS, desc=name, cancel_callback=stop, file=io.StringIO())  # nothing for the terminal

    def cancel(self) -> None:
        """Stop the work at once: there is no loop here that would look."""
        super().cancel()
        self.cancel_callback()

    def show(self, done: int, total: int) -> None:
        """Show how far the work is; nothing where that is not known."""
        wanted = round(STEPS * done / total) if total else 0
        if wanted != self.n:
            self.update(wanted - self.n)
