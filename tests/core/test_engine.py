import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FP32, image_of
from kinds import model_of, random_net, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import UsageError
from napari_unet.grid.tiles import TileGrid
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.engine import PIECE, Engine, pieces, transposed
from napari_unet.inference.flow import Decoder
from napari_unet.inference.layout import block_bytes, choose_layout, choose_tile
from napari_unet.inference.prepare import prepare
from napari_unet.network import UNetConfig, footprint
from napari_unet.store import Output
from napari_unet.task import Semantic
from strategies import configs


@settings(deadline=None, max_examples=25)
@given(configs(), st.randoms())
def test_a_transposed_network_does_the_same_to_a_transposed_image(config, random):
    net = random_net(config)
    field = footprint(config)
    size = [2 * s if not m else r + 2 * m for s, m, r in zip(field.stride, field.margin, field.remainder, strict=True)]
    order = random.choice(list(itertools.permutations(range(config.ndim))))
    places = (0, 1, *(2 + i for i in order))
    x = torch.randn(1, config.in_channels, *size)
    with torch.inference_mode():
        assert torch.allclose(transposed(net, order)(x.permute(places)), net(x).permute(places), atol=1e-4, rtol=1e-4)


@settings(deadline=None)
@given(
    st.sampled_from([2, 3]),
    st.tuples(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 4000)),
    st.floats(0.05, 4),
    st.booleans(),
)
def test_a_layout_covers_the_image_within_its_memory_or_as_near_as_it_can(ndim, shape, memory, planes):
    data = np.broadcast_to(np.uint8(0), shape if ndim == 3 or planes else shape[1:])
    stack = Stack(data=data, axes="zyx"[-data.ndim :])
    engine = Engine(stack, small(ndim), None, **FP32)
    layout = choose_layout(engine, memory * 2**30)
    grid = TileGrid(data.shape, layout.core, engine.footprint)
    assert layout.flow is not None
    assert layout.planes % engine.footprint.stride[layout.flow] == 0
    assert data.shape[layout.flow] == max(data.shape[engine.batch_axes :])
    assert grid[len(grid) - 1].write[-1].stop == data.shape[-1]
    assert choose_layout(engine, 2 * memory * 2**30).core >= (0,) * data.ndim


def test_more_memory_never_gives_smaller_tiles():
    stack = Stack(data=np.broadcast_to(np.uint8(0), (300, 3000, 3000)), axes="zyx")
    engine = Engine(stack, small(3), None, **FP32)
    areas = [np.prod(choose_layout(engine, m * 2**30).core[1:]) for m in (0.05, 0.2, 1, 4, 16)]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]


@pytest.mark.parametrize(("precision", "memory"), [("bf16", 1.0), ("fp32", 2.0)])
def test_a_network_that_sees_the_whole_axis_is_cut_until_it_fits(precision, memory):
    stack = Stack(data=np.broadcast_to(np.uint8(0), (400, 400, 400)), axes="zyx")
    engine = Engine(stack, model_of(UNetConfig(ndim=3, depth=4, base_features=32)), None, "cpu", precision)
    assert block_bytes(engine, choose_layout(engine, memory * 2**30)) <= memory * 2**30


def test_small_planes_go_through_together():
    stack = Stack(data=np.broadcast_to(np.uint8(0), (50, 128, 128)), axes="zyx")
    assert choose_layout(Engine(stack, small(), None, **FP32), 2**31).core[0] == 8


@pytest.mark.parametrize(
    ("axes", "shape", "planes"),
    [
        ("yx", (250, 256), 256),
        ("yx", (360, 360), 360),
        ("yx", (512, 512), 256),
        ("yx", (3000, 512), 256),
        ("yx", (5000, 5000), 64),
        ("tyx", (50, 64, 64), 64),
        ("zyx", (48, 48, 48), 48),
        ("zyx", (60, 60, 60), 36),
        ("zyx", (90, 400, 400), 16),
    ],
)
def test_a_small_image_goes_through_as_a_whole_and_a_large_one_in_slabs(axes, shape, planes):
    stack = Stack(data=np.broadcast_to(np.uint8(0), shape), axes=axes)
    engine = Engine(stack, small(3 if axes == "zyx" else 2), None, **FP32)
    assert choose_layout(engine, 2**31).planes == planes


