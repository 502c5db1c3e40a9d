"""What labels are: classes, numbers of objects or a mask; and which objects training could not hold."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from ..arrays.cached import check_countable
from ..arrays.stack import Stack
from ..metrics.contingency import Contingency
from ..metrics.objects import Overlaps
from .borders import SPECK, borders, touching
from .config import BORDER, INSIDE, MANY, ObjectConfig
from .part import objects_of

LOOKED_UP = 2**20  # the highest id that is numbered by a table, which is three times as fast as by sorting
GROW = 3  # voxels that are grown over to hold what is learnt against what decoding gives
NAMED = 5  # ids
PLANES = 5  # of a volume that are examined as a 2-D network sees them
FEWEST_PIECES = 3  # of one value: two may be one object with something lying across it
CROP = 2**22  # elements of the middle that are read to say what labels are
FLAT = 0.6  # share of foreground neighbours with one value, from which on an image looks like labels
SCATTERED = 0.2  # share of ids in several pieces, from which on they do not look like objects
GREY_VALUES = 3  # values between the two of a mask, at least
GREY_SHARE = 0.1  # of the pixels between the two of a mask that have their own value on all sides, at most


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Objects that are not there when their classes are made objects again.

    Parameters
    ----------
    count, objects : int
        How many, of how many that were looked at.
    empty : int
        How many have no inside at all; in 3-D none between borders of one voxel, such as planes numbered one by one.
    ids : tuple of int
        A few of them.
    """

    count: int = 0
    empty: int = 0
    objects: int = 0
    ids: tuple[int, ...] = ()

    def __add__(self, other: "Lost") -> "Lost":
        """Return both together."""
        ids = (*self.ids, *other.ids)[:NAMED]
        return Lost(self.count + other.count, self.empty + other.empty, self.objects + other.objects, ids)


