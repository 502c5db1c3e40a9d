"""What the data are: checked before anything is written, measured in one pass over the labels, block by block."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..errors import DataError
from ..grid.blocks import blocks
from ..intensities.normalise import Normalisation, Statistics, finite
from ..objects.labelling import Labelling
from .annotation import ObjectLabels, diameters, image_box, labelled_crops, read_labels
from .pixelsize import check_same_size

Pair = tuple[Stack, Stack]
PLACES = 2048  # voxels kept of each class and image: 48 KiB, and as many as steps that one image sees
MAX_VALUES = 64  # more are numbers of objects, or grey values
HASHED_BLOCKS = 64  # of an image: with the labels, which are hashed whole, enough to tell data apart


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StackFacts:
    """What is known of one labelled stack.

    Parameters
    ----------
    name, axes, shape, scale, units, dtype
        Of the image; `shape` and `scale` per axis of `axes`.
    counts : mapping of int to int
        Voxels of each label value.
    places : mapping of int to (N, axes of the labels) integer array
        A uniform sample of the voxels of each value, at most ``PLACES``. Value 0 has none where labels are sparse.
    statistics : Statistics
        Intensities of the image.
    digest : str
        SHA-256 of the labels and of a sample of the image.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    dtype: str
    counts: Mapping[int, int]
    places: Mapping[int, np.ndarray]
    statistics: Statistics
    digest: str

    def values_along(self, axes: str, field: str) -> tuple[Any, ...]:
        """Return `field` (shape, scale or units) for each of `axes`."""
        return tuple(getattr(self, field)[self.axes.index(a)] for a in axes)


