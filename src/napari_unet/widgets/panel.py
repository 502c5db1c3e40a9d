"""What the widgets share: a status line, progress, one piece of work at a time, and a word before the window closes."""

import contextlib
import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, Label, ProgressBar, PushButton, Widget
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from ..errors import UsageError
from ..events import Progress
from ..sources.zarrmeta import is_remote
from .activity import Activity
from .closing import STAY, STOP, DockWatch, Guard, Reopened, forget, work_ended
from .floors import check_viewer
from .form import label_of
from .jobs import Clock, Ended, Worker, duration

if TYPE_CHECKING:
    import napari

TIMED = ("predict", "train", "batch")  # stages whose steps take about the same time each
NAME_WIDTH, LEAST_WIDTH = 84, 110  # pixels: the longest label, and a number with its buttons
PINNED = 6  # pixels around what is pinned, as around what is scrolled


class Panel(Container[Widget], metaclass=Reopened):
    """A widget that starts pieces of work, one at a time."""

    closing = "A segmentation is running; what is done of it is kept, and it can be resumed."
    working = "Segmenting"  # in napari's list of activities
    answers: tuple[str, ...] = (STOP, STAY)

    def __init__(self, viewer: "napari.Viewer") -> None:
        check_viewer()
        self._outer = QWidget()
        super().__init__(scrollable=True, labels=False)
        self.viewer = viewer
        self.by_hand = True  # whether a choice that changes is the user's: not while choices are made anew
        self.pinned = column()  # what stays in sight below the rest, however small the window
        self.pinned.margins = (PINNED, 0, PINNED, PINNED)
        layout = QVBoxLayout(self._outer)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.scroll, 1)
        layout.addWidget(self.pinned.native)
        self.status = text("")
        self.progress = ProgressBar(value=0, max=1000, visible=False)
        self.work: Worker | None = None
        self._clock, self._began = Clock(), 0.0
        self._activity: Activity | None = None
        self._guard: Guard | None = None
        self._signals: list[tuple[Any, Callable[..., Any]]] = []
        events = viewer.layers.events
        self.listen(events.inserted, self._watch_names)
        for signal in (events.inserted, events.removed, events.reordered):
            self.listen(signal, self.reset_choices)
        self.native.destroyed.connect(self.gone)
        DockWatch(self)

    def listen(self, signal: Any, action: Callable[..., Any]) -> None:
        """Do something at each signal, as long as the widget is there."""
        signal.connect(action)
        self._signals.append((signal, action))

    def gone(self) -> None:
        """Leave what is running, and listen no more: the window has taken the widget away."""
        forget(self)
        if self._guard is not None:
            self._guard.panels.remove(self)
            self._guard = None
        for signal, action in self._signals:
            signal.disconnect(action)
        self._signals.clear()
        if self.work is not None:
            self.work.abandon()

    @property
    def native(self) -> Any:
        """The window's own widget: what is scrolled, so that a small window shows all of it, above what is pinned."""
        return self._outer

    @property
    def scroll(self) -> Any:
        """The part with the scroll bar."""
        return self.root_native_widget

    def add_below(self, *widgets: QWidget) -> None:
        """Put widgets of the window's own kind below the controls, and room below them."""
        layout = super().native.layout()
        for widget in widgets:
            widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
            layout.addWidget(widget)
        layout.addStretch(1)
        _Width(self.scroll)

    def reset_choices(self, *_: Any) -> None:
        """Make all choices anew; what is chosen stays so while it is there, under whatever name."""
        chosen = [(box, box.value) for box in _boxes(self)]
        with contextlib.ExitStack() as silent:
            for box, _value in chosen:
                silent.enter_context(box.changed.blocked())
            super().reset_choices()
            for box, value in chosen:
                if value in box.choices:
                    box.value = value
        self.by_hand = False
        for box, value in chosen:
            if box.value != value:
                box.changed.emit(box.value)
        self.by_hand = True

    def _watch_names(self, event: Any) -> None:
        self.listen(event.value.events.name, self.reset_choices)

    @property
    def busy(self) -> bool:
        """Whether work of this widget is running."""
        return self.work is not None and self.work.running

    @property
    def taken(self) -> str:
        """How long the last piece of work has taken."""
        return duration(time.monotonic() - self._began)

    def begin(self, work: Worker) -> None:
        """Start a piece of work."""
        self._guard = self._guard or Guard.of(self)
        self._clock, self._began = Clock(), time.monotonic()
        self.status.value = ""  # of what was before
        self.work = work.start()
        self.progress.value = 0
        self.progress.visible = True
        self._close_activity()
        self._activity = Activity(self.working, self.stop_work)
        self.enable()

    def _close_activity(self) -> None:
        if self._activity is not None:
            self._activity.close()
            self._activity = None

    def stop_work(self) -> None:
        """Cancel what is running; what is done is kept."""
        if self.work is not None:
            self.work.cancel()

    def ended(self, how: Ended) -> None:
        """Show how a piece of work ended."""
        self._close_activity()
        self.progress.visible = False
        self.enable()
        if how.error:
            self.fail(how.error)
        QTimer.singleShot(0, lambda: work_ended(self))  # after its result is shown

    def enable(self) -> None:
        """Enable the buttons that can be used now."""

    def fail(self, message: str) -> None:
        """Tell the user what went wrong."""
        self.status.value = message = as_said_here(message)
        show_error(message)

    def inform(self, message: str) -> None:
        """Tell the user something that matters."""
        self.status.value = message
        show_info(message)

    def advance(self, event: Progress, called: str = "") -> None:
        """Show how far a piece of work is, in words of its own where it is called so."""
        if event.total:
            self.progress.value = round(1000 * event.done / event.total)
        if self._activity is not None:
            self._activity.show(event.done, event.total)
        if event.stage == "note":
            show_info(as_said_here(event.message))
        left = self._clock.left(event.done, event.total) if event.stage in TIMED else ""
        of = f" {event.done} of {event.total}" if event.total > 1 else ""
        line = f"{called or event.stage + of}{f', {left} left' if left else ''}"
        self.status.value = f"{line}\n{event.message}" if event.message else line

    def stop_for_closing(self, answer: str) -> None:
        """Do what was answered, before the window closes."""
        if self.work is not None and answer != STAY:
            self.work.cancel()
            self.work.wait()

    def ask_closing(self) -> str:
        """Ask what to do with work that is running while the window is being closed."""
        return self._guard.ask() if self._guard is not None else STAY


