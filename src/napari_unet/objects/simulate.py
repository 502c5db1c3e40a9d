"""Labels of objects that are not there: as large, as formed and as dense as given ones, lazily and without end.

Each cell of a grid has one candidate, drawn from the cell's number alone; of two that are too near to each other the
one drawn with the higher number is left out. So what lies in a box follows from the cells around it::

    +----+----+----+
    | o  |  o |o   |    o: a candidate, anywhere in its cell
    +----+----+----+    x: left out, as another is nearer than objects are to each other
    |x   | o  |   o|
    +----+----+----+
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage, spatial

from ..arrays.noise import RANGE, philox
from ..arrays.stack import Stack
from ..arrays.views import Box, LazyBase, overlap, within
from ..errors import DataError, UsageError
from .labelling import middle_of, numbered

ANGLES = 16  # of an outline: what is finer than a sixteenth of it is hardly wider than a pixel
FEWEST = 3  # objects: fewer show no variety
SMALLEST = 9  # voxels of an object that has a form
NEAR = 5.0  # percentile of the distances to the nearest: a few objects may lie on each other in the labels
CLOSEST, FARTHEST = 0.4, 1.5  # of the sum of two radii: so near a part of each is left, so far none touches another
LESS = 0.85  # times as near, where objects are more than find room
TRIED = {2: 40, 3: 12}  # cells per axis that are tried out: some 1600 candidates give the density to some hundredths
FINER, TRIALS = 0.95, 12  # of a cell's edge, from trial to trial: down to 0.57, beyond which hardly more are left
SAME = 0.01  # relative difference of two pixel sizes that are one
FORM, PLACE = 0, 1  # the second word of a cell's counters' key: what is drawn for it


@dataclasses.dataclass(frozen=True, slots=True)
class Forms:
    """What was measured on labels.

    Parameters
    ----------
    axes : (N, D, D) array
        Of each object the matrix that brings its offsets, in voxels, to those of a ball of radius 1.
    outlines : (N, ANGLES) array
        How far it then reaches, in directions of the last two axes.
    radii : (N,) array
        Of a disc, or ball, as large, in voxels of the finest axis.
    density : float
        Objects a voxel.
    near : float
        Distance of two objects that are next to each other, in sums of their radii.
    """

    axes: np.ndarray
    outlines: np.ndarray
    radii: np.ndarray
    density: float
    near: float

    @property
    def reach(self) -> np.ndarray:
        """Farthest that a voxel of an object may lie from its centre, per axis."""
        # |x| = |A u| is at most the largest singular value of A times |u|, however the object is turned.
        largest = np.linalg.norm(np.linalg.inv(self.axes), ord=2, axis=(1, 2)) * self.outlines.max(1)
        return np.full(self.axes.shape[1], float(largest.max()))


def forms_of(stacks: Sequence[Stack], ndim: int) -> Forms:
    """Measure the objects of labels: of large ones in the middle, of volumes in 2-D on each plane.

    Raises
    ------
    DataError
        Where they are no labels of objects, or fewer than `FEWEST` lie whole in them.
    """
    forms: list[tuple[np.ndarray, np.ndarray, float]] = []
    near: list[np.ndarray] = []
    covered = voxels = 0.0
    for stack in stacks:
        if stack.dtype.kind not in "biu":
            raise DataError(f"{stack.name} has values of the type {stack.dtype}; give labels, one number an object")
        data, spacing = middle_of(stack), np.array(stack.scale_along(stack.spatial[-ndim:]))
        if data.ndim < ndim:
            raise DataError(f"{stack.name} has the axes {stack.axes}; labels with z are needed for a shape with z")
        for part in data.reshape(-1, *data.shape[data.ndim - ndim :]):
            found, centres = _forms(numbered(part), spacing / spacing.min())
            forms += found
            covered, voxels = covered + float((part > 0).sum()), voxels + part.size
            if len(found) > 1:
                near.append(_nearest(centres, spacing / spacing.min()))
    if len(forms) < FEWEST:
        names = ", ".join(stack.name for stack in stacks)
        raise DataError(f"{names}: {len(forms)} objects lie whole in the labels; {FEWEST} are needed at least")
    axes, outlines, radii = (np.stack(each) for each in zip(*forms, strict=True))
    apart = float(np.percentile(np.concatenate(near), NEAR)) if near else 1.0
    # By what they cover: those at the border, of which a part is seen, would count too much.
    whole = float(np.mean([_ball(ndim) * radius**ndim for radius in radii]))
    density = covered / voxels / whole * float((spacing / spacing.min()).prod())
    return Forms(axes, outlines, radii, density, float(np.clip(apart, CLOSEST, FARTHEST)))


def _ball(ndim: int) -> float:
    """Return what a disc, or ball, of radius 1 holds."""
    return math.pi * (1 if ndim == 2 else 4 / 3)


def _forms(
    ids: np.ndarray, spacing: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray, float]], list[tuple[np.ndarray, float]]]:
    """Return axes, outline and radius of each object that lies whole in labels; centre and radius of all."""
    forms, centres = [], []
    for number, box in enumerate(ndimage.find_objects(ids), 1):
        where = np.argwhere(ids[box] == number).astype(np.float64)
        if len(where) < SMALLEST:
            continue
        ndim, centre = where.shape[1], where.mean(0)
        radius = float((len(where) * spacing.prod() / _ball(ndim)) ** (1 / ndim))
        centres.append((centre + [b.start for b in box], radius))
        if any(b.start == 0 or b.stop == n for b, n in zip(box, ids.shape, strict=True)):
            continue
        # A ball's variance along an axis is r^2 / (D + 2), a voxel's 1 / 12.
        covariance = np.cov(where.T, bias=True) + np.eye(ndim) / 12
        values, vectors = np.linalg.eigh(covariance * (ndim + 2))
        axes = vectors @ np.diag(values**-0.5) @ vectors.T
        turned = (where - centre) @ axes.T
        sector = ((np.arctan2(turned[:, -2], turned[:, -1]) / (2 * math.pi) * ANGLES).round() % ANGLES).astype(int)
        share = np.bincount(sector, minlength=ANGLES) * np.linalg.det(axes) / (_ball(ndim) / ANGLES)
        forms.append((axes, ndimage.uniform_filter(share, 3, mode="wrap") ** (1 / ndim), radius))
    return forms, centres


def _nearest(centres: list[tuple[np.ndarray, float]], spacing: np.ndarray) -> np.ndarray:
    """Return how far the nearest of each object is, in the sum of both radii."""
    places, radii = np.stack([c for c, _ in centres]) * spacing, np.array([r for _, r in centres])
    found: Any = spatial.KDTree(places).query(places, 2)
    distance, at = found
    return np.asarray(distance[:, 1] / (radii + radii[at[:, 1]]))


def simulate_labels(labels: Sequence[Stack], shape: tuple[int, ...], seed: int = 0) -> Stack:
    """Return labels of objects like those of given labels, spread evenly, of any size.

    Form, size and density are those of the given ones; what these have of order beyond how near two are, as layers,
    clusters and gaps, is not there. Objects overlap nowhere: each voxel is of the one whose inside it is deeper in.

    Parameters
    ----------
    labels : sequence of Stack
        Labels of objects, as `open_labels` gives them.
    shape : tuple of int
        Along y and x, or z, y and x.
    seed : int
        Below 2**32; another one gives others.

    Returns
    -------
    Stack
        Computed where it is read, the same however it is cut; of the pixel size of the first labels.

    Raises
    ------
    DataError
        Where they are no labels of objects, or hold too few.
    UsageError
        Where the shape has not two or three sizes.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise UsageError(f"shape is {shape}; give two sizes, y x, or three, z y x")
    axes = "zyx"[-len(shape) :]
    forms = forms_of(labels, len(shape))
    scale, units = (labels[0].values_along(axes, name) for name in ("scale", "units"))
    spacing = np.array(scale) / min(scale)
    forms, edge = _fitted(forms, spacing)
    field = SimulatedLabels(tuple(map(int, shape)), forms, seed, edge, tuple(map(float, spacing)))
    return Stack(field, axes, scale, units, name="simulated labels")