@dataclasses.dataclass(frozen=True, slots=True)
class Intensities:
    """Of all images of pairs together, mean and standard deviation per channel.

    Parameters
    ----------
    channels : tuple of str
        Name of each channel of the target.
    """

    image: Statistics
    target: Statistics
    channels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What is known of all labelled stacks together.

    Parameters
    ----------
    sparse : bool
        Whether 0 means unlabelled.
    binary : bool
        Whether every value above 0 was taken as one class, 1.
    objects : ObjectLabels or None
        How ids were taken as objects; None where label values are classes.
    diameters : tuple of float
        Quartiles of the equivalent diameters of labelled objects, in voxels of the finest axis; empty if none was seen.
    intensities : Intensities or None
        Where the targets are images.
    blank : mapping of int to str
        Names of the images that are left out, by their place, because all of each is one value.
    labelling : Labelling or None
        What was seen in the labels.
    notes : tuple of str
        What was decided on the labels before they were measured.
    """

    stacks: tuple[StackFacts, ...]
    sparse: bool = False
    binary: bool = False
    diameters: tuple[float, ...] = ()
    objects: ObjectLabels | None = None
    intensities: Intensities | None = None
    blank: Mapping[int, str] = dataclasses.field(default_factory=dict)
    labelling: Labelling | None = None
    notes: tuple[str, ...] = ()

    def kept(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Return the pairs that are not left out."""
        return [pair for number, pair in enumerate(pairs) if number not in self.blank]

    @property
    def values(self) -> tuple[int, ...]:
        """Label values that are classes, in order."""
        found = {v for facts in self.stacks for v, n in facts.counts.items() if n}
        return tuple(sorted(found - {0} if self.sparse else found))

    @property
    def frequencies(self) -> dict[int, float]:
        """Share of the labelled voxels for each value of `values`."""
        total = {v: sum(facts.counts.get(v, 0) for facts in self.stacks) for v in self.values}
        return {v: n / sum(total.values()) for v, n in total.items()}

    @property
    def channels(self) -> int:
        """Number of image channels."""
        facts = self.stacks[0]
        return int(facts.values_along("c", "shape")[0]) if "c" in facts.axes else 1

    @property
    def spatial(self) -> str:
        """Spatial axes that all stacks have."""
        return "zyx" if all("z" in facts.axes for facts in self.stacks) else "yx"

    @property
    def digest(self) -> str:
        """SHA-256 over all stacks, their order included."""
        rows = [(f.axes, f.shape, f.scale, f.dtype, f.digest) for f in self.stacks]
        kinds = [self.objects.kinds] if self.objects is not None and self.objects.kinds else []
        return hashlib.sha256(json.dumps([rows, self.sparse, self.binary, *kinds]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return what a model's record keeps of it."""
        stacks = [
            {
                "name": f.name,
                "axes": f.axes,
                "shape": list(f.shape),
                "scale": list(f.scale),
                "dtype": f.dtype,
                "counts": {str(v): n for v, n in f.counts.items()},
            }
            for f in self.stacks
        ]
        return {"digest": self.digest, "sparse": self.sparse, "diameters": list(self.diameters), "stacks": stacks}


def fingerprint(
    pairs: Sequence[Pair],
    sparse: bool = False,
    binary: bool = False,
    training: "Fingerprint | None" = None,
    objects: ObjectLabels | None = None,
) -> Generator[tuple[int, int], None, Fingerprint]:
    """Check labelled stacks and measure them; memory of a few blocks, whatever the size.

    Parameters
    ----------
    pairs : sequence of (image, labels)
        Labels have the axes of the image without c.
    sparse : bool
        0 is unlabelled instead of background.
    binary : bool
        Take every label above 0 as one class.
    training : Fingerprint, optional
        Of what is learnt from, where `pairs` are what is validated on: they need no class of their own then, but none
        that is not learnt.
    objects : ObjectLabels, optional
        Where label values are ids of objects.

    Yields
    ------
    (done, total) blocks

    Raises
    ------
    DataError
        Image and labels that do not fit, labels that cannot be learnt from, NaN, infinite or constant intensities.
    """
    check_pairs(pairs)
    measured = [Normalisation().measure(image) for image, _ in pairs]
    blank = blank_of(pairs, [any(found.scale) for found in measured])
    pairs = [pair for number, pair in enumerate(pairs) if number not in blank]
    statistics = [found for number, found in enumerate(measured) if number not in blank]
    total = sum(len(list(blocks(labels.shape, labels.chunks))) for _, labels in pairs)
    done, stacks, seen = 0, [], dict[bytes, str]()
    for number, (image, labels) in enumerate(pairs):
        scan = _Scan(image, labels, sparse, binary, number, objects)
        for box in blocks(labels.shape, labels.chunks):
            scan.add(box)
            done += 1
            yield done, total
        stacks.append(scan.facts(statistics[number]))
        scan.check_new(seen, any(statistics[number].scale))
    crops = list(labelled_crops([labels for _, labels in pairs], [f.places for f in stacks], binary))
    looked = Labelling.of([crop.stored for crop in crops], None if objects is None else objects.background)
    found = Fingerprint(
        tuple(stacks), sparse, binary, diameters(crops, objects), objects, labelling=looked, blank=blank
    )
    _check_classes(found, training)
    return found


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Refuse pairs of image and labels that do not fit each other, or the other pairs.

    Raises
    ------
    DataError
        Naming the pair and what differs.
    """
    if not pairs:
        raise DataError("there is no labelled image; give at least one image with its labels")
    for image, labels in pairs:
        _check_pair(image, labels)
    first = pairs[0][0]
    for image, _ in pairs[1:]:
        if image.size("c") != first.size("c"):
            raise DataError(
                f"{image.name} has {image.size('c')} channels, {first.name} has {first.size('c')}; "
                "all images need the same channels"
            )


def _check_pair(image: Stack, labels: Stack) -> None:
    axes = image.axes.replace("c", "")
    if labels.axes != axes or labels.shape != image.values_along(axes, "shape"):
        raise DataError(
            f"{image.name} and its labels {labels.name} do not fit: image {image.axes} {image.shape}, "
            f"labels {labels.axes} {labels.shape}; the labels need {axes} {image.values_along(axes, 'shape')}"
        )
    if labels.dtype.kind not in "biu":
        raise DataError(f"{labels.name} has {labels.dtype} labels; convert them to integers")
    if image.dtype.kind not in "biuf":
        raise DataError(f"{image.name} has {image.dtype} intensities; convert them to real numbers")
    check_same_size(image, labels)


def blank_of(pairs: Sequence[Pair], varied: Sequence[bool]) -> dict[int, str]:
    """Return the names of images that hold one value, by their place; one blank image does not stop a training of many.

    Raises
    ------
    DataError
        Where all are such.
    """
    blank = {i: image.name for i, ((image, _), good) in enumerate(zip(pairs, varied, strict=True)) if not good}
    if len(blank) == len(pairs):
        names = ", ".join(list(blank.values())[:3])
        raise DataError(f"{names}: constant, of one value or with a channel of one; there is nothing to learn from")
    return blank


class _Scan:
    """Counts, places and hash of one stack, gathered block by block."""

    def __init__(
        self, image: Stack, labels: Stack, sparse: bool, binary: bool, number: int, objects: ObjectLabels | None
    ) -> None:
        self.image, self.labels, self.sparse, self.binary, self.objects = image, labels, sparse, binary, objects
        self._counts: dict[int, int] = {}
        self._keys: dict[int, np.ndarray] = {}
        self._places: dict[int, np.ndarray] = {}
        self._hash, self._pixels = hashlib.sha256(), hashlib.sha256(str(image.shape).encode())
        self._rng = np.random.default_rng([number, PLACES])
        every = math.ceil(sum(1 for _ in blocks(labels.shape, labels.chunks)) / HASHED_BLOCKS)
        self._all_hashed = every == 1
        self._hashed = itertools.cycle([True] + [False] * (every - 1))

    def add(self, box: Box) -> None:
        """Take in one block."""
        data = read_labels(self.labels, box, self.binary)
        self._hash.update(data.tobytes())
        if next(self._hashed):
            region = image_box(self.image, box)
            pixels = finite(self.image.read(region), self.image, region).tobytes()
            self._hash.update(pixels)
            self._pixels.update(pixels)
        if self.objects is not None:
            data = self.objects.classes(data)
        values, counts = _unique(data)
        if len(self._counts.keys() | set(values)) > MAX_VALUES:
            raise DataError(
                f"{self.labels.name} has more than {MAX_VALUES} label values, too many for classes; "
                "if they are numbers of objects, learn those with --task instances, or take every label above 0 as one "
                "class with --binary; of a mask with grey edges with --binary --above 127"
            )
        for value, count in zip(values, counts, strict=True):
            self._counts[value] = self._counts.get(value, 0) + count
            if value or not self.sparse:
                self._sample(value, np.flatnonzero(data == value), data.shape, box)

    def check_new(self, seen: dict[bytes, str], varies: bool) -> None:
        """Refuse an image of which each pixel is that of another one; blank ones may be alike.

        Raises
        ------
        DataError
            Naming both: one would be learnt from twice, or held out and learnt from.
        """
        if not (self._all_hashed and varies):
            return
        found = self._pixels.digest()
        if found in seen:
            raise DataError(
                f"{self.image.name} is the same image as {seen[found]}; give it once, or what is held out is learnt "
                "from too"
            )
        seen[found] = self.image.name

    def _sample(self, value: int, found: np.ndarray, shape: tuple[int, ...], box: Box) -> None:
        """Keep the places with the smallest random keys: a uniform sample of all that were seen."""
        keys = self._rng.random(len(found))
        least = np.argpartition(keys, PLACES)[:PLACES] if len(keys) > PLACES else np.arange(len(keys))
        places = np.stack(np.unravel_index(found[least], shape), 1) + [part.start for part in box]
        keys = np.concatenate([self._keys.get(value, np.empty(0)), keys[least]])
        places = np.concatenate([self._places.get(value, np.empty((0, len(shape)), int)), places])
        order = np.argsort(keys)[:PLACES]
        self._keys[value], self._places[value] = keys[order], places[order].astype(np.int64)

    def facts(self, statistics: Statistics) -> StackFacts:
        """Return what was gathered."""
        image = self.image
        counts = dict(sorted(self._counts.items()))
        return StackFacts(
            image.name,
            image.axes,
            image.shape,
            image.scale,
            image.units,
            str(image.dtype),
            counts,
            dict(sorted(self._places.items())),
            statistics,
            self._hash.hexdigest(),
        )


def _unique(data: np.ndarray) -> tuple[list[int], list[int]]:
    if data.dtype == np.uint8:
        counts = np.bincount(data.ravel(), minlength=1)
        values = np.flatnonzero(counts)
        return values.tolist(), counts[values].tolist()
    values, counts = np.unique(data, return_counts=True)
    return values.tolist(), counts.tolist()


def _check_classes(found: Fingerprint, training: Fingerprint | None) -> None:
    """Refuse labels that nothing can be learnt from."""
    names = ", ".join(f.name for f in found.stacks[:3]) + (", ..." if len(found.stacks) > 3 else "")
    if training is not None:
        strange = sorted(set(found.values) - set(training.values) - ({0} if _fill_all(training) else set()))
        if strange or not found.values:
            what = (
                f"have the value {strange[0]}, which is not in the training labels" if strange else "are not annotated"
            )
            raise DataError(f"the validation labels of {names} {what}; correct them")
        return
    if not found.values:
        raise DataError(f"nothing is annotated in the labels of {names}; paint some of each class (0 is unlabelled)")
    if len(found.values) > 1 or _fill_all(found):
        return
    value, count = found.values[0], sum(f.counts.get(found.values[0], 0) for f in found.stacks)
    if value == 0:
        raise DataError(f"the labels of {names} are only background (0, {count} voxels); label some objects")
    hint = "paint a second class, background too" if found.sparse else "label the background as 0"
    raise DataError(f"the labels of {names} hold one class only ({value}: {count} voxels); {hint}")


def _fill_all(found: Fingerprint) -> bool:
    """Whether several objects leave no background, as in a crop of a tissue: their borders are learnt."""
    several = found.labelling is not None and found.labelling.values > 1
    return several and found.objects is not None and not found.sparse and 0 not in found.values
