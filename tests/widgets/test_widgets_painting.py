"""The Train form: labels that are made and painted with help, what they are taken for, and what is refused."""

import shutil

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

from kinds import small
from napari_unet.errors import DataError, ModelError, UsageError
from napari_unet.process.remote import Remote
from napari_unet.training.job import LARGEST_VIEW, View, ViewRequest, Views, _middle
from napari_unet.widgets.meaning import ASK, CLASSES, OBJECTS, Seen, looked_at
from napari_unet.widgets.train import TrainWidget
from windows import squares, until


def train(viewer):
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train")
    return widget


def with_labels(viewer, labels, **more):
    """Open Train on an image of the labels' size."""
    noise = np.random.default_rng(0).normal(100, 10, labels.shape).astype("f4")
    image = viewer.add_image(noise + 50 * (labels > 0), name="cells")
    drawn = viewer.add_labels(labels, name="drawn", **more)
    widget = train(viewer)
    widget.form.learn_from(image, drawn)
    until(lambda: widget.meaning.seen is not None)
    return widget


def disks(count=25):
    labels = np.zeros((100, 100), np.uint16)
    for i in range(count):
        labels[20 * (i // 5) + 4 : 20 * (i // 5) + 14, 20 * (i % 5) + 4 : 20 * (i % 5) + 14] = i + 1
    return labels


def scribbles():
    labels = np.zeros((100, 100), np.uint8)
    labels[5:15, 5:15], labels[40:50, 40:50] = 1, 2
    return labels


# What labels are taken for


def test_numbered_labels_are_taken_for_objects_and_the_line_says_so(viewer, folders):
    widget = with_labels(viewer, disks())
    assert widget.kind.value == OBJECTS
    assert widget.meaning.line.value == "Taken for 25 objects; background is 0, all that is not painted."
    widget.kind.value = CLASSES
    assert "Taken for 25 classes (1, 2, 3, 4, …)" in widget.meaning.line.value
    assert "look like numbers of objects: choose the task Objects" in widget.meaning.line.value
    assert widget.request().config.task == "semantic"


def test_a_task_that_the_user_chose_stays_with_other_labels(viewer, folders):
    widget = with_labels(viewer, scribbles())
    assert widget.kind.value == CLASSES
    widget.kind.value = OBJECTS
    widget.kind.value = CLASSES
    widget.form.rows[0][1].value = viewer.add_labels(disks(), name="others")
    until(lambda: widget.meaning.seen is not None)
    assert widget.kind.value == CLASSES


def test_classes_in_many_pieces_are_no_objects(viewer, folders):
    widget = with_labels(viewer, (disks() > 0).astype(np.uint8))
    widget.kind.value = OBJECTS
    assert "in many pieces, as classes are: choose the task Classes" in widget.meaning.line.value


def test_background_of_sparse_labels_is_asked_for_and_never_taken_to_be_the_first(viewer, folders):
    widget = with_labels(viewer, scribbles())
    widget.sparse.value = True
    assert widget.background.value == ASK and "background is: choose it" in widget.meaning.line.value
    with pytest.raises(UsageError, match="which label of drawn was painted on background: 1, 2"):
        widget.request()
    widget.background.value = 2
    assert widget.request().config.background == 2
    assert widget.meaning.line.value == "Taken for sparse: 1 class (1); background is 2; 0 is unlabelled."
    widget.background.value = 0
    assert widget.request().config.background is None


@pytest.mark.parametrize(
    ("labels", "sparse", "words"),
    [
        (np.zeros((60, 60), np.uint8), False, "nothing is painted in drawn: paint some of each class"),
        (np.zeros((60, 60), np.uint8), True, "nothing is painted in drawn"),
        (np.eye(60, dtype=np.uint8), True, "only label 1 is painted in drawn: paint a second one too"),
    ],
)
def test_empty_and_one_class_annotations_are_refused_with_the_remedy(labels, sparse, words, viewer, folders):
    widget = with_labels(viewer, labels)
    widget.sparse.value = sparse
    widget.start()
    assert words in widget.status.value and not widget.busy
    assert not (folders / "models").exists()


def test_what_is_painted_later_is_seen(viewer, folders):
    widget = with_labels(viewer, scribbles())
    layer = viewer.layers["drawn"]
    layer.selected_label = 7
    layer.paint((80, 80), 7)
    until(lambda: widget.meaning.seen is not None and 7 in widget.meaning.seen.values)
    assert "3 classes (1, 2, 7)" in widget.meaning.line.value


@pytest.mark.parametrize(("labels", "numbered"), [(disks(), True), (disks(6), True), (scribbles(), False)])
def test_numbers_of_objects_are_known_by_their_count_or_by_single_pieces(labels, numbered):
    from napari.layers import Labels

    work = looked_at([Labels(labels)])
    with pytest.raises(StopIteration) as end:
        while True:
            next(work)
    seen: Seen = end.value.value
    assert seen.numbered == numbered and seen.share == np.count_nonzero(labels) / labels.size


# Where labels lie


@pytest.mark.parametrize(
    ("labels", "image", "words"),
    [
        ({"scale": (1, 1)}, {"scale": (0.5, 0.5)}, "another pixel size"),
        ({"rotate": 90}, {}, "turned, sheared or moved"),
        ({"translate": (500, 500)}, {}, "do not overlap"),
    ],
)
def test_labels_that_lie_elsewhere_are_not_paired_by_index_and_can_be_laid_on_their_image(
    labels, image, words, viewer, folders
):
    data, mask, _ = squares()
    cells = viewer.add_image(data, name="cells", **image)
    drawn = viewer.add_labels(mask, name="drawn", **labels)
    widget = train(viewer)
    widget.form.learn_from(cells, drawn)
    with pytest.raises(DataError, match=words):
        widget.request().stacks()
    widget.painting.lay()
    ((one, other),) = widget.request().stacks()
    assert one.shape == other.shape == (96, 96)
    np.testing.assert_allclose(drawn.data_to_world((7, 9)), cells.data_to_world((7, 9)))


def test_labels_of_the_space_of_an_image_with_channels_are_learnt_from(viewer, folders):
    image = viewer.add_image(np.random.default_rng(0).random((2, 4, 40, 40), "f4"), name="cells")
    drawn = viewer.add_labels(np.ones((4, 40, 40), np.uint8), name="drawn")
    widget = train(viewer)
    widget.form.learn_from(image, drawn)
    assert widget.form.axes.value == "tzyx"
    widget.form.axes.value = "channel, z, y, x"
    ((one, other),) = widget.request().stacks()
    assert (one.axes, other.axes) == ("czyx", "zyx")


# Painting


@pytest.mark.parametrize("axes", ["yx", "zyx", "czyx", "tczyx"])
def test_new_labels_lie_on_the_grid_of_the_image_and_take_the_brush(axes, viewer, folders):
    shape = {"t": 2, "c": 3, "z": 4, "y": 20, "x": 30}
    steps = {"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}
    image = viewer.add_image(
        np.zeros([shape[a] for a in axes]), name="cells", axis_labels=tuple(axes), scale=[steps[a] for a in axes]
    )
    widget = train(viewer)
    widget.painting.new()
    layer = viewer.layers.selection.active
    spatial = axes.replace("c", "")
    assert layer.name == "cells labels" and layer.data.shape == tuple(shape[a] for a in spatial)
    assert (layer.mode, layer.selected_label) == ("paint", 2)
    corner = tuple(shape[a] - 1 for a in spatial)
    whole = tuple(shape[a] - 1 if a != "c" else 0 for a in axes)
    there = [v for v, a in zip(image.data_to_world(whole), axes, strict=True) if a != "c"]
    np.testing.assert_allclose(layer.data_to_world(corner), there)
    assert widget.form.chosen == [(image, layer)]


def test_classes_are_painted_by_buttons_and_keys_and_the_form_knows_which_is_background(viewer, folders):
    image, _, painted = squares()
    viewer.add_image(image, name="cells")
    widget = train(viewer)
    widget.painting.new()
    layer = viewer.layers.selection.active
    for number, control in enumerate(widget.painting.classes, 1):
        control.native.click()
        assert layer.selected_label == number and layer.mode == "paint"
    layer.data = painted.copy()
    until(lambda: widget.meaning.seen is not None and widget.meaning.seen.values == (1, 2))
    assert widget.sparse.value and widget.background.value == 1
    assert widget.meaning.line.value == "Taken for sparse: 1 class (2); background is 1; 0 is unlabelled."
    widget.meaning.names.fields[0].value = "cells"
    assert [control.text for control in widget.painting.classes] == ["Background", "cells", "Class B", "Class C"]
    config = widget.request().config
    assert (config.task, config.sparse, config.background) == ("semantic", True, 1)
    keys = {str(key): action for key, action in layer.keymap.items()}
    keys["Q"](layer)
    assert layer.selected_label == 1


def test_a_result_that_has_just_come_is_not_painted_on_in_the_place_of_the_labels(viewer, folders):
    viewer.add_image(squares()[0], name="cells")
    widget = train(viewer)
    widget.painting.new()
    drawn = viewer.layers.selection.active
    result = viewer.add_labels(squares()[1], name="cells nuclei-2d")
    assert viewer.layers.selection.active is result
    widget.painting.classes[1].native.click()
    assert viewer.layers.selection.active is drawn
    assert (drawn.selected_label, result.mode) == (2, "pan_zoom")
    viewer.layers.remove(drawn)
    viewer.layers.selection = {result}
    widget.painting.classes[1].native.click()
    assert result.mode == "paint"


def test_objects_are_painted_with_a_number_each(viewer, folders):
    viewer.add_image(squares()[0], name="cells")
    widget = train(viewer)
    widget.kind.value = OBJECTS
    widget.painting.new()
    layer = viewer.layers.selection.active
    for number in (2, 3, 4):
        assert layer.selected_label == number
        layer.paint((10 * number, 10), number)
        widget.painting.object.native.click()
    until(lambda: widget.meaning.seen is not None and len(widget.meaning.seen.values) == 3)
    assert widget.sparse.value and widget.kind.value == OBJECTS
    with pytest.raises(UsageError, match="press Background and paint some of it too"):
        widget.request()


def test_the_next_place_is_gone_to_in_three_dimensions_too(viewer, folders):
    image = viewer.add_image(np.zeros((8, 40, 50)), name="cells", scale=(2, 0.5, 0.5))
    places = np.array([[5, 10, 20], [1, 30, 40]])
    viewer.add_points(places, name="cells flat: annotate next", scale=(2, 0.5, 0.5))
    widget = train(viewer)
    for number, place in enumerate(places, 1):
        widget.painting.next_place()
        assert f"place {number} of 2" in widget.status.value
        world = image.data_to_world(place)
        camera = getattr(viewer, "scene", viewer).camera
        assert viewer.dims.point[0] == world[0]
        np.testing.assert_allclose(camera.center[-2:], world[-2:])
    viewer.dims.ndisplay = 3
    widget.painting.next_place()
    np.testing.assert_allclose(camera.center, image.data_to_world(places[0]))


def test_without_places_it_says_how_to_get_some(viewer, folders):
    widget = train(viewer)
    widget.painting.next_place()
    assert "tick Uncertainty below Output in Segment" in widget.status.value


# Going on


def test_fine_tuning_says_from_what_and_refuses_a_model_of_something_else(viewer, folders):
    small(2).save(folders / "models" / "flat.model")
    small(2, in_channels=2).save(folders / "models" / "double.model")
    widget = with_labels(viewer, scribbles())
    assert not widget.tune.enabled
    widget._model = folders / "models" / "flat.model"
    widget.enable()
    assert widget.tune.text == "Fine-tune flat" and widget.tune.enabled
    assert widget.request(widget._model).init == widget._model
    with pytest.raises(ModelError, match="double takes 2 channels"):
        widget.request(folders / "models" / "double.model")
    widget.kind.value = OBJECTS
    widget.fine_tune()
    assert "flat was trained for the task semantic, the form asks for instances" in widget.status.value


def test_a_model_to_start_from_that_is_gone_is_named(viewer, folders):
    small(2).save(folders / "models" / "mine.model")
    image, mask, _ = squares()
    widget = train(viewer)
    widget.form.learn_from(viewer.add_image(image, name="cells"), viewer.add_labels(mask, name="drawn"))
    widget.start_from.value = folders / "models" / "mine.model"
    shutil.rmtree(folders / "models" / "mine.model")
    widget.fine_tune()
    assert not widget.busy
    assert "mine.model is no model any more" in widget.status.value


def test_resume_with_several_and_none_chosen_asks_which(viewer, folders):
    for name in ("one", "two"):
        (folders / "models" / f"{name}.model.training").mkdir(parents=True)
        (folders / "models" / f"{name}.model.job.json").write_text("{}")
    widget = train(viewer)
    assert widget.resume.enabled
    widget.resume_training()
    assert "choose which of the paused runs goes on" in widget.status.value and not widget.busy
    widget.paused.native.hidePopup()


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"dice": 0.0, "dice_cell": 0.0}, "it finds nothing yet (Dice 0 where"),
        ({"dice": 0.4, "dice_cell": 0.8, "dice_background": 0.0}, "it never finds background (Dice 0 where"),
        ({"dice": 0.4, "dice_cell": 0.4}, "done"),
        ({}, "done"),
    ],
)
def test_a_training_that_ends_at_dice_0_says_so(scores, words, viewer, folders):
    widget = train(viewer)
    widget._best = scores
    assert words in widget._verdict()


