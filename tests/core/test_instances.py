"""Objects: learnt from ids, and the same in a result however the work was cut up."""

import csv
import dataclasses
import os

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from helpers import FP32, cells, stopped_at, tree
from kinds import finder, model_of
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError, UsageError
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.events import Epoch, wait
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict
from napari_unet.model import Model
from napari_unet.network import UNetConfig
from napari_unet.objects import ObjectConfig, objects_of
from napari_unet.objects.borders import touching
from napari_unet.store import verify
from napari_unet.store.table import read_table
from napari_unet.task import Instances, read_task
from napari_unet.task.border import closeness
from napari_unet.task.instances import GROWTH
from napari_unet.task.losses import IGNORE
from napari_unet.training import TrainConfig, train
from warm import warm


def run(stack, model, out, **config):
    return wait(predict(stack, model, out, PredictConfig(**FP32, **config))).data[...]


# What is learnt


def test_the_border_is_of_objects_within_two_pixels_of_another():
    ids = np.zeros((5, 12), int)
    ids[:, :4], ids[:, 4:7], ids[:, 10:] = 1, 2, 3
    assert touching(ids)[2].nonzero()[0].tolist() == [2, 3, 4, 5]
    ids[:, 8:] = 3
    assert touching(ids)[2].nonzero()[0].tolist() == [2, 3, 4, 5, 6, 8]
    line = np.zeros((3, 3, 8), int)
    line[..., :3], line[..., 3:] = 5, 9
    assert touching(line)[1, 1].nonzero()[0].tolist() == [2, 3]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 1.0)])
def test_the_weight_is_that_of_the_paper(spacing):
    ids = np.zeros((20, 24), int)
    ids[3:9, 4:10], ids[10:16, 6:12], ids[4:12, 14:20] = 1, 2, 3
    each = np.sort([ndimage.distance_transform_edt(ids != n, spacing) for n in (1, 2, 3)], axis=0)
    expected = np.exp(-((each[0] + each[1]) ** 2) / (2 * 2.0**2))
    found = closeness(ids, spacing, 2.0)
    near = each[1] < 5
    np.testing.assert_allclose(found[near], expected[near], atol=1e-6)
    assert expected[~near].max() < np.exp(-(2.5**2) / 2) + 1e-6
    target = Instances(w0=10, sigma=2.0, spacing=spacing).encode(ids)
    np.testing.assert_allclose(target[1] / 16, 1 + 10 * found, atol=1 / 32)


def test_one_object_has_no_border_and_the_same_weight_everywhere():
    target = Instances().encode(np.pad(np.full((4, 4), 7), 3))
    assert set(np.unique(target[0])) == {0, 1}
    assert (target[1] == 16).all()
    assert target[2].max() == 1


@pytest.mark.parametrize("ids", [[[0, 7, 7, 2, 0]], [[3, 3, 9]], [[2**40, 5, 2**63 - 1]], [[0, 2**40, 8]], [[0, 0]]])
def test_objects_are_numbered_in_the_order_of_their_ids(ids):
    values = np.array(ids, np.int64)
    expected = [[sorted({0, *ids[0]}).index(value) for value in ids[0]]]
    assert Instances().encode(values)[2].tolist() == expected
    assert Instances().encode(values.astype(np.uint64))[2].tolist() == expected


def test_what_nobody_painted_is_not_learnt():
    ids = np.array([[0, 9, 9, 3, 3, 0]])
    target = Instances(sparse=True, background=9).encode(ids)
    assert target[0].tolist() == [[IGNORE, 0, 0, 1, 1, IGNORE]]
    assert target[2].tolist() == [[0, 0, 0, 1, 1, 0]]
    task, logits = Instances(sparse=True, background=9), torch.randn(1, 3, 1, 6, requires_grad=True)
    task.loss(logits, torch.from_numpy(target)[None]).backward()
    assert (logits.grad[..., [0, 5]] == 0).all()
    assert (logits.grad[..., 1:5] != 0).all()


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_encoded_decodes_to_the_same_objects(ndim, nearest):
    ids = np.zeros((24,) * ndim, int)
    ids[..., 2:12, 2:12], ids[..., 2:12, 12:20], ids[..., 15:22, 5:22] = 4, 2, 9
    task = Instances(nearest=nearest)
    target = task.encode(ids)
    logits = torch.nn.functional.one_hot(torch.from_numpy(target[0]), 3).movedim(-1, 0).float()
    assert (target[0] == 2).any()
    found = objects_of(task.decode(logits), task.objects)
    pairs = np.unique(np.stack([ids.ravel(), found.ravel()]), axis=1)
    assert pairs.shape[1] == 4


