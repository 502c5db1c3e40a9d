"""Images for labels, and for none: what the network is given of labels, what is learnt, and what `generate` makes."""

import numpy as np
import pytest

from helpers import FP32, call, cells, short
from kinds import sampler
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError, UsageError
from napari_unet.events import wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.model import load_model
from napari_unet.objects.condition import FAR, conditioned
from napari_unet.sources import open_stack
from napari_unet.store.save import save_stack
from napari_unet.task import read_task
from napari_unet.training import TrainConfig, train
from napari_unet.training.job import TrainJob, ViewRequest, Views


def fields(shape, seed=0, count=20):
    """Discs, or balls, of which some touch: ids of 1 ... n."""
    rng, found = np.random.default_rng(seed), np.zeros(shape, np.uint16)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    for number in range(1, count + 1):
        centre = [rng.uniform(0, n) for n in shape]
        inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < rng.uniform(3, 7) ** 2
        found[inside & (found == 0)] = number
    return found


def test_inside_border_and_distance_are_those_of_the_objects():
    labels = np.zeros((40, 40), np.int32)
    labels[5:30, 5:20], labels[5:30, 20:35] = 7, 9
    inside, border, distance = conditioned(Stack(labels, "yx"), "labels", 2).data[...]
    assert (border > 0).sum() == 25 * 4 and border[10, 18:22].all()  # two pixels of each
    assert ((inside + border) == (labels > 0)).all()
    assert (distance[labels == 0] == 0).all() and distance[17, 5:9] * FAR == pytest.approx([1, 2, 3, 4])
    assert distance[17, 12] == pytest.approx(1) and distance[17, 19] == distance[17, 20] == pytest.approx(1 / FAR)


