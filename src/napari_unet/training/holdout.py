"""What is held out for validation: some of each kind of image, so that the best epoch is chosen on what is learnt."""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..errors import DataError
from .annotation import ObjectLabels, diameters, labelled_crops
from .split import Sample

HELD_OUT = 0.2  # a fifth, as in five-fold cross-validation
FEWEST_IMAGES = 6  # of a kind: with fewer, one that is held out whole is more than a fifth of what there is to learn
FEWEST_PLANES = 5  # of which one is a fifth
SMALLEST_REGION = 8  # elements of an axis: less is not a region of its own, but border
TRIES = 64  # divisions that are tried for one with all classes in both parts
# Octaves between neighbours in order that make two kinds: a factor of 1.4 of sizes, where augmentation still helps, and
# of 2 of intensities, which exposure alone changes.
SIZES_APART, INTENSITIES_APART = 0.5, 1.0

Cut = tuple[int, int, bool]  # axis, where, whether the part behind is held out


@dataclasses.dataclass(frozen=True, slots=True)
class Division:
    """Which images, and which regions of others, are held out.

    Parameters
    ----------
    whole : tuple of int
        Numbers of images that are held out whole.
    regions : tuple of (int, int, int, bool)
        Of an image the axis of its labels that is cut, where, and whether the part behind the cut is held out; what is
        left of an image may be cut again.
    kinds : int
        Of images that were told apart; 0 where none were.
    """

    whole: tuple[int, ...] = ()
    regions: tuple[tuple[int, int, int, bool], ...] = ()
    kinds: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the record of a training."""
        return {"whole": list(self.whole), "regions": [list(cut) for cut in self.regions], "kinds": self.kinds}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        regions = tuple((int(i), int(axis), int(at), bool(end)) for i, axis, at, end in values["regions"])
        return cls(tuple(map(int, values["whole"])), regions, int(values["kinds"]))

    def divide(self, every: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Return training and validation samples; no voxel is in both."""
        kept, held = self.parts(every)
        return list(kept.values()), held

    def parts(self, every: Sequence[Sample]) -> tuple[dict[int, Sample], list[Sample]]:
        """Return what is kept of each image, by its number, and what is held out."""
        kept = {number: sample for number, sample in enumerate(every) if number not in self.whole}
        held = [every[number] for number in self.whole]
        for number, *cut in self.regions:
            kept[number], part = _parts(kept[number], cut)
            held.append(part)
        return kept, held

    def story(self, count: int) -> str:
        """Say what is held out of so many images."""
        regions = len({number for number, *_ in self.regions})
        whole = f"{len(self.whole)} of {count} images" if self.whole else ""
        others = "each image" if regions == count else f"{regions} other{'s' * (regions > 1)}"
        parts = [part for part in (whole, f"a region of {others}" if regions else "") if part]
        kinds = f"; {self.kinds} kinds by shape, intensity and size of objects, some of each" if self.kinds > 1 else ""
        return f"held out for validation: {' and '.join(parts)}{kinds}"


def hold_out(every: Sequence[Sample], seed: int, objects: ObjectLabels | None = None) -> Division:
    """Choose what is held out: about a fifth of each kind of image.

    Of a kind of `FEWEST_IMAGES` and more whole images, spread over their sizes; of others a region of each: a slab at
    an end, of planes or time points where the network takes each for itself, of the longest axis otherwise. No class
    is lost to training, and of an image that alone has a class a slab is held out.

    Parameters
    ----------
    every : sequence of Sample
    objects : ObjectLabels, optional
        Where label values are ids of objects.

    Raises
    ------
    DataError
        Where an image is too small to be divided, and there is no other.
    """
    rng = np.random.default_rng([seed, len(every)])
    kinds = kinds_of(every, objects)
    groups = [kind for kind in kinds if len(kind) >= FEWEST_IMAGES]
    whole = _draw_whole(every, lambda: _spread(groups, rng)) if groups else None
    rest = set(range(len(every))) - {number for group in groups if whole is not None for number in group}
    regions = [(number, *cut) for number in sorted(rest) if (cut := _best_cut(every[number], rng)) is not None]
    if whole is None and not regions:
        whole = _draw_whole(every, lambda: [int(rng.integers(len(every)))]) if len(every) > 1 else None
        if whole is None:
            raise _too_small(every[0])
    found = Division(tuple(whole or ()), tuple(regions), len(kinds))
    return _with_all_classes(every, found, rng)


def former_division(every: Sequence[Sample], seed: int) -> Division:
    """Choose what is held out for trainings that have no record of it: as it was chosen before there was one."""
    rng, count = np.random.default_rng([seed, len(every)]), max(1, round(HELD_OUT * len(every)))
    if len(every) > 1:
        whole = _draw_whole(every, lambda: sorted(rng.permutation(len(every))[:count].tolist()))
        if whole is not None:
            return _with_all_classes(every, Division(tuple(whole)), rng)
    regions = []
    for number, sample in enumerate(every):
        cut = _best_cut(sample, rng)
        if cut is None:
            raise _too_small(sample)
        regions.append((number, *cut))
    return Division(regions=tuple(regions))


