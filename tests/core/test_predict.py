"""Cut up = whole, resumed = undisturbed, and what bad input gets."""

import dataclasses
import itertools
import json
import signal
import time

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import FP32, image_of, stopped_after, tree
from kinds import KINDS, model_of, run_tiled, small, whole_logits
from napari_unet.arrays.resample import ResampledLabels
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, IncompleteError, ModelError, OutputError, ResourceError, UsageError
from napari_unet.events import Block, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.diagnostics import rounding
from napari_unet.inference.engine import Engine
from napari_unet.inference.job import run_settings
from napari_unet.inference.outputs import chunks_of
from napari_unet.inference.pixelsize import resample_to_model
from napari_unet.inference.predict import predict, predict_lazy
from napari_unet.inference.preflight import preflight
from napari_unet.inference.prepare import prepare
from napari_unet.network import UNetConfig
from napari_unet.network.stream import Stream
from napari_unet.sources import open_stack
from napari_unet.store import verify
from strategies import configs
from warm import warm


def agrees(labels, logits):
    """Labels are those of the logits, apart from ties."""
    best = logits.argmax(0)
    ordered = np.sort(logits, axis=0)
    ties = ordered[-1] - ordered[-2] < 1e-4 * max(1, np.abs(logits).max())
    return bool(((labels == best) | ties).all())


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs(images=False), data=st.data())
def test_the_result_does_not_depend_on_how_the_work_was_cut_up(config, data, tmp_path_factory):
    if config.out_channels < 2:
        return
    top = 30 if config.ndim == 3 else 90
    shape = tuple(data.draw(st.integers(1, top), label="shape") for _ in range(config.ndim))
    block = tuple(max(n // 3, data.draw(st.integers(1, 40), label="block")) for n in shape)
    model = model_of(config)
    image = image_of((config.in_channels, *shape))
    out = tmp_path_factory.mktemp("predict") / "out.ome.zarr"
    stack = Stack(data=image, axes="c" + model.axes)
    result = wait(predict(stack, model, out, PredictConfig(block=block, **FP32)))
    assert result.axes == model.axes
    assert agrees(result.read((slice(None),) * config.ndim), whole_logits(model, image))


@pytest.mark.parametrize("ndim", [2, 3])
def test_logits_are_those_of_the_whole_to_1e_4(ndim, tmp_path):
    model = small(ndim, in_channels=2, out_channels=3)
    image = image_of((2, 50, 44, 52)[: ndim + 1])
    stack = Stack(data=image, axes="c" + model.axes)
    config = PredictConfig(block=(16,) * ndim, probabilities=True, probability_type="float16", **FP32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    got = np.asarray(open_stack(tmp_path / "a.ome.zarr" / "probabilities").data[...], np.float32)
    want = torch.from_numpy(whole_logits(model, image)).softmax(0).numpy()
    assert np.abs(got - want).max() <= 1e-3  # float16 has steps of 5e-4 below 1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_mirrored_logits_are_the_mean_over_the_mirror_images_of_the_whole(ndim, padding, tmp_path):
    model, shape = small(ndim, depth=4 - ndim, padding=padding), (20, 28, 36)[-ndim:]
    stack = Stack(data=image_of(shape), axes=model.axes)
    config = {"tta": True, "probabilities": True, "probability_type": "float16", **FP32}
    found = []
    for number, block in enumerate([(16,) * ndim, (24,) * ndim]):
        wait(predict(stack, model, tmp_path / f"{number}.ome.zarr", PredictConfig(block=block, **config)))
        found.append(np.asarray(open_stack(tmp_path / f"{number}.ome.zarr" / "probabilities").data[...], np.float32))
    ways = [c for n in range(ndim + 1) for c in itertools.combinations(range(1, ndim + 1), n)]
    each = [np.flip(whole_logits(model, np.flip(stack.data[None], w).copy()), w) for w in ways]
    whole = torch.from_numpy(np.mean(each, axis=0)).softmax(0).numpy()
    assert np.abs(found[0] - whole).max() <= 1e-3
    assert np.abs(found[0] - found[1]).max() <= 1e-3
    assert np.abs(torch.from_numpy(each[0].copy()).softmax(0).numpy() - whole).max() > 1e-2


@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "tzyx", "cyx", "tczyx"])
def test_a_2d_model_takes_each_plane_for_itself(axes, tmp_path):
    sizes = {"t": 2, "c": 1, "z": 3, "y": 40, "x": 36}
    image = image_of([sizes[a] for a in axes])
    model = small()
    stack = Stack(data=image, axes=axes)
    result = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=(16, 16), **FP32)))
    assert result.axes == axes.replace("c", "")
    planes = image.reshape(-1, 40, 36)
    normal = model.normalisation.measure(stack).apply(planes[None])[0]
    found = np.asarray(result.data[...]).reshape(-1, 40, 36)
    for plane, labels in zip(normal, found, strict=True):
        assert agrees(labels, run_tiled(model.network(), plane[None], (40, 36)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_lazy_equals_written_and_computes_only_what_is_looked_at(ndim, tmp_path):
    model = small(ndim)
    image = image_of((24, 40, 44)[-ndim:])
    stack = Stack(data=image, axes=model.axes)
    written = wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    lazy = predict_lazy(stack, model, PredictConfig(block=(16,) * ndim, **FP32))
    assert (np.asarray(lazy.data) == np.asarray(written.data[...])).mean() > 0.9999
    assert lazy.scale == written.scale


def test_a_lazy_block_is_computed_once(monkeypatch):
    model = small()
    lazy = predict_lazy(Stack(data=image_of((64, 64)), axes="yx"), model, PredictConfig(block=(32, 32), **FP32))
    calls = []
    run = Engine.logits
    monkeypatch.setattr(Engine, "logits", lambda self, *a: calls.append(1) or run(self, *a))
    for _ in range(3):
        np.asarray(lazy.data[:20, :20])
    assert len(calls) == 1


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_of_the_tile_run_tile_by_tile_and_say_so(norm, tmp_path):
    model = model_of(UNetConfig(depth=2, base_features=8, norm=norm))
    stack = Stack(data=image_of((48, 48)), axes="yx")
    events = list(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=(16, 16), **FP32)))
    assert any("seams" in getattr(e, "message", "") for e in events)
    assert open_stack(tmp_path / "a.ome.zarr" / "labels" / "semantic").shape == (48, 48)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_run_resumes_to_the_same_bytes(kind, ndim, tmp_path):
    model = KINDS[kind](ndim)
    stack = Stack(data=image_of({2: (90, 40), 3: (40, 24, 20)}[ndim]), axes="zyx"[-ndim:])
    config = PredictConfig(block={2: (24, 24), 3: (8, 12, 20)}[ndim], probabilities=kind == "semantic", **FP32)
    wait(predict(stack, model, tmp_path / "whole.ome.zarr", config))
    for after in (0, 1, 4, 7):
        cut = tmp_path / f"{after}.ome.zarr"
        stopped_after(after, predict(stack, model, cut, config))
        with pytest.raises(DataError, match="unfinished"):
            open_stack(cut)
        first = next(e for e in predict(stack, model, cut, config) if e.stage == "predict")
        assert first.done >= after
        wait(predict(stack, model, cut, config))
        assert tree(cut) == tree(tmp_path / "whole.ome.zarr")