class _Width(QObject):
    """Keeps a scrolled panel as wide as its controls need, whatever style and text they get: it scrolls down only."""

    def __init__(self, scroll: Any) -> None:
        super().__init__(scroll)
        self._scroll = scroll
        scroll.widget().installEventFilter(self)

    def eventFilter(self, inner: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Follow the controls when they are laid out anew."""
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Show):
            scroll = self._scroll
            needed = scroll.widget().minimumSizeHint().width() + scroll.verticalScrollBar().sizeHint().width()
            scroll.setMinimumWidth(needed + 2 * scroll.frameWidth())
        return False


def _boxes(inside: Container[Widget]) -> Iterator[ComboBox]:
    """Yield the boxes of choices in a container and in those within it."""
    for control in inside:
        if isinstance(control, ComboBox):
            yield control
        elif isinstance(control, Container):
            yield from _boxes(control)


def text(value: str, **more: Any) -> Label:
    """Return a label whose lines wrap, and whose text can be copied."""
    label = Label(value=value, **more)
    native: Any = label.native
    native.setTextFormat(Qt.TextFormat.PlainText)  # a name may hold what Qt takes for HTML
    native.setWordWrap(True)
    native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    native.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def counted(number: int, thing: str) -> str:
    """Return how many things there are, in words."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def plain_tip(value: str) -> str:
    """Return a tooltip that shows a text as it is, whatever Qt would take for HTML in it."""
    return f"<qt>{html.escape(value)}</qt>"


def button(name: str, action: Callable[[], Any], tooltip: str = "", **more: Any) -> PushButton:
    """Return a button that does something."""
    made = PushButton(text=name, tooltip=tooltip, **more)
    made.clicked.connect(lambda _: action())
    return made


def row(*controls: Widget) -> Container[Widget]:
    """Return controls beside each other."""
    found: Container[Widget] = Container(widgets=controls, layout="horizontal", labels=False)
    found.margins = (0, 0, 0, 0)
    found.native.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    return found


def column(*controls: Widget) -> Container[Widget]:
    """Return controls below each other."""
    found: Container[Widget] = Container(widgets=controls, labels=False)
    found.margins = (0, 0, 0, 0)
    return found


def field(name: str, *controls: Widget) -> Container[Widget]:
    """Return controls behind their name; the first takes the room that is left."""
    head = Label(value=name[:1].upper() + name[1:])
    head.native.setFixedWidth(NAME_WIDTH)
    shrink(controls[0])
    first: Any = controls[0].native
    first.setAccessibleName(head.value)  # what a screen reader calls it
    for control in controls[1:]:
        native: Any = control.native
        native.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
    return row(head, *controls)


def folder(tooltip: str = "") -> FileEdit:
    """Return a control for an existing folder."""
    found = FileEdit(tooltip=tooltip, mode=FileDialogMode.EXISTING_DIRECTORY)
    found.choose_btn.text = "…"
    found.choose_btn.native.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
    return found


def place_in(control: FileEdit) -> Path | str | None:
    """Return the path of a control, or the address as it is written, None where it is empty.

    Raises
    ------
    UsageError
        Where it is an address of a kind that is not opened.
    """
    written, value = control.line_edit.value.strip(), control.value
    if is_remote(written):
        return written
    return value if isinstance(value, Path) and str(value) not in ("", ".") else None


def path_in(control: FileEdit) -> Path | None:
    """Return the one path of a control, None where it is empty.

    Raises
    ------
    UsageError
        Where it is an address.
    """
    found = place_in(control)
    if isinstance(found, str):
        raise UsageError(f"{found} is an address; choose a folder on a disk here")
    return found


def shrink(control: Widget) -> None:
    """Let a control take the room there is, however little it is."""
    native: Any = control.native
    native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    native.setMinimumWidth(LEAST_WIDTH)


def folded(title: str, inner: Widget) -> list[Widget]:
    """Return a button and what it shows and hides."""
    inner.visible = False

    def turn() -> None:
        inner.visible = not inner.visible
        head.text = f"{'▾' if inner.visible else '▸'} {title}"

    head = button(f"▸ {title}", turn)
    return [head, inner]


def as_said_here(message: str) -> str:
    """Name what a message calls an option of the shell as the window names it: "Overwrite", not --overwrite."""

    def named(found: re.Match[str]) -> str:
        label = label_of(found[1].replace("-", "_"))
        return f'"{label.partition(" (")[0]}"'  # without its unit

    return re.sub(r"(?<![^\s(])--([a-z][a-z-]*)", named, message)