@dataclasses.dataclass(frozen=True, slots=True)
class Labelling:
    """What was seen in some labels.

    Parameters
    ----------
    images : int
        Parts that were examined.
    values, pieces : int
        Most different values of a part, and connected pieces of one value in all; without background and specks.
    ids, scattered : int
        Values summed over the parts, and how many of them are in several pieces.
    single : int
        Pieces in the parts that hold one value in `FEWEST_PIECES` or more.
    single_images : int
        Such parts.
    lost : mapping of int to Lost
        By the dimensions of the network, the objects that training could not hold.
    above, alike : int
        Voxels on others of the next plane, and those with the same value there.
    grey : tuple of int
        Values above 0, where 0 and the highest are nearly all there is and several lie between.
    """

    images: int = 0
    values: int = 0
    pieces: int = 0
    ids: int = 0
    scattered: int = 0
    single: int = 0
    single_images: int = 0
    lost: Mapping[int, Lost] = dataclasses.field(default_factory=dict)
    above: int = 0
    alike: int = 0
    grey: tuple[int, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[np.ndarray], background: int | None = None) -> Self:
        """Look at some labels.

        Parameters
        ----------
        parts : (Y, X) or (Z, Y, X) integer arrays
        background : int, optional
            The value that was painted on background, where 0 is unlabelled.
        """
        found = cls()
        for part in parts:
            found = found.with_part(part if background is None else np.where(part == background, 0, part))
        return found

    def with_part(self, labels: np.ndarray) -> Self:
        """Return what was seen with one more part."""
        labels = labels.view(np.uint8) if labels.dtype.kind == "b" else labels
        ids, values = numbered(labels), np.unique(labels[labels > 0])
        pieces = pieces_of(ids)
        one = len(pieces) == 1 and pieces[0] >= FEWEST_PIECES
        above, alike = _planes(ids)
        return dataclasses.replace(
            self,
            images=self.images + 1,
            values=max(self.values, len(pieces)),
            pieces=self.pieces + sum(pieces),
            ids=self.ids + len(pieces),
            scattered=self.scattered + sum(n > 1 for n in pieces),
            single=self.single + one * sum(pieces),
            single_images=self.single_images + one,
            lost={ndim: self.lost.get(ndim, Lost()) + lost for ndim, lost in _lost(ids, values).items()},
            above=self.above + above,
            alike=self.alike + alike,
            grey=tuple(sorted({*self.grey, *_grey(labels)})),
        )

    @property
    def is_mask(self) -> bool:
        """Whether all objects of each part have one number."""
        return self.single_images > 0 and self.ids == self.images and self.pieces >= FEWEST_PIECES * self.ids

    @property
    def by_plane(self) -> bool:
        """Whether objects have another number in each plane."""
        return self.above > 0 and self.alike < 0.5 * self.above

    def lost_objects(self, ndim: int) -> Lost:
        """Return what a network of these dimensions could not hold of the objects."""
        return self.lost.get(ndim, Lost())

    @property
    def looks_numbered(self) -> bool:
        """Whether values number objects: many, or several of which each is one piece."""
        several = self.values > FEWEST_PIECES and self.scattered == 0 and self.pieces == self.ids
        return self.values >= MANY or (several and self.images < self.ids)

    def about_numbers(self) -> str:
        """Return a warning for labels that should be ids of objects and do not look like it, or nothing."""
        if self.grey:
            middle = self.grey[-1] // 2
            return (
                f"{len(self.grey) - 1} label values lie between the two of a mask, as at soft edges or in a JPEG; take "
                f"each piece above the middle as an object with --number-objects --above {middle}"
            )
        if self.is_mask:
            return (
                f"one id is in {self.single} separate pieces: is it a mask? Take each piece as an object of its own "
                "with --number-objects, or learn the mask as a class with --task semantic"
            )
        if self.scattered > SCATTERED * self.ids:
            return (
                f"{self.scattered} of {self.ids} ids are in several pieces, {self.pieces} pieces in all: are they "
                "classes? Take each piece as an object with --number-objects, or learn classes with --task semantic"
            )
        return ""

    def about_classes(self) -> str:
        """Return a warning for labels that should be classes and do not look like it, or nothing."""
        if self.grey:
            middle = self.grey[-1] // 2
            return (
                f"{len(self.grey) - 1} label values lie between the two of a mask, as at soft edges or in a JPEG, and "
                f"each would be a class; take all above the middle as one with --binary --above {middle}"
            )
        if self.looks_numbered:
            return (
                f"the labels hold {self.values} values besides 0 in {self.pieces} pieces: are they numbers of objects? "
                "Learn objects with --task instances, or take all as one class with --binary"
            )
        return ""

    def about_edges(self) -> str:
        """Return a warning for a mask with soft edges of which all above 0 is one class."""
        middle = self.grey[-1] // 2
        return (
            f"{len(self.grey) - 1} label values lie between the two of a mask, as at soft edges or in a JPEG, and the "
            f"faintest counts as foreground too; take what is above the middle with --binary --above {middle}"
        )

    def about_planes(self) -> str:
        """Return a warning for a volume whose ids change from plane to plane, or nothing."""
        if not self.by_plane:
            return ""
        share = 100 * self.alike / self.above
        return (
            f"ids change from plane to plane, only {share:.0f} % of the voxels have the id of the one above: were "
            "planes numbered one by one? Take each connected piece of the volume as an object with --number-objects, "
            "or learn planes with --ndim 2"
        )

    def about_lost(self, ndim: int) -> str:
        """Return what is said of objects that training cannot hold; nothing where it can hold all."""
        lost = self.lost_objects(ndim)
        if not lost.count:
            return ""
        more = ", ..." if lost.count > len(lost.ids) else ""
        return (
            f"{lost.count} of {lost.objects} objects examined cannot be held (id "
            f"{', '.join(map(str, lost.ids))}{more}): they lie in several pieces, or are thinner than 3 pixels where "
            "they touch others; a finer level or enlarged images help, or learn them as one class with "
            "--task semantic --binary"
        )


def numbered(ids: np.ndarray) -> np.ndarray:
    """Return ids as 1 ... n in the order of their values, int32; 0 stays 0."""
    if ids.max(initial=0) > LOOKED_UP:
        values, at = np.unique(ids, return_inverse=True)
        ids = at.reshape(ids.shape) + (values[0] > 0)
    here = np.zeros(int(ids.max(initial=0)) + 1, bool)
    here[ids] = True
    here[0] = False
    return np.cumsum(here, dtype=np.int32)[ids]


def pieces_of(ids: np.ndarray) -> list[int]:
    """Return in how many pieces each of the ids 1 ... n is, diagonals connect."""
    from scipy import ndimage  # not at the top: who predicts does not need it

    structure, found = np.ones((3,) * ids.ndim, bool), []
    for number, box in enumerate(ndimage.find_objects(ids), 1):
        if box is not None:
            sizes = np.bincount(ndimage.label(ids[box] == number, structure)[0].ravel())[1:]
            found.append(int((sizes >= SPECK * sizes.max()).sum()))
    return found