RUN = """
import sys, torch
torch.set_num_threads(1)
from helpers import FP32
from kinds import KINDS
from napari_unet import PredictConfig, open_stack, predict, wait
kind, source, out = sys.argv[1:]
wait(predict(open_stack(source), KINDS[kind](3), out, PredictConfig(block=(8, 20, 20), **FP32)))
"""


@pytest.mark.parametrize("kind", ["semantic", "super_resolve", "cascade", "diffuse"])
def test_a_killed_run_resumes_to_the_same_bytes(kind, tmp_path):
    source = tmp_path / "source.zarr"
    array = zarr.create_array(
        source, shape=(48, 40, 40), dtype="u2", chunks=(16, 40, 40), dimension_names=["z", "y", "x"]
    )
    array[:] = image_of(array.shape)

    def run(out):
        return warm(RUN, kind, source, out)

    assert run(tmp_path / "whole.ome.zarr").wait() == 0
    out = tmp_path / "cut.ome.zarr"
    for blocks in (3, 12):
        process = run(out)
        while process.poll() is None and sum(1 for _ in done_lines(out)) < blocks:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(out).wait() == 0
    assert tree(out) == tree(tmp_path / "whole.ome.zarr")
    assert not list(out.rglob("*.partial"))


def done_lines(out):
    for ledger in out.rglob("done*.jsonl"):
        yield from ledger.read_text().splitlines()


