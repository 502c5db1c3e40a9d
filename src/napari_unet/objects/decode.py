"""From classes to objects, block by block: find the parts, name them, write them."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.views import Box, LazyArray, LazyBase, within
from ..errors import DataError
from ..events import Progress
from ..threads import in_threads
from .components import measure_objects, scan_block
from .config import ObjectConfig
from .grid import ObjectGrid
from .grow import free_of, grown
from .merge import label_dtype, name_parts, named
from .scratch import Scratch

STAGE = "objects"
MAJORITY = 0.5  # a label of more weight than this is the heaviest, whatever the others are
Read = Callable[[Box], np.ndarray]
Write = Callable[[int, Box, np.ndarray], None]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Measures of the objects of a volume, one row per object; of a whole volume ids are 1 ... N where none are linked.

    Parameters
    ----------
    axes : str
        The axes of the columns with one number per axis; positions are in voxels.
    count : (N,) int64 array
        Voxels.
    low, high : (N, axes) int64 arrays
        Bounding box, `high` exclusive.
    centroid : (N, axes) float64 array
    border : (N,) bool array
        Whether it touches the spatial border of the volume.
    intensity : (N, C) float64 array
        Mean of each channel; C is 0 where no image was given.
    id : (N,) int64 array
        As it is written; linked objects have one id at several time points.
    votes : (N, K) int64 array
        Voxels inside of it that were taken for each class of objects, of linked ones all together.
    kinds : tuple of str
        Names of the K classes, none where objects have none.
    """

    axes: str
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    centroid: np.ndarray
    border: np.ndarray
    intensity: np.ndarray
    id: np.ndarray
    votes: np.ndarray
    kinds: tuple[str, ...] = ()

    @property
    def kind(self) -> np.ndarray:
        """Class of each, from 0: the one of most votes, the first of equals."""
        return np.asarray(self.votes.argmax(1))

    @property
    def share(self) -> np.ndarray:
        """Share of the votes that its class has."""
        return np.asarray(self.votes.max(1) / np.maximum(self.votes.sum(1), 1))

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.count)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What labels are painted on, and what of an image is measured with them.

    Parameters
    ----------
    write : callable
        Takes the number of a block, its box and its labels; the same again where a call was interrupted.
    image : callable, optional
        Returns the intensities of a region, (C, *S), to be measured.
    grid : ObjectGrid, optional
        Of other pixels than those that objects were found at; the same part of the world.
    ratios : tuple of float
        Their size in pixels that objects were found at, per axis of `grid`.
    bring : callable, optional
        Brings labels at the pixels where objects were found to those of `grid`, lazily, as `ResampledLabels` does.
    """

    write: Write
    image: Read | None = None
    grid: ObjectGrid | None = None
    ratios: tuple[float, ...] = ()
    bring: Callable[[LazyArray], LazyBase] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Named(LazyBase):
    """The labels of objects that are found and named, lazily; 1 ... N also where ids are carried on over time."""

    classes: Read
    kept: Scratch
    grid: ObjectGrid
    config: ObjectConfig
    tables: tuple[np.ndarray, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return self.grid.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """Edges of a block along each axis."""
        return self.grid.core

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the ids."""
        return self.tables[1].dtype

    def read(self, box: Box) -> np.ndarray:
        """Return the labels of a box."""
        wide = self.grid.around(box, self.config.grow)
        classes = _classes(self.classes, wide) if self.config.grow else None
        if classes is None or not free_of(classes, self.config).any():
            return named(self.kept, self.grid, box, *self.tables)
        labels = named(self.kept, self.grid, wide, *self.tables)
        labels = grown(labels, classes, self.config, len(self.grid.spatial)) if labels.any() else labels
        return labels[within(box, wide)]


