"""A napari window that a script drives with the mouse and the keyboard, as its user would."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from PIL import Image, ImageChops, ImageDraw
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

NAME = "napari-unet-stacks"
SIZE = (1380, 860)
COLOURS = 200
FILM, FILM_COLOURS = (920, 573), 96  # pixels, and colours: a moving picture of half a minute stays below 4 MB
EVERY, SHOWN = 0.4, 200  # seconds between its pictures, and milliseconds that each is shown: twice as fast
MOST_STILL = 6  # of pictures in which nothing moves
RING = 9  # pixels: radius of the mark where the mouse is


class Window:
    """A viewer that is driven by a script.

    Parameters
    ----------
    out : Path
        Folder for the pictures.
    size : (width, height)
        Of the window, in pixels.
    theme : str
        Of napari: dark or light.

    Attributes
    ----------
    clicks : int
        Of the mouse so far; a choice of a list is two, what is typed into a field one.
    """

    def __init__(self, out: Path, size: tuple[int, int] = SIZE, theme: str = "dark") -> None:
        self.out, self.size, self.clicks = out, size, 0
        self.film: list[Image.Image] | None = None
        self._taken = 0.0
        self._mouse: tuple[int, int] | None = None
        self.viewer = napari.Viewer()
        self.viewer.theme = theme
        self.viewer.window._qt_window.resize(*size)
        self.wait(0.5)

    def widget(self, name: str) -> Any:
        """Open one of the plugin's widgets."""
        dock, widget = self.viewer.window.add_plugin_dock_widget(NAME, name, tabify=True)
        dock.show()
        dock.raise_()
        self.wait(0.5)
        return widget

    def wait(self, seconds: float) -> None:
        """Let the window work for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def until(self, done: Callable[[], bool], seconds: float = 600) -> None:
        """Let the window work until something is so."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise TimeoutError("it never came to that")
            self.turn()

    def turn(self) -> None:
        """Let the window work for a moment; while a film is made, take its next picture when it is time."""
        QApplication.processEvents()
        time.sleep(0.005)
        if self.film is not None and time.monotonic() - self._taken > EVERY:
            self._taken = time.monotonic()
            picture = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
            if self._mouse is not None:
                x, y = (round(at * picture.width / self.size[0]) for at in self._mouse)
                ImageDraw.Draw(picture).ellipse((x - RING, y - RING, x + RING, y + RING), outline="orange", width=3)
            self.film.append(picture.resize(FILM, Image.Resampling.LANCZOS))

    def click(self, control: Any) -> None:
        """Press a button with the mouse, where it can be seen: what is scrolled away is brought into sight first."""
        native = self.reach(control)
        if not native.isEnabled():
            raise SystemExit(f"{control.text} cannot be pressed: it is grey")
        QTest.mouseClick(native, Qt.MouseButton.LeftButton)
        self.wait(0.4)

    def reach(self, control: Any) -> Any:
        """Bring a control into sight, as a wheel of the mouse does, and return the window's own part of it."""
        native, window = control.native, self.viewer.window._qt_window
        if not native.isVisible():
            raise SystemExit(f"{control.label or control} is not there")
        above = native.parent()
        while above is not None and not hasattr(above, "ensureWidgetVisible"):
            above = above.parent()
        if above is not None:
            above.ensureWidgetVisible(native)
        self.wait(0.1)
        middle = native.mapTo(window, native.rect().center())
        if not native.visibleRegion().contains(native.rect().center()):
            raise SystemExit(f"{control.label or control} is cut off at {self.size}")
        self._mouse = middle.x(), middle.y()
        self.clicks += 1
        self.wait(0.8 if self.film is not None else 0.05)
        return native

    def choose(self, control: Any, beginning: str) -> None:
        """Choose from a list what begins so."""
        native = self.reach(control)
        self.clicks += 1
        native.setFocus()
        found = [i for i in range(native.count()) if native.itemText(i).startswith(beginning)]
        if not found:
            raise SystemExit(f"{beginning} is not offered, but {[native.itemText(i) for i in range(native.count())]}")
        native.setCurrentIndex(found[0])
        self.wait(0.3)

    def write(self, control: Any, written: str) -> None:
        """Write into a field, and leave it."""
        native = self.reach(control)
        native.setFocus()
        native.selectAll()
        QTest.keyClicks(native.lineEdit() if hasattr(native, "lineEdit") else native, written)
        QTest.keyClick(native, Qt.Key.Key_Return)
        self.wait(0.3)

    def stroke(self, layer: Any, *points: tuple[float, ...]) -> None:
        """Paint on a layer of the canvas by a drag of the mouse; the points are pixels of the layer."""
        canvas = self.viewer.window._qt_viewer.canvas
        native = canvas.native
        places = [self._on_canvas(canvas, layer.data_to_world(point)) for point in points]
        self.clicks += 1
        QTest.mouseMove(native, places[0])
        QTest.mousePress(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[0])
        for place in places[1:]:
            QTest.mouseMove(native, place)
            self.wait(0.02)
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, places[-1])
        self.wait(0.1)

    def _on_canvas(self, canvas: Any, point: Any) -> QPoint:
        """Return where a point of the world is drawn, in pixels of the canvas."""
        camera = getattr(self.viewer, "scene", self.viewer).camera  # the viewer itself has it before napari 0.9
        shown = [point[axis] for axis in self.viewer.dims.displayed][-2:]
        size = canvas.native.size()
        y, x = ((at - middle) * camera.zoom for at, middle in zip(shown, camera.center[-2:], strict=True))
        return QPoint(round(size.width() / 2 + x), round(size.height() / 2 + y))

    def save_film(self, name: str) -> None:
        """Keep the film as a GIF, in which nothing stands still for long."""
        kept: list[Image.Image] = []
        still = 0
        for picture in self.film or []:
            still = still + 1 if kept and not ImageChops.difference(picture, kept[-1]).getbbox() else 0
            if still < MOST_STILL:
                kept.append(picture)
        palette = Image.new("RGB", (FILM[0], FILM[1] * 3))
        for at, share in enumerate((0, 0.4, 0.9)):
            palette.paste(kept[int(share * len(kept))], (0, at * FILM[1]))
        colours = palette.quantize(FILM_COLOURS, dither=Image.Dither.NONE)
        first, *others = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in kept]
        self.film = None
        first.save(self.out / f"{name}.gif", save_all=True, append_images=others, duration=SHOWN, loop=0, optimize=True)

    def shot(self, name: str) -> None:
        """Keep a picture of the whole window."""
        self.wait(0.6)
        picture = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(self.out / f"{name}.png", optimize=True)

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        self.wait(0.2)