def test_changed_settings_are_not_resumed_but_named(tmp_path):
    stack = Stack(data=image_of((64, 64)), axes="yx")
    stopped_after(1, predict(stack, small(), tmp_path / "a.ome.zarr", PredictConfig(block=(16, 16), **FP32)))
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="model"):
        wait(
            predict(
                stack,
                model_of(UNetConfig(depth=2, base_features=4), 1),
                tmp_path / "a.ome.zarr",
                PredictConfig(block=(16, 16), **FP32),
            )
        )
    with pytest.raises(OutputError, match="block"):
        wait(predict(stack, small(), tmp_path / "a.ome.zarr", PredictConfig(block=(32, 32), **FP32)))
    assert tree(tmp_path) == before


def test_a_block_that_is_all_background_is_not_run_again(tmp_path):
    """The ledger, not the presence of a chunk, says what is done."""
    model = small()
    stack = Stack(data=np.zeros((64, 64), np.uint8), axes="yx")
    config = PredictConfig(block=(16, 64), **FP32)
    stopped_after(2, predict(stack, model, tmp_path / "a.ome.zarr", config))
    first = next(e for e in predict(stack, model, tmp_path / "a.ome.zarr", config) if e.stage == "predict")
    assert first.done >= 2


def store_with_damage(path, damaged):
    array = zarr.create_array(path, shape=(160, 32), dtype="u2", chunks=(16, 32), dimension_names=["y", "x"])
    array[:] = image_of(array.shape)
    chunk = path / "c" / str(damaged) / "0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[: len(good) // 2])
    return chunk, good


