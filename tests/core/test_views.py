"""What is read lazily is indexed as numpy is, and is the same however it is cut up."""

import functools
import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import cells
from kinds import finder, small
from napari_unet.arrays.cached import ChunkCache, chunk_edges
from napari_unet.arrays.classed import ClassedLabels
from napari_unet.arrays.degrade import Blurred
from napari_unet.arrays.resample import Resampled
from napari_unet.arrays.stack import Stack
from napari_unet.arrays.views import Cast, LazyBase, View, Within, Zeros
from napari_unet.events import wait
from napari_unet.examples import nuclei
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diffusion import Completed
from napari_unet.inference.lazy import _Shown
from napari_unet.inference.predict import preview
from napari_unet.inference.samples import EachSample, OverSamples, Several
from napari_unet.inference.seen import ObjectBlocks
from napari_unet.inference.stages import State
from napari_unet.objects.condition import ObjectChannels
from napari_unet.objects.config import ObjectConfig
from napari_unet.objects.decode import _Named, find
from napari_unet.objects.grid import ObjectGrid
from napari_unet.objects.scratch import Scratch
from napari_unet.objects.simulate import simulate_labels
from napari_unet.sources import open_stack
from napari_unet.sources.wholes import WholeNumbers
from napari_unet.training.labels import Foreground
from napari_unet.widgets.layers import Placed

DATA = np.random.default_rng(0).integers(0, 200, (5, 9, 8)).astype(np.uint16)


def tiff(folder):
    tifffile.imwrite(folder / "a.tif", DATA, tile=(16, 16), compression="zlib", photometric="minisblack")
    view = open_stack(folder / "a.tif", axes="zyx").data
    return view.base if isinstance(view, View) else view


def file(folder):
    np.save(folder / "a.npy", DATA)
    view = open_stack(folder / "a.npy", axes="zyx").data
    return view.base if isinstance(view, View) else view


def named(folder):
    read = functools.partial(np.ndarray.__getitem__, (DATA % 3).astype(np.uint8))
    grid, config = ObjectGrid(DATA.shape, (3, 5, 4), "zyx"), ObjectConfig(grow=2)
    wait(find(read, grid, folder / "scratch", config))
    kept = Scratch(folder / "scratch", grid, config)
    return _Named(read, kept, grid, config, tuple(kept.load("ids", "offset", "id")))


def shown(_):
    config = PredictConfig(precision="fp32", device="cpu", block=(16, 16))
    return _Shown(preview(Stack(DATA[:1].repeat(4, 1).repeat(5, 2)[0], "yx"), small(), config))


def objects(_):
    config = PredictConfig(precision="fp32", device="cpu", block=(16, 16))
    return ObjectBlocks(preview(cells((40, 37)), finder(), config).lazy)