@pytest.mark.parametrize(
    ("axes", "shape", "ndim", "scale"),
    [
        ("yx", (60, 71), 2, (1.0, 1.0)),
        ("zyx", (20, 30, 33), 3, (2.0, 0.5, 0.5)),
        ("zyx", (5, 40, 33), 2, (2.0, 0.5, 0.5)),
        ("tyx", (3, 40, 33), 2, (1.0, 1.0, 1.0)),
    ],
    ids=["plane", "volume", "planes of a volume", "series"],
)
def test_channels_of_labels_are_the_same_however_they_are_cut(axes, shape, ndim, scale):
    stack = conditioned(Stack(fields(shape), axes, scale=scale), "labels", ndim)
    assert stack.size("c") == 3 and stack.axes.replace("c", "") == axes and stack.shape == stack.data.shape
    whole, rng = stack.data[...], np.random.default_rng(1)
    assert whole.std((0, *range(2, whole.ndim)) if axes[0] == "t" else tuple(range(1, whole.ndim))).min() > 0
    for _ in range(30):
        cuts = np.sort([rng.choice(n + 1, 2, replace=False) for n in stack.shape], axis=1)
        box = tuple(slice(int(a), int(b)) for a, b in cuts)
        assert (stack.data[box] == whole[box]).all()


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A model of a few steps that makes objects bright, and the files that it has learnt from."""
    folder = tmp_path_factory.mktemp("condition")
    for name, seed in (("a", 0), ("b", 1)):
        labels = fields((64, 64), seed)
        image = np.where(labels > 0, 200, 50) + np.random.default_rng(seed).normal(0, 5, labels.shape)
        wait(save_stack(Stack(image.astype(np.float32), "yx"), folder / "raw" / f"{name}.ome.zarr"))
        wait(save_stack(Stack(labels, "yx"), folder / "painted" / f"{name}.ome.zarr", kind="labels", name="n"))
    small = ("--steps", 60, "--depth", 1, "--base-features", 4, "--patch", 32, 32, "--batch", 4, "--precision", "fp32")
    places = ("--images", folder / "raw", "--labels", folder / "painted", "--out", folder / "m.model")
    code, said = call("train", "--task", "diffuse", "--condition", "labels", *places, *small)
    assert code == 0, said
    return folder


def test_a_model_learns_to_make_images_for_labels_and_generate_makes_them(learnt, tmp_path):
    model = load_model(learnt / "m.model")
    assert model.channel_names == ("inside", "border", "distance") and read_task(model.task.to_json()) == model.task
    labels = fields((50, 90), 7)
    wait(save_stack(Stack(labels, "yx"), tmp_path / "labels.ome.zarr", kind="labels", name="n"))
    given = (tmp_path / "labels.ome.zarr", "--model", learnt / "m.model", "--out", tmp_path / "image.ome.zarr")
    code, said = call("generate", *given, "--steps", 4, "--seed", 2, "--precision", "fp32")
    assert code == 0, said
    image = np.asarray(open_stack(tmp_path / "image.ome.zarr").data[...])
    assert image.shape == labels.shape
    assert image[labels > 0].mean() > image[labels == 0].mean() + 60
    config = PredictConfig(steps=4, seed=2, block=(16, 16), **FP32)
    same = wait(predict(Stack(labels, "yx"), model, tmp_path / "b.ome.zarr", config))
    assert np.abs(np.asarray(same.data[...]) - image).max() <= 1e-4 * np.abs(image).max()


def test_a_training_from_the_window_shows_what_it_makes_of_labels(learnt):
    settings = {"task": "diffuse", "condition": "labels"}
    pair = {"image": str(learnt / "raw" / "a.ome.zarr"), "labels": str(learnt / "painted" / "a.ome.zarr")}
    job = TrainJob([pair], "m.model", settings)
    views, model = Views(job.viewed(job.stacks())), load_model(learnt / "m.model")
    request = ViewRequest(1, 0, (slice(0, 64), slice(0, 64)))
    found = views.predicted(model, request.image, request.box)
    labels = np.asarray(job.stacks()[0][1].data[...])
    assert found.shape[-2:] == (64, 64) and found.reshape(64, 64)[labels > 0].mean() > found.mean() + 20


def test_images_for_none_have_the_shape_that_is_asked_for(tmp_path):
    pairs = [(Stack(each, "yx"),) * 2 for each in np.random.default_rng(0).normal(100, 9, (2, 48, 48))]
    wait(train(pairs, tmp_path / "m.model", short(task="diffuse", condition="none")))
    given = ("--model", tmp_path / "m.model", "--out", tmp_path / "a.ome.zarr", "--steps", 2)
    code, said = call("generate", "--shape", 30, 41, *given)
    assert code == 0, said
    found = np.asarray(open_stack(tmp_path / "a.ome.zarr").data[...])
    assert found.shape == (30, 41) and np.isfinite(found).all() and found.std() > 1
    assert call("generate", *given)[0] == 2 and call("generate", "--shape", 3, 3, 3, *given)[0] == 2
    with pytest.raises(ModelError, match="condition none, not image"):
        wait(train(pairs, tmp_path / "n.model", short(task="diffuse"), init=tmp_path / "m.model"))


@pytest.mark.parametrize(
    ("condition", "stack", "wishes", "error", "says"),
    [
        ("labels", Stack(np.zeros((40, 40), np.float32), "yx"), {}, DataError, "give whole numbers"),
        ("labels", Stack(np.full((40, 40), -1), "yx"), {}, DataError, "negative"),
        ("labels", Stack(fields((40, 40)), "yx"), {"resample": True}, UsageError, "leave resample out"),
    ],
)
def test_what_is_no_condition_is_refused(condition, stack, wishes, error, says, tmp_path):
    model = sampler(channels=3, depth=1, condition=condition)
    with pytest.raises(error, match=says):
        wait(predict(stack, model, tmp_path / "a.ome.zarr", PredictConfig(steps=2, **wishes, **FP32)))


def test_settings_and_models_that_have_no_condition_are_refused(tmp_path):
    for wishes in ({"task": "restore"}, {"task": "diffuse", "noise": 3.0}, {"task": "diffuse", "upscale": (2, 2)}):
        with pytest.raises(UsageError, match="condition is labels"):
            TrainConfig(condition="labels", **wishes)
    with pytest.raises(UsageError, match="condition is for images"):
        TrainConfig(condition="labels")
    volume = Stack(cells((8, 40, 40)).data.astype(np.float32), "zyx"), Stack(fields((8, 40, 40)), "zyx")
    with pytest.raises(UsageError, match="ndim 2"):
        wait(train([volume], tmp_path / "m.model", short(task="diffuse", condition="labels")))
    sampler().save(tmp_path / "image.model")
    code, said = call(
        "generate", "--shape", 9, 9, "--model", tmp_path / "image.model", "--out", tmp_path / "a.ome.zarr"
    )
    assert code == 2 and "predict" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.model"]
