"""What becomes of work when its panel or the window is closed: it is found again, and one question is asked."""

from abc import ABCMeta
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMessageBox, QWidget

if TYPE_CHECKING:
    from .panel import Panel

STOP, STAY, BACKGROUND = "Stop, and keep what is done", "Go back", "Go on in the background"
_closed: list["Panel"] = []  # panels whose dock was closed while they worked; each is opened again as it is


class Reopened(ABCMeta):
    """Makes a panel, or returns the one of that kind that was closed while it worked."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the panel for a viewer."""
        viewer = kwargs.get("napari_viewer", args[0] if args else None)
        found = [panel for panel in _closed if type(panel) is cls and _is_same(panel.viewer, viewer)]
        return found[0] if found else super().__call__(*args, **kwargs)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two are one viewer, whatever is wrapped around them."""
    return getattr(one, "__wrapped__", one) is getattr(other, "__wrapped__", other)


class DockWatch(QObject):
    """Notes when a panel is taken out of its dock, and when it is put into another."""

    def __init__(self, panel: "Panel") -> None:
        super().__init__(panel.native)
        self._panel = panel
        panel.native.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Keep a panel that works, and let go of one that does not."""
        if event.type() == QEvent.Type.ParentChange:
            if self._panel.native.parent() is not None:
                forget(self._panel)
            elif self._panel.busy:
                _closed.append(self._panel)
            else:
                QTimer.singleShot(0, self._leave)
        return False

    def _leave(self) -> None:
        if self._panel.native.parent() is None and not self._panel.busy:
            self._panel.gone()


def forget(panel: "Panel") -> None:
    """Keep a panel no more."""
    if panel in _closed:
        _closed.remove(panel)


def work_ended(panel: "Panel") -> None:
    """Let go of a panel that was closed, now that its work has ended."""
    if panel in _closed:
        forget(panel)
        panel.gone()


class Guard(QObject):
    """Looks at the closing of a window, for all panels that have worked in it."""

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self.panels: list[Panel] = []
        window.installEventFilter(self)

    @classmethod
    def of(cls, panel: "Panel") -> "Guard":
        """Return the one of a panel's window, and let it look after the panel."""
        window = panel.native
        while window.parent() is not None:
            window = window.parent()
        guard = next((child for child in window.children() if isinstance(child, cls)), None) or cls(window)
        if panel not in guard.panels:
            guard.panels.append(panel)
        return guard

    @property
    def busy(self) -> list["Panel"]:
        """The panels that work now."""
        return [panel for panel in self.panels if panel.busy]

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Ask before the window closes: once, whatever is running."""
        busy = self.busy
        if event.type() == QEvent.Type.Close and busy:
            answer = busy[-1].ask_closing()
            if answer == STAY:
                event.ignore()
                return True
            for panel in busy:
                panel.stop_for_closing(answer)
        return False

    def ask(self) -> str:
        """Ask what to do with all that is running while the window is being closed."""
        busy = self.busy
        box = QMessageBox(self.parent())
        box.setWindowTitle("U-Net Stacks")
        box.setText("\n".join(panel.closing for panel in busy))
        wanted = {answer for panel in busy for answer in panel.answers}
        answers = [answer for answer in (STOP, BACKGROUND, STAY) if answer in wanted]
        buttons = {box.addButton(answer, QMessageBox.ButtonRole.ActionRole): answer for answer in answers}
        box.exec()
        return next((answer for button, answer in buttons.items() if button is box.clickedButton()), STAY)