def test_scores_and_settings_come_from_the_objects_that_were_seen():
    task, ids = Instances(grow=0), np.zeros((40, 40), int)
    ids[2:18, 2:12], ids[2:18, 12:22], ids[25:35, 5:25] = 1, 2, 3
    target = torch.from_numpy(task.encode(ids))
    logits = 9.0 * torch.nn.functional.one_hot(target[0], 3).movedim(-1, 0).float()
    logits[1, 38, 38] = 20  # a speck
    seen = task.scores()
    seen.add(logits[None], target[None])
    scores = seen.result()
    assert scores["ap_50"] == 3 / 4
    assert 0.9 < scores["dice"] < 1
    settings = seen.settings()
    assert settings["grow"] == 2
    assert settings["min_size"] > 1
    better = dataclasses.replace(task, **settings).scores()
    better.add(logits[None], target[None])
    assert better.result()["ap"] == 1.0
    assert Instances().scores().settings() == {}


def test_a_doubtful_bridge_between_two_objects_is_cut_where_that_scores_more():
    ids = np.zeros((30, 44), int)
    ids[4:26, 2:20], ids[4:26, 24:42] = 1, 2
    task = Instances(nearest=True, grow=3)
    target = torch.from_numpy(task.encode(ids))
    logits = 6.0 * torch.nn.functional.one_hot(target[0], 3).movedim(-1, 0).float()
    logits[:, 12:18, 19:25] = torch.tensor([-0.5, 0.8, -9.0])[:, None, None]
    seen = task.scores()
    seen.add(logits[None], target[None])
    assert seen.result()["ap_50"] == 0
    best = dataclasses.replace(task, **seen.settings())
    again = best.scores()
    again.add(logits[None], target[None])
    assert best.core_margin > 0 and again.result()["ap_50"] == 1


@pytest.mark.parametrize("guess", [0, 1, 2])
def test_where_no_object_is_to_be_found_the_score_says_nothing_whatever_is_found(guess):
    target = torch.from_numpy(Instances().encode(np.zeros((20, 20), int)))[None]
    seen = Instances().scores()
    seen.add(torch.nn.functional.one_hot(torch.full((1, 20, 20), guess), 3).movedim(-1, 1).float(), target)
    assert set(seen.result().values()) == {0.0}


@pytest.mark.parametrize(("outer", "inner"), [(9, 4), (9, 3), (10, 6), (8, 2), (12, 5), (7, 3)])
@pytest.mark.parametrize("square", [False, True])
def test_rings_stay_rings_and_cracks_of_full_objects_are_filled(outer, inner, square):
    y, x = np.mgrid[:60, :60]
    rings, discs = np.zeros((2, 60, 60), int)
    for number, (cy, cx) in enumerate([(14, 14), (14, 44), (44, 14), (44, 44)], 1):
        far = np.maximum(abs(y - cy), abs(x - cx)) ** 2 if square else (y - cy) ** 2 + (x - cx) ** 2
        rings[(far <= outer**2) & (far > inner**2)] = number
        discs[far <= outer**2] = number
    for truth, cracks in ((rings, 0), (discs, 2)):
        target = torch.from_numpy(Instances().encode(truth))
        classes = target[0].clone()
        classes[10:12, 12:14] *= not cracks
        logits = 9.0 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()[None]
        seen = Instances().scores()
        seen.add(logits, target[None])
        best = dataclasses.replace(Instances(), **seen.settings()).scores()
        best.add(logits, target[None])
        assert best.result()["ap"] == 1.0


def test_sizes_are_learnt_from_what_was_painted_whole():
    task, ids = Instances(sparse=True, background=9, grow=0), np.full((40, 80), 9)
    ids[5:15, 5:15], ids[20:30, 5:25] = 1, 2
    ids[:, 40:] = 0
    ids[::4, 38:40] = np.arange(10, 20)[:, None]  # ten objects, cut where nothing is known
    target = torch.from_numpy(task.encode(ids))
    seen, classes = task.scores(), target[0].clamp(0, 2)
    classes[7:13, 7:12] = 0  # a hole that only the largest choice fills
    seen.add(3.0 * torch.nn.functional.one_hot(classes, 3).movedim(-1, 0)[None], target[None])
    assert seen.settings()["fill_holes"] == (100 + 200) // 2 // 4