def _planes(ids: np.ndarray) -> tuple[int, int]:
    if ids.ndim < 3:
        return 0, 0
    low, high = ids[:-1], ids[1:]
    both = (low > 0) & (high > 0)
    return int(both.sum()), int((both & (low == high)).sum())


def _lost(ids: np.ndarray, values: np.ndarray) -> dict[int, Lost]:
    """Say which objects are lost: as the network of these dimensions sees them, and one that goes by planes."""
    found = {ids.ndim: _not_found(ids, values)}
    if ids.ndim == 3:
        fullest = np.argsort((ids > 0).sum((1, 2)))[-PLANES:]
        found[2] = Lost()
        for z in fullest:
            plane = numbered(ids[z])
            found[2] += _not_found(plane, values[np.unique(ids[z][ids[z] > 0]) - 1])
    return found


def _not_found(ids: np.ndarray, values: np.ndarray) -> Lost:
    """Say which of the ids 1 ... n, stored as `values`, are not there in what perfect classes decode to."""
    classes = np.where(borders(ids), BORDER, np.sign(ids)).astype(np.uint8)
    again = objects_of(classes, ObjectConfig(grow=GROW, nearest=True))
    found = np.zeros(len(values), bool)
    found[Overlaps.of(Contingency.of(ids, again)).matches()[0]] = True
    inside = np.zeros(len(values) + 1, bool)
    inside[ids[classes == INSIDE if ids.ndim == 2 else ~touching(ids)]] = True
    lost, empty = int((~found).sum()), int((~inside[1:]).sum())
    return Lost(lost, empty, len(values), tuple(values[~found][:NAMED].tolist()))


def _grey(labels: np.ndarray) -> list[int]:
    """Return the values above 0 of a mask whose edges are soft, or that was stored with loss.

    The values between 0 and the highest lie along edges: hardly a pixel has the same on all sides.
    """
    from scipy import ndimage

    values = np.unique(labels)
    top = 0.9 * float(values[-1])
    if values[0] != 0 or (values[1:] <= top).sum() < GREY_VALUES:
        return []
    between, high = (labels > 0) & (labels <= top), labels > top
    size = (1,) * (labels.ndim - 2) + (3, 3)  # plane by plane: objects may have another number in each
    level = ndimage.maximum_filter(labels, size) == ndimage.minimum_filter(labels, size)
    edges = (between & level).sum() <= GREY_SHARE * between.sum()
    return values[1:].tolist() if edges and ndimage.binary_erosion(high, np.ones(size, bool)).any() else []


def middle_of(stack: Stack) -> np.ndarray:
    """Read the middle of a stack without channels, of its first time point, at most about `CROP` elements."""
    stack = stack.select(**{a: 0 for a in stack.axes if a not in stack.spatial})
    edge = max(1, round(CROP ** (1 / len(stack.shape))))
    shares = [(min(n, edge), n) for n in stack.shape]
    return stack.read(tuple(slice((n - size) // 2, (n - size) // 2 + size) for size, n in shares))


def looks_like_labels(data: np.ndarray) -> bool:
    """Say whether numbers look like labels: most neighbours in their foreground have one value."""
    both = same = 0
    for axis in (-1, -2):
        low, high = (np.take(data, range(*ends), axis) for ends in ((data.shape[axis] - 1,), (1, data.shape[axis])))
        above = (low > 0) & (high > 0)
        both, same = both + int(above.sum()), same + int((above & (low == high)).sum())
    return both > 0 and same >= FLAT * both


def label_rows(stack: Stack) -> list[tuple[str, str]]:
    """Describe an image that looks like labels, by its middle; nothing for another.

    Raises
    ------
    DataError
        Where it is larger than any that can be stored.
    """
    if stack.dtype.kind not in "biu" or stack.size("c") > 1:
        return []
    check_countable(stack)
    seen = middle_of(stack.select(c=0) if "c" in stack.axes else stack)
    if not looks_like_labels(seen):
        return []
    found = Labelling.of([seen])
    rows = [
        ("labels", f"{found.values} value{'s' * (found.values != 1)} besides 0, in {found.pieces} connected pieces")
    ]
    notes = [found.about_classes(), found.about_numbers(), found.about_planes()]
    if not any(notes[1:]):
        notes.append(found.about_lost(len(stack.spatial)))
    return rows + [("note", note) for note in notes if note]
