"""Objects with classes: learnt from labels and a class of each, and the same however the work was cut up."""

import csv
import dataclasses
import json
import zipfile

import numpy as np
import pytest
import tifffile
import torch

from helpers import FP32, cells, short, stopped_at, tree
from kinds import finder, finder_of_classes
from napari_unet.arrays.classed import apart
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.evaluation.kinds import Tally
from napari_unet.events import wait
from napari_unet.exports import export
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.predict import predict, predict_lazy, preview
from napari_unet.metrics.contingency import Contingency
from napari_unet.objects.classes import with_classes
from napari_unet.sources import open_labels
from napari_unet.store import verify
from napari_unet.store.table import read_table
from napari_unet.task import Instances, read_task
from napari_unet.task.losses import IGNORE
from napari_unet.training import TrainConfig, train
from napari_unet.training.learner import weights_of
from napari_unet.training.setup import outlook

KINDS = ("disc", "ring")


def discs_and_rings(seed, size=96):
    """An image of bright discs and rings, their ids, and the class of each."""
    rng, grid = np.random.default_rng(seed), np.indices((size, size))
    ids, bright, classes = np.zeros((size, size), np.int32), np.zeros((size, size)), {}
    for centre, radius in zip(rng.integers(9, size - 9, (40, 2)), rng.integers(6, 9, 40), strict=True):
        far = np.sqrt(((grid - centre[:, None, None]) ** 2).sum(0))
        if not ids[far <= radius + 1].any():
            number = 10 * len(classes) + 3
            ids[far <= radius], classes[number] = number, KINDS[len(classes) % 2]
            bright[(far <= radius) & (far > radius - 3 * (classes[number] == "ring"))] = 400
    image = (bright + rng.normal(100, 20, ids.shape)).clip(0).astype(np.uint16)
    return Stack(image, "yx", name=f"scene {seed}"), Stack(ids, "yx", name=f"scene {seed}"), classes


def learnt_from(seeds):
    images, labels, classes = zip(*map(discs_and_rings, seeds), strict=True)
    return list(zip(images, with_classes(labels, classes), strict=True))


def painted(labels, classes, part=KINDS):
    """A label image with the class of each object."""
    values = np.zeros(labels.max() + 1, np.uint8)
    for number, name in classes.items():
        values[number] = 1 + KINDS.index(name) if name in part else 0
    return values[labels]


# What is given


def test_ids_and_classes_come_apart_again():
    _, labels, classes = discs_and_rings(0)
    (both,) = with_classes([labels], [classes])
    ids, kinds = apart(both.data[20:60, 10:90])
    np.testing.assert_array_equal(ids, labels.data[20:60, 10:90])
    np.testing.assert_array_equal(kinds, painted(labels.data, classes)[20:60, 10:90])
    assert both.object_classes == KINDS


def test_all_ways_to_give_classes_are_one(tmp_path):
    scenes = [discs_and_rings(seed) for seed in (0, 1)]
    places = {name: tmp_path / name for name in ("ids", "tables", "painted", "masks/disc", "masks/ring")}
    for folder in places.values():
        folder.mkdir(parents=True)
    rows = ["image,id,class"]
    for number, (_, labels, classes) in enumerate(scenes):
        tifffile.imwrite(places["ids"] / f"mask_{number}.tif", labels.data)
        tifffile.imwrite(places["painted"] / f"{number}.tif", painted(labels.data, classes))
        for name in KINDS:
            tifffile.imwrite(places[f"masks/{name}"] / f"{number}.tif", 255 * painted(labels.data, classes, name))
        lines = [f"{i},{name}" for i, name in classes.items()]
        (places["tables"] / f"mask_{number}.csv").write_text("\n".join(["id;class", *lines]).replace(",", ";"))
        rows += [f"{number},{line}" for line in lines]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    labels = [open_labels(path) for path in sorted(places["ids"].iterdir())]
    ways = [places["tables"], tmp_path / "all.csv", tmp_path / "masks", [classes for *_, classes in scenes]]
    found = {str(way): with_classes(labels, way) for way in ways}
    found["painted"] = with_classes(labels, places["painted"], KINDS)
    assert {stack.object_classes for stacks in found.values() for stack in stacks} == {KINDS}
    for number, (_, ids, classes) in enumerate(scenes):
        wanted = painted(ids.data, classes)
        for way, stacks in found.items():
            np.testing.assert_array_equal(apart(stacks[number].data[...])[1], wanted, err_msg=way)
    assert with_classes(labels, places["painted"])[0].object_classes == ("class_1", "class_2")


