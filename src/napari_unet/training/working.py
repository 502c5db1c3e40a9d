"""The pixel size at which objects are learnt, chosen from how large they are and how far the network sees."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ..arrays.resample import ResampledLabels, ResampledScribbles, resampled
from ..arrays.stack import Stack
from ..model import Model
from ..network import LearntConfig, footprint
from ..objects.labelling import numbered
from ..units import factor, is_length
from .annotation import Crop, equivalent_diameters, labelled_crops
from .config import TrainConfig
from .fingerprint import Fingerprint, Pair

# Diameters, in pixels, of objects that are learnt as they are. A network sees about 90 pixels to each side in 2-D on a
# processor: past an object of 60, not past one of 116, of which it finds no border (DIC-HeLa: AP50 0.03, at 30 0.6).
LARGEST, TARGET, SMALLEST = 60.0, 36.0, 24.0
NARROWEST = 12.0  # pixels across thin objects that shrinking leaves, so that they keep an inside between two borders
THIN, MOST = 9.0, 2.0  # narrower objects are enlarged, at most so many times, as the work grows with the area
WORTH = 1.2  # a smaller change is what augmentation shows anyway
IMAGES = 24  # that are measured, evenly among all
PLANES = 3  # of a volume that a 2-D network sees, the fullest


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectSize:
    """How large objects are: medians over images of the median of each, in voxels of the finest axis.

    Parameters
    ----------
    diameter : float
        Of a disk or ball as large.
    width : float
        Twice the largest distance from the edge.
    """

    diameter: float
    width: float


def object_size(pairs: Sequence[Pair], facts: Fingerprint, ndim: int) -> ObjectSize | None:
    """Measure the complete objects of labels, or those that are cut off where there are no others; None for none."""
    places = [each.places for each in facts.stacks]
    crops = labelled_crops([labels for _, labels in facts.kept(pairs)], places, facts.binary, IMAGES)
    found = [sizes for crop in crops for part in _parts(crop, ndim) if (sizes := _sizes(*part, facts)) is not None]
    whole = [sizes for complete, *sizes in found if complete] or [sizes for _, *sizes in found]
    return ObjectSize(*map(float, np.median(whole, axis=0))) if whole else None


def _parts(crop: Crop, ndim: int) -> Iterator[tuple[np.ndarray, tuple[float, ...]]]:
    """Yield what a network of these dimensions sees of a crop, and its spacing."""
    if crop.data.ndim == ndim:
        yield crop.data, crop.spacing
        return
    spacing = tuple(s / min(crop.spacing[1:]) for s in crop.spacing[1:])
    for z in np.argsort((crop.data > 0).sum((1, 2)))[-PLANES:]:
        yield crop.data[z], spacing


def _sizes(labels: np.ndarray, spacing: tuple[float, ...], facts: Fingerprint) -> tuple[bool, float, float] | None:
    """Return whether objects are complete, and the medians of their diameters and widths."""
    background = facts.objects.background if facts.objects is not None else None
    ids = numbered(labels if background is None else np.where(labels == background, 0, labels))
    counts = np.bincount(ids.ravel())
    counts[0] = 0
    edges = [np.unique(ids.take((0, -1), axis)) for axis in range(ids.ndim) if ids.shape[axis] > 1]
    cut = np.zeros(len(counts), bool)
    cut[np.concatenate(edges)] = True
    complete = bool((counts[~cut] > 0).any())
    counts[cut & complete] = 0
    sizes = equivalent_diameters(counts, ids.ndim, float(np.prod(spacing)))
    if not sizes:
        return None
    inner = (ndimage.minimum_filter(ids, 3) == ndimage.maximum_filter(ids, 3)) & (ids > 0)
    depth = ndimage.distance_transform_edt(np.pad(inner, 1), spacing)[(slice(1, -1),) * ids.ndim]
    widths = 2 * ndimage.maximum(depth, ids, np.flatnonzero(counts)) + 1
    return complete, float(np.median(sizes)), float(np.median(widths))


@dataclasses.dataclass(frozen=True, slots=True)
class Working:
    """At which pixel size objects are learnt.

    Parameters
    ----------
    axes : str
        Of the network.
    shrink : tuple of float
        Pixels of an image that make one, per axis; all 1 where images are learnt as they are.
    spacing : tuple of float
        What that is for images with a pixel size, in `units`.
    diameter : float or None
        Of objects then.
    reason : str
        Why it is so, for the reader.
    """

    axes: str
    shrink: tuple[float, ...]
    spacing: tuple[float, ...]
    units: tuple[str | None, ...]
    diameter: float | None = None
    reason: str = ""

    @property
    def changes(self) -> bool:
        """Whether images are brought to another pixel size."""
        return any(s != 1 for s in self.shrink)

    def brought(self, pairs: Sequence[Pair], sparse: bool) -> list[Pair]:
        """Return image and labels at this pixel size, lazily."""
        return [self._brought(image, labels, sparse) for image, labels in pairs]

    def _brought(self, image: Stack, labels: Stack, sparse: bool) -> Pair:
        ratios = dict(zip(self.axes, self.shrink, strict=True))
        units = image.values_along(self.axes, "units")
        if all(map(is_length, (*units, *self.units))):  # images of several pixel sizes all come to one
            ratios = {
                a: s * (factor(u, own) or 1.0) / size
                for a, s, u, own, size in zip(
                    self.axes, self.spacing, self.units, units, image.scale_along(self.axes), strict=True
                )
            }
        kind = ResampledScribbles if sparse else ResampledLabels
        sides = []
        for stack, how in ((image, None), (labels, kind)):
            scale = {a: r * size for (a, r), size in zip(ratios.items(), stack.scale_along(self.axes), strict=True)}
            sides.append(resampled(stack, scale, how))
        place: dict[str, Any] = {
            name: sides[0].values_along(sides[1].axes, name) for name in ("scale", "units", "translation")
        }
        return dataclasses.replace(sides[0], notes=image.notes), dataclasses.replace(
            sides[1], notes=labels.notes, **place
        )


def choose_working(
    size: ObjectSize | None,
    network: LearntConfig,
    place: tuple[tuple[float, ...], tuple[str | None, ...]],
    config: TrainConfig,
    init: Model | None = None,
) -> Working:
    """Choose the pixel size at which objects are learnt.

    Parameters
    ----------
    network : LearntConfig
        As it is planned for the images as they are: how far it sees.
    place : (spacing, units)
        Pixel size of the images, per axis of the network.
    """
    spacing, units = place
    across = config.diameter if config.diameter is not None else size.diameter if size is not None else None
    times = _times(size, across, network, config, init)
    at = min(spacing)
    fine = [s <= at * WORTH * MOST for s in spacing]
    shrink = tuple(
        times if times < 1 and near else max(1.0, at * times / s) if times > 1 else 1.0
        for s, near in zip(spacing, fine, strict=True)
    )
    new = tuple(s * f for s, f in zip(spacing, shrink, strict=True))
    found = None if across is None else across * at / min(new)
    reason = _reason(across, found, times) if any(f != 1 for f in shrink) else ""
    return Working("zyx"[-len(spacing) :], shrink, new, units, found, reason)


def _times(
    size: ObjectSize | None, across: float | None, network: LearntConfig, config: TrainConfig, init: Model | None
) -> float:
    """Return how many pixels of the finest axis are made one."""
    if config.working_pixel_size is not None:
        return config.working_pixel_size
    if across is None:
        return 1.0
    if init is not None:
        return across / init.diameter if init.shrink and init.diameter is not None else 1.0
    width = size.width if size is not None else across
    sight = max(footprint(network).halo[-2:]) or max(footprint(network).margin[-2:])
    if across > LARGEST or across > max(sight, SMALLEST):
        times = min(across / min(TARGET, max(sight, SMALLEST)), width / NARROWEST)
        return times if times > WORTH else 1.0
    if width < THIN:
        times = max(width / NARROWEST, 1 / MOST)
        return times if times < 1 / WORTH else 1.0
    return 1.0


def _reason(across: float | None, found: float | None, times: float) -> str:
    shrunk = times > 1
    way = f"shrunk {times:.3g} times" if shrunk else f"enlarged {1 / times:.3g} times"
    so = "so that the network sees past an object" if shrunk else "so that thin objects keep an inside"
    if across is None or found is None:
        return f"images are {way} to be learnt from; results lie at the image's own pixels"
    return (
        f"objects are about {across:.3g} pixels across: images are {way}, to {found:.3g}, {so}; results lie at the "
        "image's own pixels"
    )