# The live prediction


def test_a_slow_live_prediction_is_drawn_late_and_the_next_one_waits(viewer, folders, monkeypatch):
    widget = with_labels(viewer, scribbles())
    asked = []
    monkeypatch.setattr(Remote, "ask", lambda self, what: asked.append(what) or True)
    view = widget._view
    view.begin(Remote(print), widget.request(), frozenset())
    view.ask()
    view._since -= 60  # it takes a minute
    view.ask()
    assert len(asked) == 1  # none is asked for while one is on its way
    box = asked[0].box
    data = np.ones([b.stop - b.start for b in box], np.uint8)
    view.draw(View(asked[0], data, (1, 1), "labels", {}))
    assert view.layer in viewer.layers and np.asarray(view.layer.data).all()
    view.ask()
    assert len(asked) == 1 and view._next - view._since > 60 * 4
    view._next = 0
    view.ask()
    assert len(asked) == 2
    view.end()


def test_a_request_before_the_first_step_waits_and_of_a_large_view_the_middle_is_predicted():
    views = Views([None])
    request = ViewRequest(1, 0, (slice(0, 40), slice(0, 5000), slice(0, 3000)))
    assert views.latest([request]) is None and views._waiting is request
    box = _middle(request.box)
    sizes = [b.stop - b.start for b in box]
    assert LARGEST_VIEW / 4 < np.prod(sizes) <= LARGEST_VIEW
    assert all(abs((b.start + b.stop) - (w.start + w.stop)) <= 2 for b, w in zip(box, request.box, strict=True))