def test_classes_that_do_not_fit_are_named(tmp_path):
    _, labels, classes = discs_and_rings(0)
    with pytest.raises(DataError, match=r"1 of \d+ classes are of ids that no object of scene 0 has \(7\)"):
        with_classes([labels], [classes | {7: "disc"}])
    half = painted(labels.data, classes)
    half[np.where(labels.data == 3)[0].min() + 6 :] *= labels.data[np.where(labels.data == 3)[0].min() + 6 :] != 3
    half[(labels.data == 3) & (half == 0)] = 2
    with pytest.raises(DataError, match=r"1 of \d+ objects of scene 0 have two classes or more \(id 3\); paint each"):
        with_classes([labels], [half])
    (tmp_path / "a.csv").write_text("id,kind\n3,disc\n")
    with pytest.raises(DataError, match="has the columns id, kind; a table of object classes needs id and class"):
        with_classes([labels], tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("id,class\n3,disc\n3,ring\n")
    with pytest.raises(DataError, match="gives object 3 the classes disc and ring"):
        with_classes([labels], tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"objects have 1 class \(disc\)"):
        with_classes([labels], [{3: "disc"}])
    with pytest.raises(DataError, match="one table for 2 images and does not say which"):
        (tmp_path / "c.csv").write_text("id,class\n3,disc\n13,ring\n")
        with_classes([labels, labels], tmp_path / "c.csv")


def test_objects_without_a_class_are_learnt_as_objects_only():
    _, labels, classes = discs_and_rings(0)
    known = {number: name for number, name in classes.items() if number not in (3, 13)}
    (both,) = with_classes([labels], [known])
    task = Instances(nearest=True, object_classes=KINDS)
    target, plain = task.encode(both.data[...]), Instances(nearest=True).encode(labels.data)
    np.testing.assert_array_equal(target[:3], plain)
    unknown = np.isin(labels.data, (0, 3, 13))
    assert (target[3][unknown] == IGNORE).all()
    np.testing.assert_array_equal(target[3][~unknown], painted(labels.data, classes)[~unknown].astype(int) - 1)
    logits = torch.randn(1, 5, *labels.shape, requires_grad=True)
    task.loss(logits, torch.from_numpy(target)[None]).backward()
    assert (logits.grad[0, 3:, torch.from_numpy(unknown)] == 0).all()
    assert (logits.grad[0, 3:, torch.from_numpy(~unknown)] != 0).all()


def test_classes_need_the_task_of_objects_and_their_own_ids():
    pairs = learnt_from([0])
    for config, says in (
        (TrainConfig(), "learnt with the task instances"),
        (TrainConfig(task="instances", number_objects=True), "number_objects gives other ids"),
    ):
        with pytest.raises(DataError, match=says):
            wait(outlook(pairs, config))
    with pytest.raises(DataError, match="have other classes of objects, disc, ring and none"):
        wait(outlook([*pairs, discs_and_rings(1)[:2]], TrainConfig(task="instances")))


# What is made of it


def test_the_task_is_kept_in_a_file_and_former_ones_keep_their_bytes():
    task = Instances(nearest=True, object_classes=KINDS)
    assert read_task(json.loads(json.dumps(task.to_json()))) == task
    assert "object_classes" not in Instances().to_json()
    assert task.names == ("background", "inside", "border", *KINDS) and task.out_channels == 5
    for wrong in (("a", "a"), ("",)):
        with pytest.raises(DataError, match="class names are"):
            Instances(object_classes=wrong)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_an_inside_says_the_class_and_a_border_does_not(margin):
    logits = torch.zeros(5, 1, 4)
    logits[0, 0, 0], logits[1, 0, 1:3], logits[2, 0, 3] = 3, 3, 3
    logits[3, 0, 1], logits[4, 0, 2:] = 2, 2
    task = Instances(object_classes=KINDS, core_margin=margin)
    inside = 3 if margin else 1
    assert task.decode(logits).tolist() == [[0, inside, inside + 4, 2]]
    names = {each["label-value"]: each["class"] for each in task.attributes()["properties"]}
    assert names[1] == "inside of disc" and names[5] == "inside of ring" and names[2] == "border"
    found = task.probabilities(logits)
    np.testing.assert_allclose([found[:3].sum(0), found[3:].sum(0)], 1, atol=1e-6)


def table_of(root):
    (path,) = root.glob("labels/*/table/objects.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize(
    ("shape", "ndim", "blocks"),
    [((45, 50), 2, [(16, 16), (32, 14), (64, 64)]), ((18, 20, 22), 3, [(8, 8, 8), (18, 6, 10)])],
)
def test_classes_of_objects_are_the_same_for_every_tiling(shape, ndim, blocks, tmp_path):
    stack, model = cells(shape), finder_of_classes(shape, ndim, min_size=3, nearest=True, core_margin=0.02)
    tables = []
    for block in blocks:
        out = tmp_path / f"{block}.ome.zarr"
        wait(predict(stack, model, out, PredictConfig(**FP32, block=block)))
        tables.append((out / "labels/instances/table/objects.csv").read_bytes())
        about = json.loads((out / "labels/instances/zarr.json").read_text())["attributes"]["ome"]["image-label"]
        named = [{"label-value": int(row["id"]), "class": row["class"]} for row in table_of(out)]
        assert about["properties"] == named and len(named) > 5
    assert len(set(tables)) == 1
    assert {row["class"] for row in table_of(out)} == set(KINDS)
    features = read_table(out / "labels/instances")
    assert features["class"].tolist() == ["", *(each["class"] for each in named)]
    assert features["class_share"][1:].min() >= 0.5


def test_a_run_that_is_stopped_goes_on_to_the_same_classes(tmp_path):
    stack, model, config = (
        cells((45, 50)),
        finder_of_classes((45, 50), min_size=3),
        PredictConfig(**FP32, block=(16, 16)),
    )
    steps = sum(1 for _ in predict(stack, model, tmp_path / "whole.ome.zarr", config))
    for stop in range(5, steps, 19):
        out = tmp_path / f"{stop}.ome.zarr"
        stopped_at(stop, predict(stack, model, out, config))
        wait(predict(stack, model, out, config))
        assert tree(out) == tree(tmp_path / "whole.ome.zarr")
        assert wait(verify(out)) == []


def test_training_learns_objects_and_what_each_is(tmp_path):
    config = short(task="instances", steps=70, patch=(48, 48), depth=2, base_features=8)
    model = wait(train(learnt_from(range(5)), tmp_path / "m.model", config))
    assert model.task.object_classes == KINDS
    assert model.record["scores"]["class_accuracy"] > 0.9
    assert "objects of disc, objects of ring" in model.card()
    image, truth, classes = discs_and_rings(77)
    wait(predict(image, model, tmp_path / "a.ome.zarr", PredictConfig(**FP32)))
    rows = table_of(tmp_path / "a.ome.zarr")
    at = [truth.data[round(float(row["centroid_y"])), round(float(row["centroid_x"]))] for row in rows]
    right = [classes.get(number) == row["class"] for number, row in zip(at, rows, strict=True) if number]
    assert len(right) >= 5 and np.mean(right) > 0.9


def test_what_goes_on_from_a_model_of_objects_keeps_what_it_knows(tmp_path):
    pairs, config = learnt_from([0]), short(task="instances", steps=1, depth=1)
    init = finder_of_classes((45, 50), names=("ring", "square"), nearest=True)
    task = Instances(nearest=True, object_classes=KINDS)
    for model, rows in ((init, [0, 1, 2, None, 3]), (finder(nearest=True), [0, 1, 2, None, None])):
        found = weights_of(model, task)
        for name in ("head.weight", "head.bias"):
            for row, before in zip(found[name], rows, strict=True):
                wanted = np.zeros_like(row) if before is None else model.weights[name][before]
                np.testing.assert_array_equal(row, wanted)
    assert weights_of(init, init.task) is init.weights
    seen = outlook(pairs, config, init)
    assert "tells the objects of square apart; these labels have no such class" in "".join(wait(seen).plan.reasons)
    model = wait(train(pairs, tmp_path / "m.model", config, init=init))
    assert model.task.object_classes == KINDS


def test_classes_go_with_objects_to_other_programs(tmp_path):
    out, tiff = tmp_path / "a.ome.zarr", tmp_path / "a.tif"
    for place in (out, tiff):
        wait(predict(cells((45, 50)), finder_of_classes((45, 50), min_size=3), place, PredictConfig(**FP32)))
    wanted = {int(row["id"]): row["class"] for row in table_of(out)}
    for result in (out, tiff):
        wait(export(result, tmp_path / f"{result.suffix}.geojson"))
        features = json.loads((tmp_path / f"{result.suffix}.geojson").read_text())["features"]
        found = {int(each["properties"]["name"]): each["properties"]["classification"]["name"] for each in features}
        assert found == wanted
        wait(export(result, tmp_path / f"{result.suffix}.csv"))
        rows = list(csv.DictReader((tmp_path / f"{result.suffix}.csv").read_text().splitlines()))
        assert {int(row["id"]): row["class"] for row in rows} == wanted
    assert evaluate(tiff, out, "instances").scores["class_accuracy"] == 1


def test_a_lazy_result_and_a_preview_give_the_objects_and_a_preview_says_their_classes(tmp_path):
    stack, model, config = cells((45, 50)), finder_of_classes((45, 50), min_size=3), PredictConfig(**FP32)
    labels = wait(predict(stack, model, tmp_path / "a.ome.zarr", config)).data[...]
    lazy = predict_lazy(stack, model, dataclasses.replace(config, block=(16, 16)))
    np.testing.assert_array_equal(
        np.unique(np.asarray(lazy.data), return_inverse=True)[1].reshape(labels.shape), labels
    )
    *_, (_, _, seen), edges = preview(stack, model, config).seen((slice(0, 45), slice(0, 50)))
    np.testing.assert_array_equal(seen, labels)
    wanted = {int(row["id"]): row["class"] for row in table_of(tmp_path / "a.ome.zarr")}
    assert edges.classes == wanted and len(set(wanted.values())) == 2
    each = [f"{sum(name == kind for name in wanted.values())} {kind}" for kind in ("disc", "ring")]
    assert edges.story() == f"{len(wanted)} objects ({each[0]}, {each[1]})"


def test_a_package_gives_the_same_objects_and_says_what_its_channels_are(tmp_path):
    pytest.importorskip("bioimageio.spec")
    from napari_unet.zoo import Credit, export_model, import_model

    stack, model = cells((160, 160)), finder_of_classes((160, 160), min_size=3)
    path = wait(export_model(model, tmp_path / "a.zip", stack, Credit(("A. Name",), "CC-BY-4.0", ())))
    with zipfile.ZipFile(path) as file:
        assert "of the classes of objects: a softmax for each of the two groups" in file.read("README.md").decode()
    tables = []
    for number, each in enumerate((model, wait(import_model(path, tmp_path / "b.model")))):
        out = tmp_path / f"{number}.ome.zarr"
        wait(predict(stack, each, out, PredictConfig(**FP32)))
        tables.append(table_of(out))
    assert tables[0] == tables[1] and len(tables[0]) > 5


def test_objects_that_are_linked_have_one_class_and_another_pixel_size_changes_nothing_of_the_cut(tmp_path):
    model = dataclasses.replace(finder_of_classes((45, 50), min_size=3), diameter=10.0)
    for wishes, blocks in (
        ({"link": 0.1}, [(1, 16, 16), (2, 64, 64)]),
        ({"diameter": 5.0}, [(1, 16, 16), (3, 30, 20)]),
    ):
        tables = []
        for block in blocks:
            out = tmp_path / f"{wishes}{block}.ome.zarr"
            wait(predict(cells((3, 45, 50)), model, out, PredictConfig(**FP32, block=block, **wishes)))
            tables.append(table_of(out))
        assert tables[0] == tables[1]
        named = {}
        for row in tables[0]:
            named.setdefault(row["id"], set()).add(row["class"])
        assert len(named) > 5 and all(len(names) == 1 for names in named.values())
        assert (len(named) < len(tables[0])) == ("link" in wishes)


# How good it is


def test_each_class_of_objects_is_scored():
    """Counted by hand: of three discs one is a ring, one is missed, and a ring is found where nothing is known."""
    truth, result = np.zeros((10, 60), np.int32), np.zeros((10, 60), np.int32)
    for at in range(5):
        truth[2:8, 10 * at + 1 : 10 * at + 9] = at + 1
        if at != 2:
            result[2:8, 10 * at + 1 : 10 * at + 9] = 9 - at
    result[2:8, 51:58] = 1
    known = {1: "disc", 2: "disc", 3: "disc", 4: "ring"}  # 5 has no class
    seen = {9: "disc", 8: "ring", 6: "ring", 5: "ring", 1: "disc"}
    found = Tally.of(Contingency.of(truth, result), known, seen)
    assert (found + found).scores()["class_accuracy"] == found.scores()["class_accuracy"] == 2 / 3
    assert {k: v for k, v in found.scores().items() if k.endswith("disc")} == {
        "ap_50_disc": 1 / 4,
        "f1_50_disc": 2 / 5,
        "n_truth_disc": 3,
        "n_result_disc": 2,
    }
    assert found.scores()["ap_50_ring"] == 1 / 2, "the one on the object without a class counts for nothing"


def test_a_result_is_scored_by_its_table_and_the_truth_by_what_is_given(tmp_path):
    stack, model = cells((45, 50)), finder_of_classes((45, 50), min_size=3)
    out = tmp_path / "a.ome.zarr"
    truth = wait(predict(stack, model, out, PredictConfig(**FP32))).data[...]
    classes = {int(row["id"]): row["class"] for row in table_of(out)}
    scores = evaluate(out, Stack(truth, "yx"), object_classes=[classes]).scores
    assert scores["class_accuracy"] == scores["ap_50_disc"] == scores["f1_50_ring"] == 1
    assert evaluate(out, out).scores == scores, "a truth with a table of its own has the classes there"
    assert scores["n_truth_disc"] == list(classes.values()).count("disc")
    other = {number: "ring" if name == "disc" else "disc" for number, name in classes.items()}
    assert evaluate(out, Stack(truth, "yx"), object_classes=[other]).scores["class_accuracy"] == 0
    assert "class_accuracy" not in evaluate(out, Stack(truth, "yx")).scores
    found = evaluate(Stack(truth, "yx"), Stack(truth, "yx"), "instances", object_classes=[classes])
    assert any("the result has none" in note for note in found.notes)
    with pytest.raises(UsageError, match="kind instances, not semantic"):
        evaluate(out, Stack(truth, "yx"), "semantic", object_classes=[classes])


def test_scores_of_folders_are_pooled_by_class(tmp_path):
    model = finder_of_classes((45, 50), min_size=3)
    (tmp_path / "found").mkdir()
    for seed in (1, 2):
        wait(predict(cells((45, 50), seed), model, tmp_path / f"found/{seed}.ome.zarr", PredictConfig(**FP32)))
    scores = evaluate(tmp_path / "found", tmp_path / "found").scores
    assert scores["class_accuracy_pooled"] == scores["class_accuracy_mean"] == scores["class_accuracy"] == 1
    assert scores["n_truth_disc"] == sum(scores.get(f"n_truth_disc_{seed}", 0) for seed in (1, 2))
