"""Objects from the classes that the network has written, block by block, in the same result."""

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.resample import ResampledLabels
from ..arrays.views import Box, LazyArray, LazyBase, View, within
from ..events import Block, Progress
from ..faults import persist
from ..files import disk, replacing
from ..objects import Canvas, InMemory, ObjectGrid, Objects, find, paint
from ..objects.scratch import discard
from ..store import Output, ResultStore
from ..store.blocks import read_back
from ..store.table import CLASS_COLUMNS, make_place
from .own import ratios

if TYPE_CHECKING:
    from .job import Job

HEAD = b"id,voxels,"  # of a table of objects
NEARLY_ALL = 0.7  # of an image: so dense that hardly anything lies between objects
FEW = 2**22  # voxels whose objects are found in 0.2 s: after a kill that is done again
TIMES_LEARNT = 3  # the share of objects in the training images; dense regions of an image reach twice that


def make_objects(job: "Job", work: ResultStore, store: ResultStore) -> Generator[Progress, None, str]:
    """Make the objects of a run whose classes are all written, if it has any; goes on where it was stopped.

    They are made at the pixels that the network ran at, and written at the image's own.

    The labels hold a table, ``table/objects.csv``: id, voxels, centroid and bounding box in the labels' units, mean
    intensity per channel, whether the object touches the border of the image, and its class where objects have one.

    Parameters
    ----------
    work, store : ResultStore
        Of what the network gave, and of the result.

    Yields
    ------
    Progress
        A `Block` for each block that is written.

    Returns
    -------
    str
        A note on the objects for the user, if there is one.

    Raises
    ------
    ResourceError
        Where the disk refuses.
    """
    own = job.own or job
    output, options = own.objects, job.decoder.task.objects
    if output is None or options is None:
        return ""
    folder = store.ledger / "objects"
    if not store.pending() and store.has_table:
        discard(folder)  # a run that ended in the middle of removing it
        return ""
    first, ndim = len(own.grid), job.decoder.engine.model.config.ndim
    made, classes = job.decoder.outputs[0], _classes(job, work)
    sizes = ratios(output.scale, made.scale)
    is_same = classes.shape == output.shape and all(size == 1 for size in sizes)
    grid = ObjectGrid(classes.shape, (own if is_same else job).grid.core, made.axes, ndim)
    scratch = InMemory(grid, options) if len(grid) == 1 and math.prod(grid.shape) <= FEW else folder

    read = functools.partial(read_back, classes)

    def write(number: int, box: Box, labels: np.ndarray) -> None:
        store.write(first + number, {output.path: (box, labels.astype(output.dtype, copy=False))})

    yield from _told(find(read, grid, scratch, options), store, job)
    onto = ObjectGrid(output.shape, own.grid.core, output.axes, ndim), sizes, functools.partial(_brought, job, output)
    canvas = Canvas(write, own.decoder.engine.read, *(() if is_same else onto))
    painting = paint(read, grid, canvas, scratch, options)
    for number in range(first):
        next(painting)
        yield Block(job.apart + store.count, job.total, "objects", box=own.grid[number].write)
    try:
        next(painting)
    except StopIteration as end:
        objects: Objects = end.value
        channels = own.decoder.engine.stack.channel_names
        with disk(store.root):
            place = make_place(store.root / output.path, store.plan.version, store.ledger)
            about = (objects, output.scale, output.translation, channels, store.ledger)
            persist(lambda: write_table(place, *about))
            store.record_table(output.path)
    discard(folder)
    note = _too_much(objects, math.prod(output.shape), job.decoder.engine.model.record.get("foreground"))
    if note:
        yield Progress(job.apart + store.count, job.total, "note", note)
    return note


def _classes(job: "Job", work: ResultStore) -> Any:
    """Return the classes that objects are made of: of a region what lies within it, and nothing around that."""
    made, region = job.decoder.outputs[0], job.region
    classes = work.arrays[made.path]
    if region is None:
        return classes
    parts = ([region.made_of[a]] for a in made.axes), ([region.taken[a]] for a in made.axes)
    return View.of(classes).cut([within(part, taken)[0] for part, taken in zip(*parts, strict=True)])


def _brought(job: "Job", output: Output, labels: LazyArray) -> LazyBase:
    """Return labels of objects, lazily, at the image's own pixels."""
    region, sizes = job.region, ratios(output.scale, job.decoder.outputs[0].scale)
    if region is None:
        return ResampledLabels(labels, output.shape, sizes)
    return region.cut(labels, output.axes, region.made_of, job.factors, sizes, ResampledLabels)


def _too_much(objects: Objects, voxels: int, learnt: Any) -> str:
    """Say that objects cover nearly all of an image, where they had a small share of the training images."""
    share, largest = int(objects.count.sum()) / voxels, int(objects.count.max(initial=0)) / voxels
    if not isinstance(learnt, int | float) or share < NEARLY_ALL or share < TIMES_LEARNT * learnt:
        return ""
    return (
        f"objects cover {100 * share:.0f} % of the image, the largest alone {100 * largest:.0f} %; in the images that "
        f"the model was trained on they covered {100 * learnt:.2g} %. An image without any, or one with "
        "another background or pixel size, gives such results: compare this one with the image"
    )


def _told(work: Generator[Progress, None, int], store: ResultStore, job: "Job") -> Iterator[Progress]:
    """Say that work on blocks that are done already goes on."""
    for event in work:
        store.beat()
        yield dataclasses.replace(event, done=job.apart + store.count, total=job.total, message="parts of objects")


def write_table(
    path: Path,
    objects: Objects,
    scale: tuple[float, ...],
    translation: tuple[float, ...],
    channels: tuple[str, ...] = (),
    via: Path | None = None,
) -> None:
    """Write what is known of each object, one row per object.

    Parameters
    ----------
    scale, translation : tuple of float
        Of the labels, per axis: positions are of voxel centres, bounding boxes of first and last voxels.
    channels : tuple of str
        Names of the channels, 0, 1, ... if not given.
    via : Path, optional
        Folder of the same disk for the temporary file.
    """
    size, start = np.array(scale), np.array(translation)
    centre = objects.centroid * size + start
    low, high = objects.low * size + start, (objects.high - 1) * size + start
    columns_of = [f"{kind}_{a}" for kind in ("centroid", "first", "last") for a in objects.axes]
    given = objects.intensity.shape[1]
    columns_of += [f"mean_{channel}" for channel in (channels if len(channels) == given else range(given))]
    names = objects.kinds
    with replacing(path, via) as binary:
        file = io.TextIOWrapper(binary, "utf-8", newline="")
        writer = csv.writer(file)
        writer.writerow(["id", "voxels", *columns_of, "touches_border", *(CLASS_COLUMNS if names else ())])
        intensity_sum = objects.intensity if given else np.zeros((len(objects), 0))
        columns = np.concatenate([centre, low, high, intensity_sum], axis=1)
        kinds, shares = (objects.kind, objects.share) if names else ((), ())
        for i, row in enumerate(columns):
            values = (f"{value:.10g}" for value in row)
            kind = (names[kinds[i]], f"{shares[i]:.4f}") if names else ()
            writer.writerow([int(objects.id[i]), int(objects.count[i]), *values, int(objects.border[i]), *kind])
        file.detach()


def is_table(path: Path) -> bool:
    """Whether a file begins as a table of objects does."""
    with path.open("rb") as file:
        return file.read(len(HEAD)) == HEAD
