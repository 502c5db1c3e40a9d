"""Open a result and its truth, hold them against each other, and cut them into blocks."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics import unsigned
from ..sources import list_images, open_labels, open_stack, pair_paths
from ..stack import Box, Stack
from .report import PLAIN, file_suffix

BLOCK = 2**22
SCALE_TOLERANCE = 0.01
Opener = Callable[..., Stack]


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A result and its truth, of one shape.

    Parameters
    ----------
    result, truth : Stack
        Without axes of size 1, but for y and x.
    suffix : str
        What scores of this pair are called by, where there are several.
    notes : tuple of str
    """

    result: Stack
    truth: Stack
    suffix: str = PLAIN
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis of both."""
        return self.truth.shape

    @property
    def voxels(self) -> int:
        """Number of voxels of each."""
        return math.prod(self.shape)

    def frames(self) -> list["Pair"]:
        """Return a pair for each time point; itself where there is no time."""
        times = [stack.axes.index("t") for stack in (self.truth, self.result) if "t" in stack.axes][:1]
        if not times:
            return [self]
        letters = [stack.axes[times[0]] for stack in (self.result, self.truth)]
        parts = (
            [s.select(**{a: i}) for s, a in zip((self.result, self.truth), letters, strict=True)]
            for i in range(self.shape[times[0]])
        )
        return [Pair(*part, self.suffix) for part in parts]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read both block by block, aligned with their chunks: (result, truth)."""
        step = _step(self.shape, self.result.chunks, self.truth.chunks)
        for box in _boxes(self.shape, step):
            yield self.result.read(box), self.truth.read(box)

    def labels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read both block by block as unsigned integers.

        Raises
        ------
        DataError
            Where labels are not integers of 0 and above.
        """
        for result, truth in self.blocks():
            yield unsigned(result, _name(self.result)), unsigned(truth, _name(self.truth))

    def planes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read both plane by plane, (Y, X); as many at a time as their chunks hold."""
        chunks = np.maximum(self.result.chunks, self.truth.chunks)[:-2].tolist()
        for box in _boxes(self.shape, (*chunks, *self.shape[-2:])):
            result, truth = self.result.read(box), self.truth.read(box)
            for at in np.ndindex(truth.shape[:-2]):
                yield result[at], truth[at]