def find(read: Read, grid: ObjectGrid, scratch: Path | Scratch, config: ObjectConfig) -> Generator[Progress, None, int]:
    """Find all objects and name them, before any label is written.

    Parameters
    ----------
    read : callable
        Returns the classes of a region: 0 background, 1 inside of an object, 2 border of one; or 3 core of one. Where
        objects have classes, inside and core have four times that number added, from 0.
    scratch : Path or Scratch
        Folder for what is known so far; with it, an interrupted call goes on where it was.

    Yields
    ------
    Progress
        Two thirds of the whole work, which `paint` completes.

    Returns
    -------
    int
        Number of objects; `label_dtype` says what array holds their ids.

    Raises
    ------
    DataError
        Where `read` returns something that is not classes of the region.
    OutputError, ResourceError
        Where `scratch` is of another work, or the disk refuses.
    """
    kept, blocks = _kept(scratch, grid, config), len(grid)

    def scan(number: int) -> None:
        box = grid.block(number)
        labels, tables = scan_block(_classes(read, box), box, grid, config)
        kept.keep(number, labels, tables)

    pending = dict.fromkeys(n for n in range(blocks) if not kept.has(f"scan-{n}"))
    with contextlib.closing(in_threads(scan, pending)) as scanned:
        for number in range(blocks):
            if number in pending:
                next(scanned)
            yield Progress(number + 1, 3 * blocks, STAGE)
    if not kept.has("ids"):
        for done in name_parts(kept, grid, config):
            yield Progress(blocks + done, 3 * blocks, STAGE)
    return int(kept.load("ids", "count")[0])


def _kept(scratch: Path | Scratch, grid: ObjectGrid, config: ObjectConfig) -> Scratch:
    return scratch if isinstance(scratch, Scratch) else Scratch(scratch, grid, config)


def _classes(read: Read, box: Box) -> np.ndarray:
    classes = read(box)
    shape = tuple(part.stop - part.start for part in box)
    if classes.shape != shape or classes.dtype.kind not in "bui":
        raise DataError(f"classes at {box} are {classes.dtype} {classes.shape}; they must be integers of shape {shape}")
    return classes