def test_tiles_for_looking_are_small():
    stack = Stack(data=np.broadcast_to(np.uint8(0), (300, 3000, 3000)), axes="zyx")
    assert max(choose_tile(Engine(stack, small(3), None, **FP32), 2**31)) <= 64


def test_a_device_that_is_not_there_is_named():
    stack = Stack(data=image_of((20, 20)), axes="yx")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="cuda"):
            Engine(stack, small(), None, device="cuda")


def test_engines_of_one_model_share_a_network_that_goes_with_it():
    model, other = small(), small()
    stacks = [Stack(data=image_of((20, size)), axes="yx") for size in (20, 40)]
    nets = [Engine(stack, model, None, **FP32).net((0, 1)) for stack in stacks]
    assert nets[0] is nets[1]
    assert Engine(stacks[0], model, None, "cpu", "bf16").net((0, 1)) is not nets[0]
    assert Engine(stacks[0], other, None, **FP32).net((0, 1)) is not nets[0]
    gone = weakref.ref(nets.pop())
    nets.clear()
    del model
    gc.collect()
    assert gone() is None


def test_a_constant_tile_is_computed_once_and_right():
    model = small(depth=1)
    data = np.zeros((64, 64), np.uint16)
    data[:16] = image_of((16, 64))
    stack = Stack(data=data, axes="yx")
    engine = prepare(stack, model, PredictConfig(device="cpu", precision="fp32")).measured().engine
    calls = []
    engine.net().register_forward_hook(lambda *_: calls.append(1))
    grid = TileGrid((64, 64), (16, 16), footprint(UNetConfig(depth=1, base_features=4)))
    whole = engine.logits(TileGrid((64, 64), (64, 64), engine.footprint)[0], data[None])
    for tile in grid:
        got = engine.logits(tile, engine.read(tile.read))
        assert torch.allclose(got, whole[(slice(None), *tile.write)], atol=1e-4)
    assert len(calls) < 1 + len(grid)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 70), min_size=2, max_size=3), st.integers(1, 9))
def test_pieces_are_small_and_cover_everything_once(shape, channels):
    hits = np.zeros(shape, int)
    for box in pieces(shape, channels):
        hits[box] += 1
        assert channels * np.prod([b.stop - b.start for b in box]) <= max(PIECE, channels)
    assert (hits == 1).all()


@pytest.mark.parametrize("axes", ["czyx", "zyx", "tzyx"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_what_the_network_takes_is_what_was_read_normalised(axes, order):
    data = np.random.default_rng(0).integers(0, 4000, [{"c": 2, "t": 3}.get(a, 40) for a in axes]).astype(np.uint16)
    stack = Stack(data=data, axes=axes)
    model = small(3, in_channels=stack.size("c"))
    engine = prepare(stack, model, PredictConfig(**FP32, each_time="t" in axes)).measured().engine
    box = tuple(slice(1, 3) if a == "t" else slice(0, 40) for a in engine.axes)
    read = engine.read(box)
    wanted = engine.statistics.apply(read, box[0] if "t" in axes else None)
    wanted = wanted.transpose(1, 0, 2, 3, 4) if "t" in axes else wanted[None]
    found = engine.at("bf16").tensor(read, box, order)
    assert found.is_contiguous(memory_format=engine.layout)
    assert torch.equal(found, torch.from_numpy(wanted).bfloat16().permute(0, 1, *(2 + i for i in order)))


@pytest.mark.parametrize("values", [(0, 1), (0, 3, 7)])
def test_classes_are_decoded_in_pieces_as_they_are_on_the_whole(values):
    task = Semantic.of(values)
    logits = torch.randn(40, 50, 60, len(values)).bfloat16().permute(3, 1, 0, 2)
    outputs = [Output(path, "labels", "zyx", logits.shape[1:], task.dtype) for path in ("labels/a",)]
    engine = Engine(Stack(data=np.zeros(logits.shape[1:], np.uint8), axes="zyx"), small(3), None, **FP32)
    found = Decoder(engine, tuple(outputs), (1, 1, 1), task).decode(logits)["labels/a"][0]
    assert (found == np.array(values)[logits.float().argmax(0).numpy()]).all()
    assert found.dtype == task.dtype
