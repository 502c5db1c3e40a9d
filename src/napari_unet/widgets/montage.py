"""Small pictures of the results of a folder side by side, so that the odd one is seen."""

import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from ..errors import DataError, UnetError
from .source import OURS

if TYPE_CHECKING:
    from .. import Stack

SIZE = 96  # pixels of a picture: three beside each other in a dock
SPACE, TEXT = 4, 40  # pixels between two pictures, and of two lines below each
LETTERS = 13  # that are as wide as a picture
HEIGHT = 320  # pixels of the list: about three rows
SHARE = 0.45  # of a label's colour over the image
ODD = 3.5  # robust standard deviations from the median (Iglewicz and Hoaglin 1993)
TO_SD = 1.4826  # from the median distance to a standard deviation, of a normal distribution
LEAST = 5  # results below which none can be called odd
ODD_COLOUR = "#E69F00"


class Montage(QListWidget):
    """The pictures, each with its name and count; those whose count is unlike the others' are marked."""

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListWidget.ViewMode.IconMode)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMovement(QListWidget.Movement.Static)
        self.setIconSize(QSize(SIZE, SIZE))
        self.setGridSize(QSize(SIZE + 2 * SPACE, SIZE + TEXT))
        self.setMinimumHeight(HEIGHT)
        self.setAccessibleName("Montage of the results")
        self._items: dict[str, QListWidgetItem] = {}

    def put(self, file: str, picture: np.ndarray) -> None:
        """Show the picture of a result, (Y, X, 3) uint8."""
        data = np.ascontiguousarray(picture)
        height, width, _ = data.shape
        image = QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        item = self._items.get(file)
        if item is None:
            self._items[file] = item = QListWidgetItem(self)
        item.setIcon(QIcon(QPixmap.fromImage(image.copy())))
        item.setData(Qt.ItemDataRole.UserRole, file)

    def name(self, counts: dict[str, int]) -> None:
        """Write below each picture what was found, and mark what is unlike the others."""
        strange = odd(counts)
        for file, item in self._items.items():
            count = f"{counts[file]:,}" if file in counts else ""
            item.setText(f"{_short(Path(file).name)}\n{count}")
            item.setForeground(QColor(ODD_COLOUR) if file in strange else self.palette().text())
            far = "; far from the others" if file in strange else ""
            item.setToolTip(f"{file}: {count or 'no count'}{far}. Double click shows image and result.")

    def file_of(self, item: QListWidgetItem) -> str:
        """Return the file that a picture is of."""
        return str(item.data(Qt.ItemDataRole.UserRole))

    def clear(self) -> None:
        """Take all pictures away."""
        self._items = {}
        super().clear()


def _short(name: str) -> str:
    """Return a name that fits below a picture; its end tells more than its middle."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS // 3]}…{name[-(LETTERS - LETTERS // 3 - 1) :]}"


def odd(counts: dict[str, int]) -> set[str]:
    """Return the files whose count is far from the median, by the median distance from it.

    References
    ----------
    Iglewicz and Hoaglin 1993, How to detect and handle outliers.
    """
    values = np.array(list(counts.values()), float)
    if len(values) < LEAST:
        return set()
    distance = np.abs(values - np.median(values))
    usual = max(float(np.median(distance)) * TO_SD, np.sqrt(max(float(np.median(values)), 1.0)))  # of counts, at least
    return {file for file, far in zip(counts, distance, strict=True) if far > ODD * usual}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small picture of the result of a file."""

    file: str
    data: np.ndarray


def pictures(results: Sequence[tuple[str, Path]]) -> Generator[Picture, None, None]:
    """Yield a picture of each result that can be read: its labels over the small image that it holds."""
    for file, root in results:
        try:
            yield Picture(file, picture(root))
        except (UnetError, OSError):
            continue  # what is wrong with it is said when it is opened


def picture(root: Path) -> np.ndarray:
    """Return a small picture of a result, (Y, X, 3) uint8.

    Raises
    ------
    UnetError
        Where it cannot be read.
    """
    from ..evaluation.figures import grey  # not at the top: pictures are made in another process

    labels_at = _labels_in(root)
    labels = None if labels_at is None else _plane(_coarse(labels_at))
    try:
        image = _plane(_coarse(str(root)))
    except DataError:
        if labels is None:
            raise
        image = np.zeros(labels.shape)  # a result may hold no small image
    rgb = grey(np.nan_to_num(image if labels is None else _at(image, labels.shape)), gamma=1)
    if labels is not None:
        inside = labels > 0
        rgb[inside] = (1 - SHARE) * rgb[inside] + SHARE * _colours(labels)[inside]
    return rgb


def _labels_in(root: Path) -> str | None:
    """Return where the labels of a result lie, None of an image."""
    from ..sources.omezarr import CLASSES, labels_inside
    from ..sources.zarrmeta import below, read_node

    node = read_node(str(root))
    if node is None:
        return None
    ours = node.attributes.get(OURS)
    result = str(ours.get("result", "")) if isinstance(ours, dict) else ""
    inside = [name for name in labels_inside(node) if not name.endswith(CLASSES)]
    name = result if result.startswith("labels/") else next(iter(inside), None)
    return None if name is None else below(str(root), name)


def _coarse(where: str) -> "Stack":
    """Open the coarsest level of an image."""
    from ..sources import open_stack
    from ..sources.omezarr import levels_there, ome, pyramid
    from ..sources.zarrmeta import read_node

    node = read_node(where)
    if node is None or "multiscales" not in ome(node):
        return open_stack(where)
    return open_stack(where, level=levels_there(pyramid(node))[-1])


def _plane(stack: "Stack") -> np.ndarray:
    """Return the middle plane of the first channel of the coarsest level, at most `SIZE` wide and high."""
    box = []
    for axis, n in zip(stack.axes, stack.shape, strict=True):
        middle = 0 if axis == "c" else n // 2
        box.append(slice(0, n) if axis in "yx" else slice(middle, middle + 1))
    plane = stack.read(tuple(box)).reshape(stack.size("y"), stack.size("x"))
    step = max(1, -(-max(plane.shape) // SIZE))
    return plane[::step, ::step]


def _at(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a plane at another size, by the nearest pixel."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, plane.shape, strict=True))
    return plane[np.ix_(rows, columns)]


def _colours(labels: np.ndarray) -> np.ndarray:
    """Return a bright colour for each label, the same for the same number."""
    golden = 0.618033988749895  # the golden ratio: neighbours in number are far apart in hue
    hue = (labels.astype(np.int64) * golden) % 1.0
    return np.stack([255 * np.clip(np.abs((hue * 6 + shift) % 6 - 3) - 1, 0, 1) for shift in (0.0, 4.0, 2.0)], -1)