def _fitted(forms: Forms, spacing: np.ndarray) -> tuple[Forms, tuple[float, ...]]:
    """Return the cell, in voxels, of which as many candidates are left as there are objects; nearer if they must be."""
    side = (TRIED[len(spacing)],) * len(spacing)
    first = (1 / forms.density) ** (1 / len(spacing))  # of a cell with one object
    while True:
        for times in range(TRIALS):
            edge = tuple(first * FINER**times * (spacing.prod() ** (1 / len(spacing))) / spacing)
            trial = SimulatedLabels((1,) * len(spacing), forms, 0, edge, tuple(spacing))
            left = trial.candidates(tuple(slice(n, 2 * n) for n in side))
            if len(left) >= forms.density * math.prod(n * e for n, e in zip(side, edge, strict=True)):
                return forms, edge
        forms = dataclasses.replace(forms, near=forms.near * LESS)


@dataclasses.dataclass(frozen=True, slots=True)
class SimulatedLabels(LazyBase):
    """A lazy array of ids.

    Parameters
    ----------
    shape : tuple of int
    forms : Forms
    seed : int
    edge : tuple of float
        Of a cell, in voxels.
    spacing : tuple of float
        Size of a voxel per axis, the finest 1.
    """

    shape: tuple[int, ...] = dataclasses.field()  # else the property of the same name would be its default
    forms: Forms
    seed: int
    edge: tuple[float, ...]
    spacing: tuple[float, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest that numbers all cells."""
        return np.dtype(np.uint32 if math.prod(self._cells) < RANGE else np.uint64)

    @property
    def chunks(self) -> tuple[int, ...]:
        """About sixteen cells along each axis: few objects are drawn for two of them."""
        return tuple(min(n, max(1, round(16 * e))) for n, e in zip(self.shape, self.edge, strict=True))

    @property
    def _around(self) -> tuple[int, ...]:
        """Cells before the first voxel, from which objects reach in."""
        return tuple(math.ceil(r / e) + 1 for r, e in zip(self.forms.reach, self.edge, strict=True))

    @property
    def _cells(self) -> tuple[int, ...]:
        sizes = zip(self.shape, self.edge, self._around, strict=True)
        return tuple(math.ceil(n / e) + 2 * a for n, e, a in sizes)

    def candidates(self, cells: Box) -> list[tuple[tuple[int, ...], np.ndarray, int, float]]:
        """Return (cell, centre in cells, form, turn as a share of a circle) of those left in a box of cells."""
        far = 2 * float(self.forms.radii.max()) * self.forms.near
        ring = [math.ceil(far / (e * s)) for e, s in zip(self.edge, self.spacing, strict=True)]
        wide = tuple(slice(max(c.start - r, 0), c.stop + r) for c, r in zip(cells, ring, strict=True))
        at = np.stack([g.ravel() for g in np.meshgrid(*(np.arange(w.start, w.stop) for w in wide), indexing="ij")], 1)
        z, y, x = (np.zeros(len(at), np.uint64), *at.T.astype(np.uint64))[-3:]
        places = np.stack(philox((x, y, z, np.zeros_like(x)), (self.seed, PLACE)), 1) / RANGE
        looks = np.stack(philox((x, y, z, np.zeros_like(x)), (self.seed, FORM)), 1) / RANGE
        centres = at + places[:, : at.shape[1]]
        which = (looks[:, 0] * len(self.forms.radii)).astype(int)
        radii, order = self.forms.radii[which], looks[:, 1]
        steps = centres * np.array(self.edge) * np.array(self.spacing)
        pairs = spatial.KDTree(steps).query_pairs(far, output_type="ndarray")
        first, second = pairs[:, 0], pairs[:, 1]
        apart = np.sqrt(((steps[first] - steps[second]) ** 2).sum(1))
        close = apart < self.forms.near * (radii[first] + radii[second])
        left = np.ones(len(at), bool)
        left[np.where(order[first] > order[second], first, second)[close]] = False
        inside = np.all([(at[:, i] >= c.start) & (at[:, i] < c.stop) for i, c in enumerate(cells)], axis=0)
        kept = np.flatnonzero(left & inside)
        return [(tuple(map(int, at[i])), centres[i], int(which[i]), float(looks[i, 2])) for i in kept]

    def read(self, box: Box) -> np.ndarray:
        """Draw the objects that reach into a box."""
        found = np.zeros([b.stop - b.start for b in box], self.dtype)
        depth = np.ones(found.shape)
        around, reach = self._around, self.forms.reach
        sizes = zip(box, self.edge, reach, around, strict=True)
        cells = tuple(
            slice(max(math.floor((b.start - r) / e) + a, 0), math.floor((b.stop + r) / e) + a + 1)
            for b, e, r, a in sizes
        )
        for cell, place, which, turn in self.candidates(cells):
            centre = [(p - a) * e for p, a, e in zip(place, around, self.edge, strict=True)]
            ends = zip(centre, reach, strict=True)
            part = overlap(box, [slice(math.floor(c - r), math.ceil(c + r) + 1) for c, r in ends])
            if any(p.start >= p.stop for p in part):
                continue
            inner: Any = within(part, box)
            inside = self._depth(part, centre, which, turn)
            nearer = inside < depth[inner]
            depth[inner][nearer] = inside[nearer]
            found[inner][nearer] = np.ravel_multi_index(cell, self._cells) + 1
        return found

    def _depth(self, part: Box, centre: Sequence[float], which: int, turn: float) -> np.ndarray:
        """Return where the voxels of a box lie in an object: 0 in its centre, 1 on its outline."""
        offsets = [
            (np.arange(p.start, p.stop) - c).reshape([-1 if i == axis else 1 for i in range(len(part))])
            for axis, (p, c) in enumerate(zip(part, centre, strict=True))
        ]
        y, x = offsets[-2:]
        square = math.isclose(*self.spacing[-2:], rel_tol=SAME)  # else half a turn alone keeps the form
        angle = 2 * math.pi * (turn if square else round(turn * 2) / 2)
        sine, cosine = math.sin(angle), math.cos(angle)
        offsets[-2:] = [y * cosine - x * sine, y * sine + x * cosine]
        axes, outline = self.forms.axes[which], self.forms.outlines[which]
        # Sums written out: a product of matrices is rounded as the size of the box has it.
        own = [sum(float(row[i]) * offset for i, offset in enumerate(offsets)) for row in axes]
        length = np.sqrt(sum(np.square(each) for each in own))
        at = np.arctan2(own[-2], own[-1]) / (2 * math.pi) * ANGLES % ANGLES
        low = np.floor(at).astype(int)
        share = at - low
        limit = outline[low % ANGLES] * (1 - share) + outline[(low + 1) % ANGLES] * share
        return np.asarray(length / np.maximum(limit, 1e-6))