def test_a_split_turns_inside_into_border():
    logits = torch.tensor([0.0, 1.0, 0.5]).reshape(3, 1, 1)
    assert Instances().decode(logits) == 1
    assert Instances(border_bias=1.0).decode(logits) == 2


def test_it_is_kept_in_a_file_and_what_does_not_fit_is_named():
    for task in (Instances(True, 3, (2.0, 1.0), min_size=9), Instances(nearest=True, core_margin=1.0)):
        assert read_task(task.to_json()) == task
    assert not {"nearest", "core_margin", "reach"} & set(Instances().to_json()), "older models keep their bytes"
    with pytest.raises(ModelError, match="colour"):
        read_task({"name": "instances", "colour": 1})
    for wrong in ({"sparse": True}, {"sigma": 0.0}, {"spacing": (0.0,)}):
        with pytest.raises(DataError):
            Instances(**wrong)
    with pytest.raises(UsageError):
        Instances(min_size=-1)


# What is found

NEW = {"nearest": True, "grow": 4, "core_margin": 0.03, "foreground_bias": 0.01}


@pytest.mark.parametrize(
    ("shape", "ndim", "blocks", "more"),
    [
        ((45, 50), 2, [(16, 16), (32, 14), (64, 64)], {}),
        ((80, 90), 2, [(16, 16), (6, 40), (96, 96)], NEW),
        ((5, 30, 34), 2, [(2, 16, 16), (5, 10, 34)], {}),
        ((18, 20, 22), 3, [(8, 8, 8), (18, 6, 10)], NEW),
        ((2, 9, 20, 22), 3, [(1, 4, 10, 8), (1, 10, 20, 22)], {}),
    ],
)
def test_objects_are_those_of_the_whole_image_ids_included(shape, ndim, blocks, more, tmp_path):
    stack, model = cells(shape), finder(ndim, min_size=3, fill_holes=4, **more)
    found = [run(stack, model, tmp_path / f"{b}.ome.zarr", block=b) for b in blocks]
    classes = run_classes(tmp_path / f"{blocks[0]}.ome.zarr")
    assert bool(more) == (3 in classes) and 1 in classes
    planes = classes.reshape(-1, *shape[-ndim:])
    expected, last = [], 0
    for plane in planes:
        objects = objects_of(plane, model.task.objects).astype(np.int64)
        expected.append(np.where(objects > 0, objects + last, 0))
        last += int(objects.max())
    assert last > 5
    for labels in found:
        np.testing.assert_array_equal(labels, np.reshape(expected, shape))


def run_classes(root):
    from napari_unet.sources import open_stack

    return open_stack(root / "labels" / "instances_classes").data[...]


def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path):
    stack, model, block = cells((30, 20)), finder(min_size=2), (16, 16)
    assert run(stack, model, tmp_path / "whole.ome.zarr", block=block).max() > 3
    config = PredictConfig(**FP32, block=block)
    steps = sum(1 for _ in predict(stack, model, tmp_path / "count.ome.zarr", config))
    for stop in range(1, steps):
        out = tmp_path / f"{stop}.ome.zarr"
        stopped_at(stop, predict(stack, model, out, config))
        wait(predict(stack, model, out, config))
        assert tree(out) == tree(tmp_path / "whole.ome.zarr")
        assert wait(verify(out)) == []
        assert not list(out.rglob("objects*/"))
        assert (out / "labels/instances/table/objects.csv").exists()