@pytest.mark.parametrize(
    "more", [{}, {"padding": "valid", "norm": "none"}, {"skips": False}, {"kernels": ((1, 3, 3),) * 3}]
)
def test_empty_space_is_computed_once_and_what_is_in_it_exactly(more, tmp_path, monkeypatch):
    model = small(3, **more)
    image = np.full((420, 24, 20), 7, np.uint16)
    image[3, 4, 5] = 900
    image[150:153, 5:9, 4:12] = image_of((3, 4, 8))
    image[330] = 8  # empty too, of another value
    pushed, push = [], Stream.push
    monkeypatch.setattr(Stream, "push", lambda self, *a, **k: pushed.append(1) or push(self, *a, **k))
    config = PredictConfig(block=(32, 24, 20), probabilities=True, probability_type="float16", **FP32)
    stack = Stack(data=image, axes="zyx")
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    once = len(pushed)
    monkeypatch.setattr("napari_unet.inference.flow._only_value", lambda data: None)
    wait(predict(stack, model, tmp_path / "b.ome.zarr", config))
    assert once < (len(pushed) - once) * 0.75
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def test_a_damaged_chunk_costs_its_blocks_only_and_can_be_repaired(tmp_path):
    model = small(depth=1)
    chunk, good = store_with_damage(tmp_path / "bad.zarr", 5)
    config = PredictConfig(block=(16, 32), **FP32)
    with pytest.raises(IncompleteError, match=r"of 10 blocks could not be done .*bad.zarr.*the others are done"):
        wait(predict(open_stack(tmp_path / "bad.zarr"), model, tmp_path / "out.ome.zarr", config))
    done = sum(1 for _ in done_lines(tmp_path / "out.ome.zarr"))
    assert done == 7  # the chunk's block and both of its neighbours depend on it
    chunk.write_bytes(good)
    wait(predict(open_stack(tmp_path / "bad.zarr"), model, tmp_path / "out.ome.zarr", config))
    got = open_stack(tmp_path / "out.ome.zarr" / "labels" / "semantic").data[...]
    image = np.delete(image_of((160, 32)), slice(80, 96), 0)  # what the intensities were measured on
    normal = model.normalisation.measure(Stack(data=image, axes="yx")).apply(image_of((1, 160, 32)))
    assert agrees(got, run_tiled(model.network(), normal, (160, 32)))


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"cascade", "diffuse"}))  # which see all of so small an image
def test_what_a_damaged_chunk_does_not_reach_is_done_and_stays(kind, tmp_path):
    chunk, good = store_with_damage(tmp_path / "bad.zarr", 5)
    config, out = PredictConfig(block=(16, 32), **FP32), tmp_path / "out.ome.zarr"
    with pytest.raises(IncompleteError, match=r"blocks could not be done .*the others are done"):
        wait(predict(open_stack(tmp_path / "bad.zarr"), KINDS[kind](), out, config))
    before = list(done_lines(out))
    assert 3 <= len(before) < 10
    chunk.write_bytes(good)
    result = wait(predict(open_stack(tmp_path / "bad.zarr"), KINDS[kind](), out, config))
    assert set(before) < set(done_lines(out)) and wait(verify(out)) == []
    whole = wait(predict(open_stack(tmp_path / "bad.zarr"), KINDS[kind](), tmp_path / "whole.ome.zarr", config))
    if kind not in ("semantic", "instances"):  # which keep the intensities that they measured without the chunk
        np.testing.assert_array_equal(np.asarray(result.data[...]), np.asarray(whole.data[...]))


