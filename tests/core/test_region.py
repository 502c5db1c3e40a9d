"""A part of an image that is run alone has the numbers that the whole run has there, at its place."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FP32, image_of
from kinds import finder, restorer, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import UsageError
from napari_unet.events import wait
from napari_unet.inference import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack
from napari_unet.store.save import save_stack
from napari_unet.task import SuperResolve

SIDES = (70, 83)


def run(stack, model, out, **chosen):
    return wait(predict(stack, model, out, PredictConfig(**FP32, **chosen)))


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_classes_and_probabilities_are_those_of_the_whole(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("region")
    stack = Stack(image_of(SIDES), "yx", scale=(0.5, 0.25), units=("micrometer",) * 2, translation=(3.0, 4.0))
    parts = []
    for n in SIDES:
        low = data.draw(st.integers(0, n - 1))
        parts.append(slice(low, data.draw(st.integers(low + 1, n))))
    text = ",".join(f"{p.start}:{p.stop}" for p in parts)
    whole = run(stack, small(), place / "whole.ome.zarr", probabilities=True)
    part = run(stack, small(), place / "part.ome.zarr", probabilities=True, region=text)
    assert part.shape == tuple(p.stop - p.start for p in parts)
    assert part.translation == pytest.approx(
        [t + p.start * s for t, p, s in zip(stack.translation, parts, stack.scale, strict=True)]
    )
    assert (np.asarray(part.data) == np.asarray(whole.data)[tuple(parts)]).all()
    likely, all_of_it = (open_stack(place / f"{name}.ome.zarr" / "probabilities") for name in ("part", "whole"))
    assert (np.asarray(likely.data) == np.asarray(all_of_it.data)[(slice(None), *parts)]).all()


def test_a_region_goes_on_where_it_was_stopped_and_is_not_another(tmp_path):
    wait(save_stack(Stack(image_of(SIDES), "yx"), tmp_path / "a.ome.zarr"))
    stack, chosen = open_stack(tmp_path / "a.ome.zarr"), {"block": (16, 16), "region": "5:60,7:80"}
    running = predict(stack, small(), tmp_path / "r.ome.zarr", PredictConfig(**FP32, **chosen))
    for event in running:
        if type(event).__name__ == "Block":
            break
    running.close()
    found = run(stack, small(), tmp_path / "r.ome.zarr", **chosen)
    whole = run(stack, small(), tmp_path / "w.ome.zarr")
    assert (np.asarray(found.data) == np.asarray(whole.data)[5:60, 7:80]).all()
    assert (np.asarray(open_stack(tmp_path / "r.ome.zarr").data) == np.asarray(stack.data)[5:60, 7:80]).all()
    with pytest.raises(Exception, match="region"):
        run(stack, small(), tmp_path / "r.ome.zarr", region="0:60,7:80")


@pytest.mark.parametrize("text", ["", "1:2", "a:b,c:d", "1:2,3:4,5:6", "5:5,0:9", "0:71,0:9", "9:2,0:9", "-1:2,0:9"])
def test_what_is_no_region_is_refused_with_an_example(tmp_path, text):
    with pytest.raises(UsageError, match="region"):
        run(Stack(image_of(SIDES), "yx"), small(), tmp_path / "a.ome.zarr", region=text)
    assert not (tmp_path / "a.ome.zarr").exists()


def test_a_side_that_is_left_out_is_the_images(tmp_path):
    stack = Stack(np.stack([image_of((40, 44), seed=i) for i in range(3)]), "tyx")
    whole = np.asarray(run(stack, small(), tmp_path / "w.ome.zarr").data)
    assert (np.asarray(run(stack, small(), tmp_path / "r.ome.zarr", region="10:,:20").data) == whole[:, 10:, :20]).all()


def test_a_region_has_no_place_in_its_own_image(tmp_path):
    wait(save_stack(Stack(image_of(SIDES), "yx"), tmp_path / "a.ome.zarr"))
    with pytest.raises(UsageError, match="give a place"):
        run(open_stack(tmp_path / "a.ome.zarr"), small(), tmp_path / "a.ome.zarr", region="0:9,0:9", in_source=True)


def sized(model, *scale, **more):
    return dataclasses.replace(model, scale=scale, units=("micrometer",) * len(scale), **more)


RESAMPLED = {
    "finer": ((70, 83), sized(small(), 0.31, 0.4), {"resample": True}),
    "coarser": ((70, 83), sized(small(), 1.3, 0.9), {"resample": True}),
    "deep, one axis": ((9, 40, 43), sized(small(3), 1.0, 0.7, 0.5), {"resample": True}),
    "as learnt": ((70, 83), sized(small(), 1.1, 1.1, shrink=(2.2, 2.2)), {}),
    "by diameter": ((70, 83), sized(finder(), 0.5, 0.5, diameter=7.0), {"diameter": 10.0}),
    "restored": ((70, 83), sized(restorer(), 0.31, 0.9), {"resample": True}),
    "larger": ((50, 53), sized(restorer(SuperResolve), 0.31, 0.9), {"resample": True}),
}


@pytest.mark.parametrize("kind", RESAMPLED)
@pytest.mark.parametrize("cut", [(0, 1, 2, 3), (3, 4, 5, 5), (1, 5, 0, 2)])  # sixths: ends that lie on no pixel there
def test_a_region_that_is_resampled_has_the_numbers_of_the_whole_at_its_place(tmp_path, kind, cut):
    shape, model, chosen = RESAMPLED[kind]
    chosen = chosen | ({"probabilities": True} if model.task.result == "labels" else {}) | {"block": (16,) * len(shape)}
    stack = Stack(
        image_of(shape),
        "zyx"[-len(shape) :],
        scale=(1.0, 0.5, 0.5)[-len(shape) :],
        units=("micrometer",) * len(shape),
        translation=(2.0, 3.0, 4.0)[-len(shape) :],
    )
    low, high = cut[:2], cut[2:]
    ends = [sorted((n * a // 6, n * b // 6 + 1)) for n, a, b in zip(shape[-2:], low, high, strict=True)]
    part = (*(slice(2, 5),) * (len(shape) - 2), *(slice(*each) for each in ends))
    whole = run(stack, model, tmp_path / "whole.ome.zarr", **chosen)
    text = ",".join(f"{p.start}:{p.stop}" for p in part)
    found = run(stack, model, tmp_path / "part.ome.zarr", region=text, **chosen)
    factor = whole.shape[-1] // shape[-1]
    there = tuple(slice(p.start * factor, p.stop * factor) for p in part)
    assert found.scale == whole.scale
    np.testing.assert_allclose(
        found.translation,
        [t + p.start * s for t, p, s in zip(whole.translation, there, whole.scale, strict=True)],
    )
    names = ["probabilities"] if model.task.result == "labels" else []
    names += [f"labels/{p.name}" for p in (tmp_path / "whole.ome.zarr" / "labels").glob("*_classes")]
    if not any("classes" in name for name in names):  # objects are found within the part
        assert (np.asarray(found.data) == np.asarray(whole.data)[there]).all()
    for name in names:
        one, all_of_it = (np.asarray(open_stack(tmp_path / f"{n}.ome.zarr" / name).data) for n in ("part", "whole"))
        assert (one == all_of_it[(..., *there)]).all()


def test_objects_of_a_region_that_is_resampled_are_made_at_the_pixels_of_the_network(tmp_path):
    stack = Stack(image_of((90, 96)), "yx", scale=(0.5, 0.5), units=("micrometer",) * 2)
    model = sized(finder(min_size=5), 0.65, 0.65)
    whole = run(stack, model, tmp_path / "w.ome.zarr", resample=True)
    all_of_it = run(stack, model, tmp_path / "a.ome.zarr", resample=True, region=":,:")
    assert np.asarray(whole.data).max() > 3
    assert (np.asarray(all_of_it.data) == np.asarray(whole.data)).all()
    part = (slice(20, 77), slice(13, 80))
    found = np.asarray(run(stack, model, tmp_path / "p.ome.zarr", resample=True, region="20:77,13:80").data)
    there = np.asarray(whole.data)[part]
    edge = np.ones(there.shape, bool)
    edge[12:-12, 12:-12] = False
    inner = set(np.unique(there)) - set(np.unique(there[edge]))
    assert len(inner) > 3  # objects that the edge does not reach are the same
    for each in inner:
        (own,) = np.unique(found[there == each])
        assert own and ((found == own) == (there == each)).all()


def test_a_region_behind_a_model_that_makes_pixels_finer_is_in_pixels_of_the_image(tmp_path):
    stack, models = Stack(image_of((30, 33)), "yx"), [restorer(SuperResolve), small()]
    whole = np.asarray(run(stack, models, tmp_path / "w.ome.zarr").data)
    part = np.asarray(run(stack, models, tmp_path / "p.ome.zarr", region="5:20,7:30").data)
    assert (part == whole[10:40, 14:60]).all()


@pytest.mark.parametrize("shape", [(64, 72), (12, 40, 44)])
def test_objects_of_a_region_are_made_of_the_classes_of_the_whole(tmp_path, shape):
    stack, model = Stack(image_of(shape), "zyx"[-len(shape) :]), finder(len(shape))
    part = tuple(slice(n // 5, n - n // 5) for n in shape)
    run(stack, model, tmp_path / "w.ome.zarr")
    found = run(stack, model, tmp_path / "r.ome.zarr", region=",".join(f"{p.start}:{p.stop}" for p in part))
    assert found.shape == tuple(p.stop - p.start for p in part)
    assert np.asarray(found.data).any()
    classes = [open_stack(next((tmp_path / n / "labels").glob("*_classes"))) for n in ("w.ome.zarr", "r.ome.zarr")]
    assert (np.asarray(classes[0].data)[part] == np.asarray(classes[1].data)).all()
    inside = np.asarray(classes[1].data) == 1
    assert (np.asarray(found.data) > 0)[
        inside
    ].all()  # the classes are those of an object's inside, border, and outside