KILLED = """
import os, sys

def killed(event, args):
    if (event, sys.argv[2]) == ("os.rename", "table") and str(args[1]).endswith("objects.csv"):
        os.kill(os.getpid(), 9)
    if (event, sys.argv[2]) == ("shutil.rmtree", "scratch") and "trash" in str(args[0]):
        os.kill(os.getpid(), 9)

from helpers import FP32, cells
from kinds import finder
from napari_unet import PredictConfig, predict, wait
sys.addaudithook(killed)
wait(predict(cells((40, 36)), finder(min_size=2), sys.argv[1], PredictConfig(**FP32, block=(16, 16))))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["table", "scratch"])
def test_a_run_that_is_killed_about_its_table_ends_with_it(tmp_path, moment):
    out = tmp_path / "a.ome.zarr"
    assert warm(KILLED, out, moment).wait() == -9
    stack, model = cells((40, 36)), finder(min_size=2)
    run(stack, model, out, block=(16, 16))
    run(stack, model, tmp_path / "whole.ome.zarr", block=(16, 16))
    assert tree(out) == tree(tmp_path / "whole.ome.zarr")
    assert not list(out.rglob("*.partial"))
    assert not list(out.rglob("objects*/"))


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty", "a row more", "other line ends"])
def test_the_table_is_verified(tmp_path, damage):
    out = tmp_path / "a.ome.zarr"
    run(cells((40, 36)), finder(min_size=2), out)
    (path,) = out.rglob("objects.csv")
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = {
            "cut": data[:-3],
            "changed": data.replace(b"1", b"2", 1),
            "empty": b"",
            "a row more": data + data.splitlines(keepends=True)[-1],
            "other line ends": data.replace(b"\n", b"\r"),
        }
        path.write_bytes(changed[damage])
    (problem,) = wait(verify(out))
    assert "objects.csv" in problem


def test_the_table_says_of_each_object_what_its_labels_show(tmp_path):
    stack = dataclasses.replace(cells((40, 36)), scale=(0.5, 0.25), units=("micrometer",) * 2)
    labels = run(stack, finder(min_size=2), tmp_path / "a.ome.zarr", block=(16, 16))
    with (tmp_path / "a.ome.zarr" / "labels" / "instances" / "table" / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == labels.max()
    for row in rows:
        at = np.argwhere(labels == int(row["id"]))
        assert int(row["voxels"]) == len(at)
        assert float(row["centroid_y"]) == pytest.approx(at[:, 0].mean() * 0.5, rel=1e-4)
        assert float(row["first_x"]) == pytest.approx(at[:, 1].min() * 0.25)
        assert float(row["last_y"]) == pytest.approx(at[:, 0].max() * 0.5)
        assert float(row["mean_0"]) == pytest.approx(stack.data[tuple(at.T)].mean(), rel=1e-5)
        edge = (at == 0).any() or (at == np.array(labels.shape) - 1).any()
        assert bool(int(row["touches_border"])) == edge


def test_classes_have_names_and_colours_and_objects_have_none(tmp_path):
    run(cells((40, 36)), finder(min_size=2), tmp_path / "a.ome.zarr", block=(16, 16))
    about = {
        name: zarr.open_group(tmp_path / "a.ome.zarr" / "labels" / name).attrs["ome"]["image-label"]
        for name in ("instances", "instances_classes")
    }
    assert [each["class"] for each in about["instances_classes"]["properties"]] == ["inside", "border"]
    assert not {"properties", "colors"} & set(about["instances"])


def test_options_change_the_objects_and_are_refused_for_classes(tmp_path):
    stack, model = cells((40, 36)), finder()
    every = run(stack, model, tmp_path / "a.ome.zarr")
    sizes = np.bincount(every.ravel())[1:]
    large = run(stack, model, tmp_path / "b.ome.zarr", min_size=20)
    assert large.max() < every.max() == len(sizes)
    split = run(stack, model, tmp_path / "c.ome.zarr", border_bias=3.0)
    assert (split != every).any()
    classes = model_of(UNetConfig(ndim=2, depth=1, base_features=4))
    with pytest.raises(UsageError, match="min_size"):
        run(stack, classes, tmp_path / "d.ome.zarr", min_size=3)
    assert not (tmp_path / "d.ome.zarr").exists()


def test_a_result_is_replaced_whole_and_strangers_in_it_are_left(tmp_path):
    stack, model, out = cells((40, 36)), finder(), tmp_path / "a.ome.zarr"
    run(stack, model, out)
    before = tree(out)
    run(stack, model, out, overwrite=True)
    assert tree(out) == before
    work = predict(stack, model, out, PredictConfig(**FP32, overwrite=True, block=(16, 16)))
    for event in work:
        if event.stage == "objects":
            break
    work.close()
    run(stack, model, out, overwrite=True)
    assert tree(out) == before


# From labels to objects


def discs(seed, size=96):
    rng = np.random.default_rng(seed)
    ids, grid = np.zeros((size, size), np.int32), np.indices((size, size))
    for number in range(1, 10):
        centre, radius = rng.integers(8, size - 8, 2), rng.integers(6, 9)
        near = ((grid - centre[:, None, None]) ** 2).sum(0) <= radius**2
        ids[near & (ids == 0)] = number
    image = (400 * (ids > 0) * ~touching(ids) + rng.normal(100, 20, ids.shape)).clip(0).astype(np.uint16)
    return Stack(data=image, axes="yx", name=f"discs {seed}"), Stack(data=ids, axes="yx", name=f"ids {seed}")


@pytest.mark.parametrize("sparse", [False, True])
def test_training_learns_objects_and_keeps_how_they_are_made(sparse, tmp_path):
    pairs = [discs(seed) for seed in range(5)]
    more = {}
    if sparse:
        painted = [np.where(labels.data == 0, 99, labels.data) for _, labels in pairs]
        for ids in painted:
            ids[:, 40:70] = 0
        pairs = [
            (image, dataclasses.replace(labels, data=ids)) for (image, labels), ids in zip(pairs, painted, strict=True)
        ]
        more = {"sparse": True, "background": 99}
    config = TrainConfig(
        task="instances", steps=120, patch=(64, 64), batch=2, depth=2, base_features=8, precision="fp32", **more
    )
    epochs: list[Epoch] = []
    events = train(pairs, tmp_path / "m", config)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            model = end.value
            break
        epochs += [event] if isinstance(event, Epoch) else []
    assert isinstance(model, Model)
    assert epochs[-1].scores["ap_50"] > 0.5
    assert model.task.nearest and model.task.grow in GROWTH, "what validation chose is in the model"
    image, truth = discs(77)
    found = run(image, model, tmp_path / "a.ome.zarr")
    from napari_unet.metrics.contingency import Contingency
    from napari_unet.metrics.objects import instance_scores

    assert instance_scores(Contingency.of(truth.data, found))["ap_50"] > 0.5


def test_options_that_mean_nothing_for_objects_are_refused():
    for wrong in ({"binary": True}, {"class_names": ("a", "b")}, {"sparse": True}):
        with pytest.raises(UsageError):
            TrainConfig(task="instances", **wrong)


def test_how_objects_are_made_is_the_models_unless_said_otherwise():
    task = Instances(min_size=5, fill_holes=7, border_bias=1.0)
    assert PredictConfig().applied(task) is task
    assert PredictConfig(min_size=9).applied(task) == dataclasses.replace(task, min_size=9)
    assert task.objects == ObjectConfig(5, 7, 2)


def test_ids_go_on_over_time_and_the_table_has_a_row_an_object_and_time(tmp_path):
    still = cells((60, 64)).data
    stack = Stack(data=np.stack([still, np.roll(still, 1, 1), np.roll(still, 2, 1)]), axes="tyx")
    apart = run(stack, finder(), tmp_path / "a.ome.zarr")
    labels = run(stack, finder(), tmp_path / "b.ome.zarr", link=0.3)
    again = run(stack, finder(), tmp_path / "c.ome.zarr", link=0.3, block=(16, 24))
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(labels > 0, apart > 0)
    assert labels.max() < apart.max()
    first, last = (set(np.unique(plane)) - {0} for plane in (labels[0], labels[-1]))
    assert len(first & last) > len(first) / 2
    (path,) = (tmp_path / "b.ome.zarr").rglob("objects.csv")
    rows = list(csv.DictReader(path.open()))
    found = {(int(row["id"]), round(float(row["centroid_t"]))) for row in rows}
    assert found == {(i, t) for t, plane in enumerate(labels) for i in np.unique(plane) if i}
    assert read_table(path) == {}


def test_places_far_from_the_origin_keep_their_digits(tmp_path):
    far = dataclasses.replace(cells((60, 64)), scale=(4.0, 4.0), translation=(3e6, 1234568.0), units=("nanometer",) * 2)
    labels = run(far, finder(), tmp_path / "a.ome.zarr")
    rows = list(csv.DictReader((tmp_path / "a.ome.zarr/labels/instances/table/objects.csv").open()))
    for row in rows:
        y, x = (found.mean() for found in np.nonzero(labels == int(row["id"])))
        assert float(row["centroid_y"]) == pytest.approx(3e6 + 4 * y, abs=0.01)
        assert float(row["centroid_x"]) == pytest.approx(1234568 + 4 * x, abs=0.01)


def test_a_models_objects_are_scored_as_objects_however_few(tmp_path):
    labels = run(cells((60, 64)), finder(), tmp_path / "a.ome.zarr")
    few = np.where(labels <= 3, labels, 0)
    found = evaluate(tmp_path / "a.ome.zarr", few)
    assert found.kind == "instances" and found.scores["n_truth"] == 3
    assert any("a model of objects" in note for note in found.notes)


def test_two_tiffs_in_a_folder_have_two_tables(tmp_path):
    model, stack = finder(min_size=2), cells((60, 64))
    for name in ("a.tif", "a.ome.tif", "a.ome.tiff"):
        wait(predict(stack, model, tmp_path / name, PredictConfig(**FP32)))
    tables = ["a.objects.csv", "a.ome.objects.csv", "a.ome.tiff.objects.csv"]
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == tables
