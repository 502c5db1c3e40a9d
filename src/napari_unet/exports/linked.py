"""Objects linked over time by trackastra, a network that has learnt to, in place of overlap.

A frame is read, its objects are measured, and it is let go; what is held of the whole series are these measures, some
hundred bytes for each object of each window that it lies in. The network sees them window by window, and links are
chosen over the whole series at once, as trackastra does it.
"""

import contextlib
import dataclasses
import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..errors import DataError, UsageError

# What `Trackastra.track` itself takes.
EDGE = 0.05  # least association of two objects that may be linked
FARTHEST = 256  # pixels between them
NEIGHBOURS = 10  # objects that one may be linked to
FRAMES = 2  # least, between which there is something to link
Node = tuple[int, int]  # time and id


@dataclasses.dataclass(frozen=True, slots=True)
class Track:
    """The track that an object is a point of, and the one that this came of by a division; 0 if it came of none."""

    number: int
    parent: int


def tracks_of(labels: Stack, image: Stack | None, model: str) -> dict[Node, Track]:
    """Link the objects of a series: the track of each, by its time and id.

    Parameters
    ----------
    labels : Stack
        Objects, of each time point; ids need not be linked.
    image : Stack
        On the same pixels; of several channels the first is looked at.
    model : str
        Folder of a model of trackastra, or the name of one that trackastra fetches, such as ``general_2d``.

    Raises
    ------
    UsageError
        Where trackastra is not installed, or does not know the model.
    DataError
        Where there is nothing to link, or the model is of another dimension.
    """
    net = _opened(model)
    space = [a for a in labels.spatial if labels.size(a) > 1 or a != "z"]
    if labels.size("t") < FRAMES or image is None:
        raise DataError(
            f"{labels.name} has {labels.size('t')} time points and {'no' if image is None else 'an'} image beside it; "
            "trackastra takes two or more, and the image: give it with --image"
        )
    known = int(net.transformer.config["coord_dim"])
    if len(space) > known:
        raise DataError(f"{labels.name} is {len(space)}-D, the model {model} {known}-D; choose one of {len(space)}-D")
    measured, ids = [], []
    for time in range(labels.size("t")):
        found, features = _measured(labels, image, time, len(space), known)
        ids.append(found)
        measured.append(features)
    return _numbered(_graph(net, measured, len(space)), ids)


def _opened(model: str) -> Any:
    """Return a model of trackastra."""
    try:
        from trackastra.model import Trackastra
    except ImportError as error:
        raise UsageError(
            f"objects are linked by trackastra: pip install 'napari-unet-stacks[trackastra]' ({error})"
        ) from None
    folder = Path(model).expanduser()
    try:
        if folder.is_dir():
            return Trackastra.from_folder(folder, device="automatic")
        return Trackastra.from_pretrained(model, device="automatic")
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{model} is no model of trackastra that can be opened ({type(error).__name__} {str(error)[:200]}); give "
            "the folder of one, with model.pt, config.yaml and train_config.yaml, or a name that trackastra knows"
        ) from error


def _measured(labels: Stack, image: Stack, time: int, ndim: int, known: int) -> tuple[np.ndarray, Any]:
    """Return the ids of a frame's objects, and what trackastra measures of them, numbered 1 ... N."""
    from trackastra.data import WRFeatures
    from trackastra.utils import normalize

    mask = labels.select(t=time)
    ids, inverse = np.unique(np.asarray(mask.data[...]), return_inverse=True)
    there = int(ids[0] == 0)
    numbers = inverse.reshape(mask.shape[-ndim:]).astype(np.int32) + np.int32(1 - there)
    frame = image.select(t=time)
    frame = frame.select(c=0) if "c" in frame.axes else frame
    intensities = normalize(np.asarray(frame.data[...]).reshape(mask.shape[-ndim:]))
    more = (None,) * (1 + known - ndim)  # time; and z, where the model has one and the series has not
    return ids[there:], WRFeatures.from_mask_img(mask=numbers[more], img=intensities[more], t_start=time)


def _graph(net: Any, measured: list[Any], ndim: int) -> tuple[list[Any], Any]:
    """Return all objects, and the graph of those that are linked."""
    from trackastra.data import build_windows
    from trackastra.model.predict import predict_windows
    from trackastra.tracking import build_graph, track_greedy

    size = net.transformer.config["window"]
    windows = build_windows(measured, window_size=size, progbar_class=_quiet, as_torch=True)
    logging.getLogger("trackastra").setLevel(logging.WARNING)
    net.transformer.eval()
    found = predict_windows(
        windows=windows,
        features=measured,
        model=net.transformer,
        edge_threshold=EDGE,
        spatial_dim=ndim,
        batch_size=net.batch_size,
        progbar_class=_quiet,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # bars of its own
        graph = build_graph(found["nodes"], found["weights"], max_distance=FARTHEST, max_neighbors=NEIGHBOURS)
        return found["nodes"], track_greedy(graph)


def _quiet(work: Iterable[Any], **_: Any) -> Iterable[Any]:
    return work


def _numbered(linked: tuple[list[Any], Any], ids: list[np.ndarray]) -> dict[Node, Track]:
    """Return the track of each object, numbered by their first ones; where one divides, each part is a new track."""
    nodes, graph = linked
    tracks: dict[Any, Track] = {}
    found, count = {}, 0
    for node in sorted(nodes, key=lambda each: (each["time"], each["label"])):
        key = node["id"]
        before = list(graph.predecessors(key)) if key in graph else []
        if before and graph.out_degree(before[0]) == 1:
            tracks[key] = tracks[before[0]]
        else:
            count += 1
            tracks[key] = Track(count, tracks[before[0]].number if before else 0)
        time = int(node["time"])
        found[time, int(ids[time][int(node["label"]) - 1])] = tracks[key]
    return found