def cached(_):
    zarr = pytest.importorskip("zarr")
    base = zarr.create_array(zarr.storage.MemoryStore(), data=DATA, chunks=(2, 4, 5))
    return ChunkCache(base, chunk_edges(base), DATA.nbytes // 2)


LAZY = {
    "View": lambda _: View(DATA, (slice(1, 5), 3, slice(0, 8)), (2, 0)),
    "View of all": lambda _: View.of(DATA).transpose((2, 0, 1)),
    "Cast": lambda _: Cast(DATA > 99, np.dtype(np.uint8)),
    "Within": lambda _: Within(DATA, DATA.shape, (0, 0, 0)),
    "Resampled": lambda _: Resampled(DATA, (5, 3, 11), (1.0, 3.0, 8 / 11)),
    "Blurred": lambda _: Blurred(DATA, (0.0, 1.5, 0.7)),
    "ChunkCache": cached,
    "WholeNumbers": lambda _: WholeNumbers(DATA.astype(np.float32), "labels"),
    "TiffArray": tiff,
    "FileArray": file,
    "_Named": named,
    "_Shown": shown,
    "ObjectBlocks": objects,
    "Foreground": lambda _: Foreground(DATA, Stack(DATA, "zyx"), 99, 0, False, None),
    "Zeros": lambda _: Zeros((5, 9, 8), np.uint16),
    "Within with zeros around": lambda _: Within(DATA, (7, 9, 11), (1, 0, 2), around=0),
    "Placed": lambda _: Placed(DATA, "zyx", "xczy", {"c": 2}),
    "ClassedLabels": lambda _: ClassedLabels(DATA, np.array([3, 7, 90], np.uint64), np.array([2, 1, 2], np.uint64)),
    "Completed": lambda _: Completed(DATA, (5, 12, 11)),
    "Several": lambda _: Several(DATA, 3, False),
    "Several of one": lambda _: Several(DATA, 3, True),
    "OverSamples": lambda _: OverSamples(DATA[[0, 1, 1, 2, 3, 4]], 3, False, True, np.dtype(np.float32)),
    "OverSamples of one": lambda _: OverSamples(DATA, 5, True, False, np.dtype(np.uint16)),
    "EachSample": lambda _: EachSample(DATA[[0, 1, 1, 2, 3, 4]], 3, False, True, np.dtype(np.float32)),
    "EachSample of one": lambda _: EachSample(DATA, 5, True, False, np.dtype(np.uint8)),
    "ObjectChannels": lambda _: ObjectChannels(DATA, (2.0, 1.0, 1.0), 0),
    "ObjectChannels of planes": lambda _: ObjectChannels(DATA // 50, (1.0, 1.0), 1),
    "SimulatedLabels": lambda _: simulate_labels([Stack(nuclei()[1], "yx")], (40, 50)).data,
    "State": lambda _: State(DATA, 1),
    "State of one": lambda _: State(DATA, -1),
}


@pytest.fixture(scope="module", params=LAZY)
def lazy(request, tmp_path_factory):
    return LAZY[request.param](tmp_path_factory.mktemp("lazy"))


def keys(shape):
    """Any index of integers, slices and an ellipsis, for all axes or some."""
    ends = st.none() | st.integers(-12, 12)
    slices = st.builds(slice, ends, ends, st.sampled_from([None, 1, 1, 2, 3, -1, -2]))
    parts = st.tuples(*(slices | st.integers(-n, n - 1) | st.integers(-n, n - 1).map(np.int64) for n in shape))

    def shorter(parts, cut, ellipsis):
        return (*parts[:cut], ..., *parts[len(parts) - ellipsis :]) if ellipsis is not None else parts[:cut]

    counts = st.integers(0, len(shape))
    cuts = counts.flatmap(lambda cut: st.tuples(st.just(cut), st.none() | st.integers(0, len(shape) - cut)))
    return st.builds(lambda parts, cut: shorter(parts, *cut), parts, cuts)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_lazy_array_is_indexed_as_numpy_is(lazy, data):
    whole = np.asarray(lazy)
    key = data.draw(keys(whole.shape))
    assert isinstance(lazy[key], np.ndarray)
    np.testing.assert_array_equal(lazy[key], whole[key], strict=True)


def test_a_lazy_array_says_what_it_holds(lazy):
    whole = np.asarray(lazy)
    assert isinstance(lazy, LazyBase)
    assert (lazy.shape, lazy.ndim, lazy.dtype) == (whole.shape, whole.ndim, whole.dtype)
    assert len(lazy.chunks) == lazy.ndim
    assert min(lazy.chunks) >= 1
    for wrong in (lazy.shape[0], -lazy.shape[0] - 1):
        with pytest.raises(IndexError):
            lazy[wrong]


def test_a_lazy_array_reads_the_same_in_another_process(lazy):
    if not isinstance(lazy, ChunkCache | _Shown):  # of what lies in this process's memory
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)), lazy)


def test_of_a_part_in_its_place_nothing_is_read_beside_it():
    part = Within(DATA[1:4, 2:9, 3:8], DATA.shape, (1, 2, 3))
    assert part.shape == DATA.shape and (part[2:4, 3:9, 4] == DATA[2:4, 3:9, 4]).all()
    for box in (np.s_[0:2, 3:5, 4:6], np.s_[2:3, 3:5, 1:4]):
        with pytest.raises(IndexError, match="leaves what is there"):
            part[box]


def test_every_lazy_array_is_tried():
    ours = {kind.__name__ for kind in LazyBase.__subclasses__() if kind.__module__.startswith("napari_unet.")}
    assert ours <= {name.split()[0] for name in LAZY}
