import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import DataError, ModelError
from napari_unet.task import LOSSES, Instances, Semantic, read_task
from napari_unet.task.border import LEVELS
from napari_unet.task.losses import IGNORE, Confusion, cross_entropy, dice, focal, likeliest

label_values = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)), min_size=2, max_size=6, unique=True)


def one_hot(target, classes):
    """(*S) class indices -> (K, *S) logits that are sure of them."""
    logits = torch.full((classes, *target.shape), -5.0)
    return logits.scatter_(0, torch.from_numpy(target)[None].clamp_min(0), 5.0)


@settings(deadline=None, max_examples=60)
@given(label_values, st.booleans(), st.integers(0, 2**32 - 1), st.sampled_from([(7,), (4, 5), (2, 3, 4)]))
def test_what_is_encoded_decodes_to_the_same_labels(values, sparse, seed, shape):
    if len(set(values) - {0}) < 2:
        values = [*values, 301]
    task = Semantic.of(values, sparse=sparse)
    kind = np.min_scalar_type(max(values))
    labels = np.array(values, dtype=kind)[np.random.default_rng(seed).integers(0, len(values), shape)]
    target = task.encode(labels)
    found = task.decode(one_hot(target, task.out_channels))
    assert target.dtype == np.int64 and found.dtype == task.dtype
    annotated = labels != 0 if sparse else np.ones(shape, bool)
    assert (target[~annotated] == IGNORE).all()
    assert (found[annotated] == labels[annotated]).all()


@settings(deadline=None, max_examples=30)
@given(label_values, st.sampled_from(LOSSES))
def test_json_gives_the_task_back(values, loss_name):
    task = Semantic.of(values, loss_name=loss_name)
    assert read_task(json.loads(json.dumps(task.to_json()))) == task


def test_0_and_255_are_classes_in_order_and_come_back():
    task = Semantic.of([255, 0])
    assert task.values == (0, 255) and task.names == ("background", "foreground")
    assert task.encode(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]
    assert task.decode(torch.tensor([[0.0, 1.0], [0.5, 0.5]])).tolist() == [255, 0]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.uint64, ">i4", ">u2"])
def test_labels_of_every_integer_type_are_encoded_alike(dtype):
    labels = np.array([[0, 1], [1, 0]]).astype(dtype)
    assert Semantic().encode(labels).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0, 1, 7], np.uint8), "7.*classes are 0, 1"),
        (np.array([0, 1, 2**63], np.uint64), str(2**63)),
        (np.array([0, -1], np.int8), "negative"),
        (np.array([0.0, 1.0]), "float64"),
    ],
)
def test_labels_of_no_class_are_refused(labels, says):
    with pytest.raises(DataError, match=says):
        Semantic().encode(labels)


@pytest.mark.parametrize(
    "values", [[0], [0, 0], [], [3]], ids=["background only", "one value", "nothing", "one object"]
)
def test_one_class_is_refused(values):
    with pytest.raises(DataError, match="two are needed"):
        Semantic.of(values)
    with pytest.raises(DataError, match="two are needed"):
        Semantic.of([*values, 0][-2:], sparse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": (1, 0)},
        {"values": (0, 1), "sparse": True},
        {"class_names": ("a", "a")},
        {"class_names": ("a", "b\n")},
        {"class_weights": (1.0,)},
        {"class_weights": (1.0, float("nan"))},
        {"loss_name": "best"},
        {"values": (0, 1.5)},
    ],
)
def test_a_task_that_cannot_be_is_refused(wrong):
    with pytest.raises(DataError):
        Semantic(**wrong)
    with pytest.raises(ModelError):
        read_task({"name": "semantic", **wrong})