def _step(shape: Sequence[int], *chunks: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a block: whole chunks, as far as memory allows."""
    step = [min(n, max(c)) for n, *c in zip(shape, *chunks, strict=True)]
    for axis in range(len(step)):
        while math.prod(step) > BLOCK and step[axis] > 1:
            step[axis] = math.ceil(step[axis] / 2)
    for axis in reversed(range(len(step))):
        while step[axis] < shape[axis] and math.prod(step) * 2 <= BLOCK:
            step[axis] *= 2
    return tuple(min(s, n) for s, n in zip(step, shape, strict=True))


def _boxes(shape: Sequence[int], step: Sequence[int]) -> Iterator[Box]:
    parts = ([slice(i, min(i + s, n)) for i in range(0, n, s)] for n, s in zip(shape, step, strict=True))
    return itertools.product(*parts)


def open_pairs(result: Any, truth: Any, axes: str | None, kind: str | None) -> tuple[str | None, list[Pair]]:
    """Open what is to be compared.

    Parameters
    ----------
    result, truth
        Two things that open as stacks, or two folders of such files.
    axes : str, optional
        One letter a dimension, for both.
    kind : str, optional
        "intensity" opens images, everything else labels.

    Returns
    -------
    kind : "intensity" where none was given and both hold real numbers, otherwise as given
    pairs : list of Pair

    Raises
    ------
    DataError
        Where something cannot be opened, has no partner, or differs in shape or pixel size.
    """
    folders = [_is_folder(what) for what in (result, truth)]
    if any(folders) and not all(folders):
        raise DataError(
            f"{result} and {truth}: one is a folder of images, the other is not; give two folders or two images"
        )
    if not all(folders):
        kind, pair = _open_pair(result, truth, axes, kind)
        return kind, [pair]
    pairs = []
    for one, other in pair_paths([result], [truth]):
        kind, pair = _open_pair(one, other, axes, kind)
        pairs.append(dataclasses.replace(pair, suffix=file_suffix(pair_stem(other))))
    return kind, pairs


def pair_stem(path: Path) -> str:
    """Return the name of a file up to its endings: ``a`` of ``a.ome.zarr``."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def _is_folder(what: Any) -> bool:
    if not isinstance(what, str | Path):
        return False
    path = Path(what).expanduser()
    return path.is_dir() and list_images(path) != [path]


def _open_pair(result: Any, truth: Any, axes: str | None, kind: str | None) -> tuple[str | None, Pair]:
    if kind == "intensity":
        return kind, _aligned(*_open_both(open_stack, result, truth, axes))
    try:
        return kind, _aligned(*_open_both(open_labels, result, truth, axes))
    except DataError:
        if kind is not None or not all(_is_real(what, axes) for what in (result, truth)):
            raise
    return "intensity", _aligned(*_open_both(open_stack, result, truth, axes))


def _is_real(what: Any, axes: str | None) -> bool:
    """Say whether it opens as an image of real numbers."""
    try:
        return open_stack(what, axes).dtype.kind == "f"
    except DataError:
        return False


def _open_both(opener: Opener, result: Any, truth: Any, axes: str | None) -> tuple[Stack, Stack, str]:
    """Open both; the axes of one serve for the other where nothing says what its own are."""
    opened: list[Stack | DataError] = []
    for what in (result, truth):
        try:
            opened.append(opener(what, axes))
        except DataError as error:
            opened.append(error)
    one, other = opened
    if isinstance(one, Stack) and isinstance(other, Stack):
        return one, other, ""
    if isinstance(one, Stack) and isinstance(other, DataError):
        other = _reopened(opener, truth, one, other)
        return one, other, f"{_name(other)} does not name its axes; they are taken as {one.axes}, as of {_name(one)}"
    if isinstance(other, Stack) and isinstance(one, DataError):
        one = _reopened(opener, result, other, one)
        return one, other, f"{_name(one)} does not name its axes; they are taken as {other.axes}, as of {_name(other)}"
    raise next(error for error in opened if isinstance(error, DataError))


def _reopened(opener: Opener, what: Any, like: Stack, error: DataError) -> Stack:
    """Open `what` with the axes of another stack; where that fails too, raise the first error."""
    try:
        return opener(what, like.axes)
    except DataError:
        raise error from None


def _aligned(result: Stack, truth: Stack, note: str) -> Pair:
    """Drop axes of size 1, and refuse what differs in shape or pixel size."""
    one, other = _squeezed(result), _squeezed(truth)
    if one.shape != other.shape:
        raise DataError(
            f"{_name(result)} has the shape {result.shape} ({result.axes}), {_name(truth)} {truth.shape} ({truth.axes}); "
            "give a result and a truth of the same image"
        )
    notes = [note] if note else []
    if one.axes != other.axes:
        notes.append(f"the axes {one.axes} of {_name(result)} are taken as {other.axes} of {_name(truth)}")
    _check_scale(one, other)
    return Pair(one, other, PLAIN, (*result.notes, *truth.notes, *notes))


def _squeezed(stack: Stack) -> Stack:
    return stack.select(**{a: 0 for a, n in zip(stack.axes, stack.shape, strict=True) if n == 1 and a not in "yx"})


def _check_scale(result: Stack, truth: Stack) -> None:
    """Refuse pixel sizes that both give, in the same unit, and that differ."""
    for axis in truth.spatial:
        if axis not in result.spatial:
            continue
        (one, other), units = ((s.along(axis, f)[0] for s in (result, truth)) for f in ("scale", "units"))
        if len(set(units)) == 1 and 1 not in (one, other) and abs(one / other - 1) > SCALE_TOLERANCE:
            raise DataError(
                f"{_name(result)} has a pixel size of {one:g} along {axis}, {_name(truth)} of {other:g}; give a result and "
                "a truth of the same resolution, or correct the scale"
            )


def _name(stack: Stack) -> str:
    return stack.source or stack.name
