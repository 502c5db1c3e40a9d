"""Whether two stacks show the same pixels: labels and their image, a result and its truth."""

import dataclasses

from ..arrays.stack import SPATIAL, Stack
from ..errors import DataError
from ..units import factor, is_meant, short
from .formats.table import FORMATS, ending_of
from .open import PICTURE_ENDINGS, TIFF_ENDINGS

ROUNDING = 0.05  # of a pixel: positions are written with few digits
SIZE = ("scale", "units")
SAME_FRAME = 1e-4  # difference of two matrices of the same turn


def brought_together(image: Stack, labels: Stack) -> tuple[Stack, Stack]:
    """Cut an image and its labels to the pixels that both show, by where they say that they lie.

    Stacks of which one says no position are taken as lying on each other. What was cut, or taken so, is a note of the
    labels that are returned.

    Parameters
    ----------
    image, labels : Stack
        Both with pixels of one size.

    Raises
    ------
    DataError
        Where they lie elsewhere and cutting does not help: turned, apart, or off by parts of a pixel.
    """
    axes = "".join(a for a in labels.axes if a in SPATIAL)
    if not set(axes) <= set(image.axes):
        return image, labels
    if not _is_placed(image, labels, written=True) or not _is_placed(labels, image, written=False):
        return image, _noted(labels, _unplaced(image, labels, axes))
    _check_frames(image, labels, axes)
    offsets = {a: offset for a, offset in zip(axes, _offsets(image, labels, axes), strict=True)}
    if all(abs(offset) < 1 - ROUNDING for offset in offsets.values()):
        return image, _noted(labels, _unsized(image, labels, axes))
    if any(abs(offset - round(offset)) > ROUNDING for offset in offsets.values()):
        raise DataError(
            f"{_where(image, labels, axes)}, which is {_pixels(offsets)} and no whole number of pixels; resample the "
            "labels to the image, or correct its position"
        )
    ours, theirs = {}, {}
    for axis, offset in offsets.items():
        shift = round(offset)
        start, stop = max(shift, 0), min(shift + labels.size(axis), image.size(axis))
        if start >= stop:
            raise DataError(
                f"{_where(image, labels, axes)}: they do not overlap; pair others, or correct the position "
                "of one of them"
            )
        ours[axis], theirs[axis] = slice(start, stop), slice(start - shift, stop - shift)
    note = f"{_where(image, labels, axes)}, {_pixels(offsets)} off: only what both show is taken"
    return image.select(**ours), _noted(labels.select(**theirs), note)


def _is_placed(stack: Stack, other: Stack, written: bool) -> bool:
    """Say whether a stack says where it lies, for one that is to lie on `other`.

    TIFFs, pictures and most other files have no field for it, and label images are often written without: there 0 says
    nothing, unless positions are `written` with such files. A layer always says it. Where there is no pixel size, only
    a position in pixels can be meant for the same grid.
    """
    if stack.frame or any(stack.values_along(stack.spatial, "translation")):
        return True
    if stack.source is not None:
        return written and ending_of(stack.source) not in (*TIFF_ENDINGS, *PICTURE_ENDINGS, *FORMATS)
    return _is_sized(stack) or not _is_sized(other)


def _is_sized(stack: Stack) -> bool:
    return any(is_meant(*each) for each in zip(*(stack.values_along(stack.spatial, f) for f in SIZE), strict=True))


def _check_frames(image: Stack, labels: Stack, axes: str) -> None:
    """Refuse layers of which one is turned, sheared or moved otherwise than the other."""
    one, other = ({(a, b): v for a, b, v in s.frame if {a, b} <= {*axes, ""}} for s in (image, labels))
    rest = {(a, b): float(a == b) for a in axes for b in (*axes, "")}
    off = [abs((one or rest).get(key, 0.0) - (other or rest).get(key, 0.0)) for key in rest]
    turned = any(abs(v - rest.get(key, 0.0)) > SAME_FRAME for key, v in one.items())
    apart = turned and any(abs(offset) > ROUNDING for offset in _offsets(image, labels, axes))
    if max(off) > SAME_FRAME or apart:
        raise DataError(
            f"the layers {image.name} and {labels.name} are turned, sheared or moved otherwise in the viewer; give the "
            "labels rotate, shear, affine and translate of their image"
        )


def _offsets(image: Stack, labels: Stack, axes: str) -> list[float]:
    """Return how many pixels of the image the labels begin after it, per axis."""
    found = []
    for axis in axes:
        (at, size, unit), (to, step, other) = (
            tuple(s.values_along(axis, f)[0] for f in ("translation", *SIZE)) for s in (image, labels)
        )
        if (image.frame and labels.frame) or is_meant(step, other):
            found.append((to * (factor(other, unit) or 1.0) - at) / size)
        else:  # a position in pixels
            found.append(to / step - at / size)
    return found


def _where(image: Stack, labels: Stack, axes: str) -> str:
    """Say where both lie."""
    places = []
    for stack in (image, labels):
        ends = zip(stack.values_along(axes, "translation"), stack.values_along(axes, "units"), strict=True)
        places.append(", ".join(f"{position:.6g} {short(unit)}".strip() for position, unit in ends))
    return f"{labels.name} lies at {axes} ({places[1]}), {image.name} at ({places[0]})"


def _pixels(offsets: dict[str, float]) -> str:
    return ", ".join(f"{offset:.4g} pixels along {axis}" for axis, offset in offsets.items())


def _unplaced(image: Stack, labels: Stack, axes: str) -> str:
    """Return a note where one of two has a position and the other none; nothing where both are at 0."""
    if not any(image.values_along(axes, "translation")) and not any(labels.values_along(axes, "translation")):
        return ""
    where = _where(image, labels, axes)
    return f"{where}, but one of them has no position of its own: taken as lying on each other, pixel by pixel"


def _unsized(image: Stack, labels: Stack, axes: str) -> str:
    """Return a note on layers that appear of different size in the viewer, as one has no pixel size."""
    sizes = zip(image.values_along(axes, "scale"), labels.values_along(axes, "scale"), strict=True)
    if not (image.frame and labels.frame) or all(abs(a - b) <= 1e-3 * a for a, b in sizes):
        return ""
    if _is_sized(image) and _is_sized(labels):
        return ""  # compared where their units are known
    return (
        f"the layers {image.name} and {labels.name} have the scale {image.values_along(axes, 'scale')} and "
        f"{labels.values_along(axes, 'scale')}: taken as lying on each other, pixel by pixel, although they do not in "
        "the viewer; give both one scale"
    )


def _noted(labels: Stack, note: str) -> Stack:
    return dataclasses.replace(labels, notes=(*labels.notes, note)) if note else labels