@pytest.mark.parametrize(
    "values", [{"name": "other"}, {}, {"name": ["semantic"]}, {"name": "semantic", "colour": 1}, 5]
)
def test_a_task_that_is_not_ours_is_refused(values):
    with pytest.raises(ModelError):
        read_task(values)


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)])
def test_a_batch_without_annotation_costs_nothing_and_moves_nothing(loss_name, dtype, shape):
    logits = torch.randn((2, 3, *shape), dtype=dtype, requires_grad=True)
    loss = Semantic((1, 2, 3), loss_name=loss_name).loss(logits, torch.full((2, *shape), IGNORE))
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    assert (logits.grad == 0).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.sampled_from(LOSSES), st.sampled_from([1.0, 1e4]), st.booleans())
def test_losses_are_finite_and_ignore_what_is_not_annotated(seed, loss_name, size, weighted):
    draws = torch.Generator().manual_seed(seed)
    logits = (torch.randn((2, 3, 6, 7), generator=draws) * size).bfloat16()
    target = torch.randint(-1, 3, (2, 6, 7), generator=draws)
    task = Semantic((1, 2, 3), class_weights=(1.0, 0.0, 3.0) if weighted else None, loss_name=loss_name)
    other = torch.where((target == IGNORE).unsqueeze(1), logits * 0.25 + 1, logits).requires_grad_()
    loss = task.loss(other, target)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() >= 0
    assert other.grad.isfinite().all()
    assert loss.item() == pytest.approx(task.loss(logits, target).item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("loss_name", LOSSES)
def test_losses_fall_from_wrong_to_right(loss_name):
    target = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 10.0
    task = Semantic((0, 1, 2), loss_name=loss_name)
    steps = [task.loss(right * s, target).item() for s in (-1.0, 0.0, 0.5, 1.0)]
    assert steps == sorted(steps, reverse=True) and steps[-1] < 1e-2


def test_cross_entropy_is_that_of_torch():
    draws = torch.Generator().manual_seed(0)
    logits, target = torch.randn((2, 4, 5, 6), generator=draws), torch.randint(-1, 4, (2, 5, 6), generator=draws)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    wanted = torch.nn.functional.cross_entropy(logits, target, weights, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, target, weights), wanted)


def test_focal_is_the_papers_formula():
    logits, target = torch.tensor([[[0.3, 2.0], [1.1, -1.0]]]), torch.tensor([[1, 1]])
    p = logits.softmax(1)[0, 1]
    torch.testing.assert_close(focal(logits, target), (-((1 - p) ** 2) * p.log()).mean())


def test_dice_is_over_the_classes_that_are_there():
    target = torch.tensor([[0, 0, 1, 1]])
    sure = torch.nn.functional.one_hot(target, 3).movedim(-1, 1) * 50.0
    assert dice(sure, target).item() == pytest.approx(0, abs=1e-4)
    half = sure.clone()
    half[:, :, 3] = torch.tensor([50.0, 0.0, 0.0])  # classes 0 and 1: 2*2/5 and 2*1/3
    assert dice(half, target).item() == pytest.approx(1 - (4 / 5 + 2 / 3) / 2, abs=1e-4)


def test_of_equal_logits_the_first_class_wins_and_nan_is_refused():
    assert likeliest(torch.zeros(4, 3)).tolist() == [0, 0, 0]
    for wrong in (float("nan"), float("inf")):
        for at in range(3):
            logits = torch.zeros(3, 2)
            logits[at, 1] = wrong
            with pytest.raises(ModelError, match="NaN or infinite"):
                Semantic((0, 1, 2)).decode(logits)


def test_probabilities_add_up_to_one():
    found = Semantic((0, 1, 2)).probabilities(torch.randn(3, 4, 5).bfloat16())
    assert found.dtype == np.float32 and np.allclose(found.sum(0), 1)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(1, 4))
def test_scores_added_up_are_the_scores_of_the_whole(seed, parts):
    draws = torch.Generator().manual_seed(seed)
    logits, target = torch.randn((4, 3, 5, 6), generator=draws), torch.randint(-1, 3, (4, 5, 6), generator=draws)
    task = Semantic((0, 4, 9))
    whole, cut = task.scores(), task.scores()
    whole.add(logits, target)
    for part, truth in zip(logits.chunk(parts), target.chunk(parts), strict=True):
        cut.add(part, truth)
    assert whole.result() == cut.result()
    guess, valid = logits.argmax(1), target != IGNORE
    for i, name in enumerate(task.names):
        a, b = (guess == i) & valid, (target == i) & valid
        wanted = 2 * (a & b).sum().item() / (a.sum() + b.sum()).item()
        assert whole.result()[f"dice_{name}"] == pytest.approx(wanted)
    mean = (whole.result()["dice_class_4"] + whole.result()["dice_class_9"]) / 2
    assert whole.result()["dice"] == pytest.approx(mean)