def test_missing_chunks_read_as_the_fill_value_and_are_counted(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(64, 64), dtype="u2", chunks=(16, 16), fill_value=7, dimension_names=["y", "x"]
    )
    array[:32] = image_of((32, 64))
    stack = open_stack(tmp_path / "a.zarr")
    events = list(predict(stack, small(), tmp_path / "out.ome.zarr", PredictConfig(**FP32)))
    assert any("8 chunks are not stored" in getattr(e, "message", "") for e in events)
    with pytest.raises(DataError, match="8 chunks"):
        wait(predict(stack, small(), tmp_path / "other.ome.zarr", PredictConfig(missing="error", **FP32)))
    assert not (tmp_path / "other.ome.zarr").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_refused_before_anything_is_written_or_filled(kind, tmp_path):
    image = image_of((32, 32)).astype(np.float32)
    image[3, 4] = np.nan
    stack = Stack(data=image, axes="yx")
    with pytest.raises(DataError, match=r"1 NaN.*\(3, 4\)"):
        wait(predict(stack, KINDS[kind](), tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    assert not list(tmp_path.iterdir())
    filled = wait(predict(stack, KINDS[kind](), tmp_path / "a.ome.zarr", PredictConfig(nan="fill=0", **FP32)))
    assert np.isfinite(np.asarray(filled.data[...])).all()


@pytest.mark.parametrize(
    ("axes", "shape", "ndim", "says"),
    [
        ("cyx", (3, 20, 20), 2, "3 channels, the model needs 1"),
        ("yx", (20, 20), 3, "needs zyx"),
        ("tyx", (2, 20, 20), 3, "with z"),
    ],
)
def test_a_stack_that_does_not_fit_the_model_is_refused(axes, shape, ndim, says, tmp_path):
    with pytest.raises(ModelError, match=says):
        wait(predict(Stack(data=image_of(shape), axes=axes), small(ndim), tmp_path / "a.ome.zarr"))
    assert not list(tmp_path.iterdir())


def test_a_block_with_too_many_sizes_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"block \(4, 16, 16\) has 3 sizes"):
        wait(
            predict(
                Stack(data=image_of((32, 32)), axes="yx"), small(), tmp_path / "a", PredictConfig(block=(4, 16, 16))
            )
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_of_a_result_names_what_made_it(kind, tmp_path):
    stack = Stack(data=image_of((40, 44)), axes="yx", scale=(0.5, 0.5), units=("micrometer",) * 2)
    made = KINDS[kind]()
    models = made if isinstance(made, list) else [made]
    result = wait(predict(stack, made, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    record = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())["attributes"]["napari_unet"]
    assert record["settings"]["model"] == models[-1].sha256
    assert [each["sha256"] for each in record["provenance"].get("cascade", [])] == [m.sha256 for m in models[:-1]]
    finer = models[-2 if len(models) > 1 else 0].config.factors[-1]
    assert result.shape == (40 * finer, 44 * finer) and result.units == stack.units
    np.testing.assert_allclose(result.scale, np.divide(0.5, finer))
    np.testing.assert_allclose(result.translation, 0.5 * (0.5 / finer - 0.5))


def test_scale_units_and_place_come_from_the_source(tmp_path):
    stack = Stack(
        data=image_of((20, 40, 44)),
        axes="zyx",
        scale=(2.0, 0.5, 0.5),
        units=("micrometer",) * 3,
        translation=(1.0, 2.0, 3.0),
    )
    result = wait(predict(stack, small(3, depth=1), tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    for field in ("scale", "units", "translation"):
        assert getattr(result, field) == getattr(stack, field)
    overview = open_stack(tmp_path / "a.ome.zarr")
    assert (np.asarray(overview.data[...]) == stack.data).all()
    assert overview.scale == stack.scale


def test_labels_inside_the_source_leave_the_image_as_it_was(tmp_path):
    image = Stack(data=image_of((40, 40)), axes="yx")
    source = tmp_path / "source.ome.zarr"
    wait(predict(image, small(), source, PredictConfig(name="first", **FP32)))
    before = tree(source)
    wait(predict(open_stack(source), small(), source, PredictConfig(in_source=True, name="second", **FP32)))
    after = tree(source)
    listing = {name for name in before if name.startswith("labels/") and name.count("/") == 1}
    assert {k: v for k, v in after.items() if k in before and k not in listing} == {
        k: v for k, v in before.items() if k not in listing
    }
    assert any(name.startswith("labels/second/") for name in after)


@pytest.mark.parametrize("where", ["", "inside.ome.zarr", ".."])
@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_never_written_over_its_source(kind, where, tmp_path):
    source = tmp_path / "folder" / "source.ome.zarr"
    wait(predict(Stack(data=image_of((32, 32)), axes="yx"), small(), source, PredictConfig(**FP32)))
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="where the image source"):
        wait(predict(open_stack(source), KINDS[kind](), source / where, PredictConfig(overwrite=True, **FP32)))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("axes", "shape", "block", "near", "more"),
    [
        ("zyx", (40, 33, 36), (8, 16, 16), (21.0, 30, 2.5), {}),
        ("tyx", (3, 70, 40), (16, 16), (1, 50, 1000.0), {}),
        ("czyx", (1, 4, 40, 36), (16, 16), (-3, 9, 9), {"norm": "instance"}),
    ],
)
def test_where_somebody_looks_changes_the_order_and_not_the_bytes(precision, axes, shape, block, near, more, tmp_path):
    model = small(len(block), depth=1, **more)
    stack = Stack(data=image_of(shape), axes=axes)
    config = PredictConfig(block=block, precision=precision, device="cpu", probabilities=True)
    order = {}
    for name, point in (("a", None), ("b", near)):
        work = predict(stack, model, tmp_path / f"{name}.ome.zarr", config, near=point)
        order[name] = [event.box for event in work if isinstance(event, Block)]
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")
    found = order["b"]
    assert found != order["a"]
    assert sorted(map(str, found)) == sorted(map(str, order["a"]))
    shape = stack.values_along(axes.replace("c", ""), "shape")
    point = [min(max(p, 0), n - 1) for p, n in zip(near, shape, strict=True)]
    assert all(b.start <= p < b.stop for b, p in zip(found[0], point, strict=True))
    if model.config.ndim < len(point):
        gaps = [max(b[0].start - point[0], point[0] - b[0].stop + 1, 0) for b in found]
        assert gaps == sorted(gaps)


def test_a_run_stopped_and_looked_at_elsewhere_goes_on_to_the_same_bytes(tmp_path):
    model, stack = small(3, depth=1), Stack(data=image_of((40, 32, 32)), axes="zyx")
    config = PredictConfig(block=(8, 16, 16), **FP32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    stopped_after(5, predict(stack, model, tmp_path / "b.ome.zarr", config, near=(30, 0, 0)))
    wait(predict(stack, model, tmp_path / "b.ome.zarr", config, near=(3, 31, 31)))
    assert tree(tmp_path / "a.ome.zarr") == tree(tmp_path / "b.ome.zarr")


def test_a_point_with_too_few_indices_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"near is \(3,\), .* the axes yx"):
        wait(predict(Stack(data=image_of((32, 32)), axes="yx"), small(), tmp_path / "a", near=(3,)))
    assert not list(tmp_path.iterdir())


def in_nanometres(**more):
    return dataclasses.replace(small(3, depth=1), scale=(2000.0, 500.0, 500.0), units=("nanometer",) * 3, **more)


def test_an_image_is_brought_to_the_models_pixel_size_in_another_unit(tmp_path):
    model = in_nanometres()
    stack = Stack(data=image_of((10, 48, 64)), axes="zyx", scale=(2.0, 0.25, 0.25), units=("micrometer",) * 3)
    config = PredictConfig(resample=True, **FP32)
    found = wait(predict(stack, model, tmp_path / "a.ome.zarr", config, near=(5, 47, 63)))
    assert (found.shape, found.scale, found.units) == (stack.shape, stack.scale, stack.units)
    halved = Stack(data=np.asarray(resample_to_model(stack, model, config).data[...]), axes="zyx")
    assert halved.shape == (10, 24, 32)
    want = wait(predict(halved, model, tmp_path / "b.ome.zarr", PredictConfig(**FP32)))
    doubled = ResampledLabels(want.data, stack.shape, (1.0, 0.5, 0.5))[...]
    assert (found.data[...] == doubled).all()
    lazy = predict_lazy(stack, model, config)
    assert (np.asarray(lazy.data) == doubled).all()
    assert lazy.scale == found.scale


def test_a_resampled_run_is_known_again_from_the_image_as_it_is(tmp_path):
    model, config = in_nanometres(), PredictConfig(resample=True, **FP32)
    stack = Stack(data=image_of((10, 48, 64)), axes="zyx", scale=(2.0, 0.25, 0.25), units=("micrometer",) * 3)
    settings = prepare(stack, model, config).settings()
    assert settings == run_settings(resample_to_model(stack, model, config), model, config)
    assert settings["image"]["shape"] == [10, 24, 32]
    assert resample_to_model(stack, model, PredictConfig(**FP32)) is stack


@pytest.mark.parametrize(
    ("units", "says"), [((None,) * 3, "is unknown.*nanometer"), (("micrometer", "pixel", "pixel"), "pixel")]
)
def test_a_pixel_size_without_a_unit_is_not_compared(units, says, tmp_path):
    stack = Stack(data=image_of((10, 48, 64)), axes="zyx", units=units)
    with pytest.raises(DataError, match=f"{says}.*without --resample"):
        wait(predict(stack, in_nanometres(), tmp_path / "a.ome.zarr", PredictConfig(resample=True, **FP32)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no room")])
def test_where_memory_runs_out_slabs_are_halved_and_the_result_is_the_same(fails, tmp_path, monkeypatch):
    model, stack = small(), Stack(data=image_of((300, 40)), axes="yx")
    config = PredictConfig(block=(32, 40), **FP32)
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))
    push, pushed = Stream.push, []

    def limited(self, slab, last=False):
        pushed.append(slab.shape[2])
        if slab.shape[2] > 16:
            raise fails
        return push(self, slab, last)

    monkeypatch.setattr(Stream, "push", limited)
    events = list(predict(stack, model, tmp_path / "b.ome.zarr", config))
    said = [event.message for event in events if "ran out" in event.message]
    assert said == [
        "the memory ran out; going on with slabs of 32 planes",
        "the memory ran out; going on with slabs of 16 planes",
    ]
    assert pushed[:3] == [64, 32, 16]
    one, other = (open_stack(tmp_path / f"{name}.ome.zarr" / "labels" / "semantic") for name in "ab")
    np.testing.assert_array_equal(one.data[...], other.data[...])


def test_where_not_even_the_least_fits_what_is_done_is_kept(tmp_path, monkeypatch):
    model, stack = small(norm="instance"), Stack(data=image_of((96, 40)), axes="yx")
    config, logits, calls = PredictConfig(block=(32, 40), **FP32), Engine.logits, []

    def limited(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("no room")
        return logits(self, *args)

    monkeypatch.setattr(Engine, "logits", limited)
    with pytest.raises(ResourceError, match=r"ran out at a block of 32 x 40 .*finished work is kept"):
        list(predict(stack, model, tmp_path / "a.ome.zarr", config))
    assert sum(1 for _ in done_lines(tmp_path / "a.ome.zarr")) == 2
    wait(predict(stack, model, tmp_path / "a.ome.zarr", config))


def test_where_no_slab_fits_that_is_said(tmp_path, monkeypatch):
    model, stack = small(), Stack(data=image_of((300, 40)), axes="yx")

    def limited(self, slab, last=False):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Stream, "push", limited)
    with pytest.raises(ResourceError, match="finished work is kept"):
        list(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(block=(32, 40), **FP32)))


@pytest.mark.parametrize("block", [(262, 40), (1, 2 * 1031), (131, 7)])
def test_a_block_of_large_primes_is_not_cut_into_single_voxels(block):
    chunks = chunks_of(block, (9000, 9000), "yx")
    assert all(b % c == 0 and c >= min(b, 256) // 2 for b, c in zip(block, chunks, strict=True))
    assert chunks_of((2 * 131,) * 3, (900,) * 3, "zyx") == (131,) * 3


def test_an_error_that_is_not_of_memory_is_not_tried_again(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Stream, "push", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(predict(Stack(data=image_of((40, 40)), axes="yx"), small(), tmp_path / "a.ome.zarr"))


def test_what_bfloat16_changes_is_said_of_a_sample():
    model, stack = small(), Stack(data=image_of((1400, 1300)), axes="yx")
    engine = prepare(stack, model, PredictConfig(device="cpu", precision="bf16")).measured().engine
    found = rounding(engine)
    assert found.voxels == 128 * 128
    assert 0 <= found.changed < 0.2 * found.voxels
    assert str(found).startswith("bf16 changes")
    assert rounding(engine.at("fp32")) is None
    little = prepare(Stack(data=image_of((200, 200)), axes="yx"), model, PredictConfig(device="cpu", precision="bf16"))
    assert rounding(little.measured().engine) is None


@pytest.mark.parametrize("block", [None, (512, 512)])
def test_what_will_take_more_than_the_limit_says_so_beforehand(block, tmp_path):
    stack, model = Stack(data=image_of((600, 520)), axes="yx"), model_of(UNetConfig(ndim=2, depth=5, base_features=64))
    for memory in (0.05, 8):
        config = PredictConfig(**FP32, block=block, memory=memory)
        ahead = str(preflight(stack, model, tmp_path / "a.ome.zarr", config))
        assert ("more than the limit of 0.05 GiB" in ahead) == (memory == 0.05)