def kinds_of(every: Sequence[Sample], objects: ObjectLabels | None = None) -> list[list[int]]:
    """Return the numbers of the images of each kind, those alike beside each other.

    Images are of one kind that have the same axes, objects or none, and no gap between them in order of shape, of
    intensities, channel by channel, or of the size of objects.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, sample in enumerate(every):
        groups.setdefault((sample.place_axes, len(_classes([sample]) - {0}) > 0), []).append(number)
    found = []
    for group in groups.values():
        table = np.array([_features(every[number], objects) for number in group])
        found += [[group[row] for row in rows] for rows in _without_gaps(table, np.arange(len(group)))]
    return found


def _features(sample: Sample, objects: ObjectLabels | None) -> list[float]:
    """Return size of objects, intensities and shape, in octaves over what tells kinds apart."""
    crops = labelled_crops([sample.labels], [sample.places], sample.binary, 1) if _classes([sample]) - {0} else iter(())
    sizes = diameters(list(crops), objects)
    seen = sample.statistics.seen or tuple(zip(sample.statistics.offset, sample.statistics.scale, strict=True))
    ranges = [(low, max(scale, float(np.finfo(np.float32).tiny))) for low, scale in seen]
    levels = [np.log2([scale, 1 + abs(low) / scale]) for low, scale in ranges]
    return [
        float(np.log2(sizes[1])) / SIZES_APART if sizes else 0.0,
        *(np.concatenate(levels) / INTENSITIES_APART),
        *(np.log2(sample.extent) / SIZES_APART),
    ]


def _without_gaps(table: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows apart where any column, in order, leaps by more than 1; order those that stay by the first columns."""
    for column in table.T:
        order = rows[np.argsort(column[rows], kind="stable")]
        leaps = np.flatnonzero(np.diff(column[order]) > 1) + 1
        if len(leaps):
            return [found for part in np.split(order, leaps) for found in _without_gaps(table, np.sort(part))]
    ranks = np.rint(table[rows])  # a step of rank is about as much as augmentation covers
    return [rows[np.lexsort(ranks.T[::-1])]]


def _spread(groups: Sequence[Sequence[int]], rng: np.random.Generator) -> list[int]:
    """Draw a fifth of each group, one of each run of about five neighbours."""
    runs = [run for group in groups for run in np.array_split(group, max(1, round(HELD_OUT * len(group))))]
    return sorted(int(run[rng.integers(len(run))]) for run in runs)


def _draw_whole(every: Sequence[Sample], draw: Callable[[], list[int]]) -> list[int] | None:
    """Return the draw of most classes held out; None where each loses a class to training."""
    best: tuple[int, list[int]] | None = None
    for _ in range(TRIES):
        held = draw()
        rest = [sample for number, sample in enumerate(every) if number not in held]
        if _classes(rest) != _classes(every):
            continue
        count = len(_classes([every[number] for number in held]))
        if best is None or count > best[0]:
            best = count, held
        if count == len(_classes(every)):
            break
    return None if best is None else best[1]


def _with_all_classes(every: Sequence[Sample], division: Division, rng: np.random.Generator) -> Division:
    """Divide an image of the training for each class that validation lacks, such as the only one with objects."""
    training, held_out = division.divide(every)
    for value in sorted(_classes(training) - _classes(held_out)):
        kept, held = division.parts(every)
        if value in _classes(held):
            continue
        for number, sample in kept.items():
            both = [
                cut for cut in _cuts(sample, rng, {value}) if all(value in _classes([p]) for p in _parts(sample, cut))
            ]
            if both:
                division = dataclasses.replace(division, regions=(*division.regions, (number, *both[0])))
                break
    return division


def _classes(parts: Sequence[Sample]) -> set[int]:
    return {value for sample in parts for value, at in sample.places.items() if len(at)}


def _too_small(sample: Sample) -> DataError:
    return DataError(
        f"{sample.image.name} with shape {sample.extent} is too small to hold out a part for validation; "
        "give a larger image, or several"
    )


def _best_cut(sample: Sample, rng: np.random.Generator) -> Cut | None:
    """Return the cut that leaves most classes in both parts; the earlier candidate where several do."""
    options = list(_cuts(sample, rng))
    scores = [tuple(len(_classes([part])) for part in _parts(sample, cut)) for cut in options]
    return options[max(range(len(options)), key=lambda i: (scores[i], -i))] if options else None


def _parts(sample: Sample, cut: Sequence[int]) -> tuple[Sample, Sample]:
    """Return what is kept of a sample and what is held out."""
    axis, at, end = cut
    parts = sample.cut(axis, 0, at), sample.cut(axis, at, sample.extent[axis])
    return parts if end else parts[::-1]


def _cuts(sample: Sample, rng: np.random.Generator, values: Collection[int] = ()) -> Iterator[Cut]:
    """Yield cuts that hold out a slab at an end with about a fifth of what is annotated.

    With `values` it is a fifth of the voxels of these.
    """
    found = [at for value, at in sample.places.items() if len(at) and (not values or value in values)]
    if not found:
        return
    places = np.concatenate(found)
    shape, batch = sample.extent, len(sample.batch_shape)
    planes = sorted((a for a in range(batch) if shape[a] >= FEWEST_PLANES), key=lambda a: -shape[a])
    longest = sorted((a for a in range(batch, len(shape)) if shape[a] >= SMALLEST_REGION), key=lambda a: -shape[a])
    for axis, end in itertools.product([*planes, *longest], rng.permutation(2)):
        size = shape[axis]
        share = 1 - HELD_OUT if end else HELD_OUT
        at = round(float(np.quantile(places[:, axis] + 0.5, share)))
        low, high = (size - size // 3, size - max(1, size // 10)) if end else (max(1, size // 10), size // 3)
        cut = axis, min(max(at, low), high), bool(end)
        if all(_classes([part]) for part in _parts(sample, cut)):
            yield cut