def test_scores_of_nothing_are_zero_not_nan():
    scores = Confusion(("background", "foreground"))
    scores.add(torch.zeros(1, 2, 3), torch.full((1, 3), IGNORE))
    assert scores.result() == {"dice": 0.0}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.sampled_from([(1,), (2,), (1, 3), (1, 2, 3)]))
def test_classes_that_the_truth_lacks_do_not_change_the_score(seed, held):
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(np.array([0, *held])[rng.integers(0, 1 + len(held), (1, 20, 20))])
    guess = torch.where(torch.from_numpy(rng.random((1, 20, 20)) < 0.3), 0, truth)
    false = guess.clone()
    false[(truth == 0) & torch.from_numpy(rng.random((1, 20, 20)) < 0.1)] = 4
    means = []
    for result in (guess, false):
        scores = Confusion(("background", "a", "b", "c", "d"))
        scores.add(torch.nn.functional.one_hot(result, 5).movedim(-1, 1).float(), truth)
        means.append(scores.result()["dice"])
    assert means[0] == means[1] > 0.5


def test_attributes_name_and_colour_each_label():
    found = Semantic((0, 3, 300), ("background", "pore", "grain")).attributes()
    assert [(p["label-value"], p["class"]) for p in found["properties"]] == [(3, "pore"), (300, "grain")]
    assert [len(c["rgba"]) for c in found["colors"]] == [4, 4]
    assert json.loads(json.dumps(found)) == found


def test_what_lies_between_close_parts_of_the_foreground_weighs_more():
    labels = np.zeros((12, 40), np.uint8)
    labels[2:10, 4:10] = labels[2:10, 13:19] = 1
    task = Semantic((0, 1), w0=10.0, sigma=2.0)
    classes, weight = task.encode(labels)
    assert np.array_equal(classes, Semantic((0, 1)).encode(labels))
    far, between = weight[6, 38] / LEVELS, weight[6, 11] / LEVELS
    assert far == 1 and between == pytest.approx(1 + 10 * np.exp(-((2 + 2) ** 2) / 8), abs=0.1)
    assert weight[6, 9] > LEVELS  # on both sides of an edge, or the edge would move
    logits = torch.zeros(1, 2, 12, 40)
    target = torch.from_numpy(np.stack([classes, weight]))[None]
    wrong_between, wrong_far = logits.clone(), logits.clone()
    wrong_between[0, 1, 6, 11] = wrong_far[0, 1, 6, 38] = 5.0
    assert task.loss(wrong_between, target) > task.loss(wrong_far, target)
    scores = task.scores()
    scores.add(logits, target)
    assert np.isfinite(list(scores.result().values())).all()


def test_a_weight_between_parts_needs_a_loss_that_takes_it():
    with pytest.raises(DataError, match=r"w0 is 10.0, but dice takes no weights"):
        Semantic((0, 1), loss_name="dice", w0=10.0)


def test_classes_are_named_in_order_or_by_their_labels():
    assert Semantic.of((0, 3, 7), ("a", "b", "c")).names == ("a", "b", "c")
    assert Semantic.of((0, 3, 7), ("7=cell wall",)).names == ("background", "class_3", "cell wall")
    assert Semantic.of((0, 1), ("1=nucleus",)).names == ("background", "nucleus")
    with pytest.raises(DataError, match="label 4, the labels hold 0, 3, 7"):
        Semantic.of((0, 3, 7), ("4=a",))
    with pytest.raises(DataError, match="different"):
        Semantic.of((0, 3, 7), ("3=a", "7=a"))


@pytest.mark.parametrize("task", [Semantic.of((0, 1)), Instances(w0=0.0), Instances(w0=0.0, sparse=True, background=3)])
@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (6, 20, 20)])
def test_a_border_weight_of_nothing_measures_no_distance(task, most, shape, monkeypatch):
    ids = np.random.default_rng(0).integers(0, most + 1, shape)
    ids = np.minimum(ids, 1) if isinstance(task, Semantic) else ids

    def refuse(*_, **__):
        raise AssertionError("a distance was measured")

    monkeypatch.setattr("scipy.ndimage.distance_transform_edt", refuse)
    target = task.encode(ids)
    assert target.ndim == ids.ndim or (target[1] == LEVELS).all()