def paint(
    read: Read, grid: ObjectGrid, canvas: Canvas, scratch: Path | Scratch, config: ObjectConfig
) -> Generator[Progress, None, Objects]:
    """Write the labels that `find` named, block by block.

    At other pixels each takes the label of most weight, as `ResampledLabels` says; an object that has no pixel of its
    own there is left out, and ids stay 1 ... N.

    Parameters
    ----------
    read, grid, scratch, config
        As `find` had them.

    Yields
    ------
    Progress
        The last third of the whole work.

    Returns
    -------
    Objects
        Their measures. The scratch folder stays.
    """
    kept, onto = _kept(scratch, grid, config), canvas.grid or grid
    offset, ids, track = kept.load("ids", "offset", "id", "track")
    votes = kept.load("ids", "votes")[0][track] if config.kinds else np.zeros((len(track), 0), np.int64)
    source: LazyBase = _Named(read, kept, grid, config, (offset, ids))
    if canvas.bring is not None:
        source = canvas.bring(source)
        if math.prod(_least(ratio) for ratio in canvas.ratios) <= MAJORITY:
            track = _compact(track, source, onto)
    blocks = len(onto)
    final = track.astype(label_dtype(len(track)))
    as_found = final.dtype == ids.dtype and np.array_equal(track, np.arange(len(track)))
    pending = dict.fromkeys(n for n in range(blocks) if not kept.has(f"paint-{n}"))

    def made(number: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        box = onto.block(number)
        labels = source.read(box)
        intensities = None if canvas.image is None else canvas.image(box)
        return labels if as_found else final[labels], measure_objects(labels, box, onto, intensities)

    with contextlib.closing(in_threads(made, pending)) as painted:
        for number in range(blocks):
            if number in pending:
                _, (labels, measures) = next(painted)
                canvas.write(number, onto.block(number), labels)
                kept.save(f"paint-{number}", measures)
            yield Progress(2 * blocks + number + 1, 3 * blocks, STAGE)
    return _gather(kept, onto, track, votes)


def _least(ratio: float) -> float:
    """Return the least weight that a pixel where an object was found has in the nearest of others, along an axis."""
    return 1 - ratio / 2 if ratio < 1 else float(ratio == 1)


def _compact(track: np.ndarray, labels: LazyBase, grid: ObjectGrid) -> np.ndarray:
    """Return the ids that are written where some objects have no pixel: those of the others follow each other."""
    there = np.zeros(len(track), bool)
    for number in range(len(grid)):
        there[np.unique(labels.read(grid.block(number)))] = True
    there[0] = False
    found = np.zeros_like(track)
    found[there] = np.unique(track[there], return_inverse=True)[1] + 1
    return found


def decode(
    read: Read, grid: ObjectGrid, write: Write, scratch: Path, config: ObjectConfig
) -> Generator[Progress, None, Objects]:
    """Make objects from classes: `find`, then `paint`, then delete the scratch folder.

    The labels do not depend on how the volume is cut into blocks:

    1. Objects are the parts of class 1 that are connected by faces, within one time point.
    2. A hole is a part of all the rest, connected by faces, edges and corners, that does not touch the border of
       the volume, has at most ``fill_holes`` voxels and shares faces with one object only: it joins that object.
    3. Objects of fewer than ``min_size`` voxels are dropped.
    4. Ids are 1 ... N in the order of the objects' first voxels in the volume, in C order.
    5. With ``link``, an object has the id of the one right before it in time (of a 2-D model in a volume: one plane
       before) where each overlaps the other most, by IoU, and by at least so much; equal ones take the smallest id.
       Ids are then 1 ... M in the order of the first objects that have them.
    6. Every voxel of class 2 joins the object that is nearest by a path through class 2, within ``grow`` voxels, the
       smallest id of those as near. Without ``nearest``: in each of ``grow`` rounds, every free voxel of class 2 that
       shares a face with objects joins the one of the smallest id.

    With ``cores`` the parts are of class 3, and objects grow over class 1 too. With ``kinds`` an object is of the class
    that most voxels of its parts are of, the first of equals; linked ones have one class.

    Memory is that of a block, of what is known of each part, and of the faces between blocks.

    Parameters
    ----------
    read : callable
        Returns the classes of a region: 0 background, 1 inside of an object, 2 border of one; or 3 core of one.
    write : callable
        Takes the number of a block, its box and its labels (`label_dtype` of the number of objects).
    scratch : Path
        Folder for what is known so far; with it, an interrupted call goes on where it was. Its parent exists.

    Returns
    -------
    Objects
        Measures of the labels as written.

    Raises
    ------
    DataError
        Where `read` returns something that is not classes of the region.
    OutputError, ResourceError
        Where `scratch` is of another work, or the disk refuses.
    """
    yield from find(read, grid, scratch, config)
    found = yield from paint(read, grid, Canvas(write), scratch, config)
    Scratch(scratch, grid, config).remove()
    return found


def _gather(kept: Scratch, grid: ObjectGrid, track: np.ndarray, votes: np.ndarray) -> Objects:
    """Add up the measures of all blocks, of the objects that have a voxel."""
    total = len(track) - 1
    count, border = np.zeros(total, np.int64), np.zeros(total, bool)
    low = np.full((total, len(grid.axes)), np.iinfo(np.int64).max)
    high, sums, intensity_sum = np.zeros_like(low), np.zeros_like(low), np.zeros((0, 0))
    for number in range(len(grid)):
        columns = kept.load(f"paint-{number}", "id", "count", "low", "high", "sum", "border", "light")
        row = columns[0].astype(np.int64) - 1
        count[row] += columns[1]
        low[row] = np.minimum(low[row], columns[2])
        high[row] = np.maximum(high[row], columns[3])
        sums[row] += columns[4]
        border[row] |= columns[5]
        intensity_sum = intensity_sum if len(intensity_sum) else np.zeros((total, columns[6].shape[1]))
        intensity_sum[row] += columns[6]
    there = count > 0
    size = count[there, None]
    intensity = intensity_sum[there] / size if len(intensity_sum) else intensity_sum
    return Objects(
        grid.axes,
        count[there],
        low[there],
        high[there],
        sums[there] / size,
        border[there],
        intensity,
        track[1:][there],
        votes[1:][there],
        kept.config.kinds,
    )
