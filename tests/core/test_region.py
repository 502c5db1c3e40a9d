"""A part of an image that is run alone has the numbers that the whole run has there, at its place."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FP32, image_of
from kinds import finder, small
from napari_unet.arrays.stack import Stack
from napari_unet.errors import UsageError
from napari_unet.events import wait
from napari_unet.inference import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.sources import open_stack
from napari_unet.store.save import save_stack

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


def test_a_region_of_what_is_resampled_or_written_into_its_image_is_refused(tmp_path):
    stack = Stack(image_of(SIDES), "yx", scale=(0.5, 0.5), units=("micrometer",) * 2)
    other = dataclasses.replace(small(), scale=(0.7, 0.7), units=("micrometer",) * 2)
    with pytest.raises(UsageError, match="own pixels"):
        run(stack, other, tmp_path / "a.ome.zarr", region="0:9,0:9", resample=True)


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
