"""What the forms make of an image: its axes and channels, the model that suits it, and what is said of both."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import zarr
from scipy.ndimage import gaussian_filter

from helpers import image_of
from kinds import small
from napari_unet.cards import SHIPPED
from napari_unet.widgets.segment import WAKING, SegmentWidget
from windows import opened, until


@pytest.fixture
def form(viewer, folders):
    """Segment, with the models that ship alone."""
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    return widget


def shown(control):
    """Whether a control is there, whatever else hides its form."""
    return not control.native.isHidden()


def names(widget):
    return [path.name for path in widget.model.choices]


def test_each_image_gets_the_model_that_suits_it_until_the_user_chooses_one(form, viewer):
    plane = viewer.add_image(image_of((40, 40)), name="plane", scale=(0.5, 0.5), units="um")
    assert form.entry.name == "nuclei-2d" and not form.models.picked
    viewer.layers.clear()
    viewer.add_image(image_of((8, 40, 40)), name="stack", scale=(1.75, 0.8, 0.8), units="um", axis_labels=tuple("zyx"))
    assert form.entry.name == "nuclei-3d" and names(form)[0] == "nuclei-3d"
    viewer.layers.clear()
    viewer.add_image(image_of((40, 40)), name="sections", scale=(4, 4), units="nm")
    assert form.entry.name == "membranes-em" and not form.models.picked
    form.model.value = SHIPPED / "nuclei-2d"
    viewer.add_image(plane.data, name="other", scale=(4, 4), units="nm")
    form.image.value = viewer.layers["other"]
    assert form.entry.name == "nuclei-2d" and form.models.picked


def sections_of(side=160):
    """An image that looks like electron microscopy: edges everywhere, bright and dark in equal parts, and noise."""
    rng = np.random.default_rng(2)
    coarse = gaussian_filter(rng.normal(size=(side, side)), 3)
    return np.clip(133 + 40 * np.sign(coarse) + rng.normal(0, 20, coarse.shape), 0, 255).astype("u1")


def test_an_image_without_a_pixel_size_gets_the_model_that_learnt_from_images_like_it(form, viewer):
    viewer.add_image(sections_of(), name="sections")
    assert form.entry.name == "nuclei-2d"  # until it is known what the image looks like
    until(lambda: form.entry.name == "membranes-em")
    assert not form.models.picked and "sections-membranes-em" in form.out.value
    assert "nuclei-2d (learnt from other images)" in texts_of(form)


def test_tissue_in_rgb_gets_the_model_that_learnt_from_it_and_fluorescence_in_rgb_does_not(form, viewer):
    rng, where = np.random.default_rng(0), np.mgrid[:160, :160]
    nuclei = gaussian_filter((sum((where % 27 - 13) ** 2) < 40).astype(float), 1)[..., None]
    tissue = (215, 205, 225) - nuclei * (130, 150, 80) + rng.normal(0, 3, (160, 160, 3))
    layer = viewer.add_image(tissue.clip(0, 255).astype("u1"), rgb=True, name="tissue")
    until(lambda: form.entry.name == "nuclei-histology")
    assert not form.models.picked
    viewer.add_image(255 - layer.data, rgb=True, name="fluorescence")
    form.image.value = viewer.layers["fluorescence"]
    until(lambda: form.entry.name == "nuclei-2d")


def test_that_no_model_learnt_from_such_images_is_said(form, viewer):
    nuclei = np.where(sum((np.mgrid[:160, :160] % 32 - 16) ** 2) < 60, 200, 20) + np.arange(160) % 7
    viewer.add_image((255 - nuclei).astype("u1"), name="bright field")
    until(lambda: "No model here has learnt from such images" in form.about.value)
    viewer.add_image(nuclei.astype("u1"), name="nuclei")
    form.image.value = viewer.layers["nuclei"]
    assert "No model" not in form.about.value


def test_what_the_user_chose_stays_when_it_is_known_what_the_image_looks_like(form, viewer):
    viewer.add_image(sections_of(), name="sections")
    form.model.value = SHIPPED / "nuclei-2d"
    form.model.changed.emit(form.model.value)
    assert form.models.picked
    until(lambda: "nuclei-2d (learnt from other images)" in texts_of(form))
    assert form.entry.name == "nuclei-2d" and "No model" not in form.about.value


def texts_of(form):
    return [form.model.native.itemText(i) for i in range(form.model.native.count())]


def test_an_image_that_was_open_before_the_form_is_taken_as_one_that_comes_later(viewer, folders):
    layer = viewer.add_image(image_of((6, 40, 40)), name="stack", axis_labels=tuple("zyx"))
    widget = SegmentWidget(viewer)
    assert widget.axes.value == "zyx" and widget.entry.name == "nuclei-3d"
    layer.scale, layer.units = (3, 1.5, 1.5), "um"
    assert "image 3 x 1.5 x 1.5 um" in widget.note.value


def test_a_preview_goes_before_the_look_at_what_a_run_takes(form, viewer):
    viewer.add_image(image_of((60, 60)), name="plane")
    form._check()
    assert form._checking.running
    form.show_preview()
    assert form._checking._stop.is_set()
    until(lambda: form._preview.layer is not None and form.preflight.value.startswith("Takes"), 120)


def test_models_that_do_not_fit_come_last_and_the_list_says_why(form, viewer):
    viewer.add_image(image_of((40, 40)), name="plane")
    texts = texts_of(form)
    assert texts[-1] == "nuclei-3d (needs z)"
    viewer.add_image(image_of((8, 40, 40)), name="stack", scale=(1.75, 0.8, 0.8), units="um")
    form.image.value = viewer.layers["stack"]
    texts = texts_of(form)
    assert texts[0] == "nuclei-3d" and "nuclei-2d (plane by plane)" in texts


def test_a_stack_is_never_run_plane_by_plane_without_a_word(form, viewer):
    viewer.add_image(image_of((8, 40, 40)), name="stack", axis_labels=tuple("zyx"))
    form.model.value = SHIPPED / "nuclei-2d"
    assert form.note.value.startswith("Plane by plane, as the model is 2-D: an object has another number in each plane")
    form.model.value = SHIPPED / "nuclei-3d"
    assert "lane by plane" not in form.note.value


def test_each_model_has_one_plain_sentence_a_card_and_a_picture(form, viewer):
    viewer.add_image(image_of((40, 40)), name="plane")
    assert form.about.value == "Single nuclei in 2-D fluorescence: objects."
    for at in range(form.model.native.count()):
        assert not form.model.native.itemIcon(at).isNull()


def test_typed_axes_offer_the_channel_and_stay_with_another_model(form, viewer):
    viewer.add_image(image_of((2, 6, 40, 40)), name="cells")
    assert form.note.value.startswith("Nothing names its axes: taken as tzyx; type others, such as czyx")
    form.axes.value = "czyx"
    assert form.channel.choices == (0, 1) and shown(form.form._rows[0])
    form.channel.value = 1
    form.model.value = SHIPPED / "nuclei-2d"
    assert form.axes.value == "czyx" and form.channel.value == 1
    request = form.request()
    assert (request.source.axes, request.source.channel) == ("czyx", 1)
    assert request.source.stack().shape == (1, 6, 40, 40)
    form.axes.value = "time, plane, row, column"
    assert form.request().source.axes == "tzyx" and not shown(form.form._rows[0])


def test_axes_that_cannot_be_are_said_and_nothing_runs(form, viewer):
    viewer.add_image(image_of((2, 40, 40)), name="cells")
    form.axes.value = "zy"
    assert "must be letters" in form.note.value
    form.start()
    assert "must be letters" in form.status.value and not form.busy
    form.axes.value = "cyx"
    assert form.request().source.stack(1).axes == "cyx"


def test_a_scale_set_in_the_viewer_later_counts_and_is_in_the_copied_command(form, viewer, folders):
    path = folders / "raw.zarr"
    data = image_of((8, 40, 40))
    zarr.create_array(path, data=data, dimension_names=["z", "y", "x"])
    layer = viewer.add_image(data, name="raw", metadata={"napari_unet": {"path": str(path)}})
    assert "The image has no unit" in form.note.value
    layer.scale, layer.units = (3.5, 1.6, 1.6), "um"
    assert "image 3.5 x 1.6 x 1.6 um" in form.note.value
    form.copy_command()
    assert "--pixel-size '3.5 1.6 1.6 micrometer'" in form.status.value
    form.copy_python()
    assert "pixel_size='3.5 1.6 1.6 micrometer'" in form.status.value


def test_only_settings_that_apply_are_there_and_taken(form, viewer, folders):
    small(2).save(folders / "models" / "flat.model")
    viewer.add_image(image_of((40, 40)), name="plane")
    form.model.value = SHIPPED / "nuclei-2d"
    form.settings["min_size"].value = "7"
    assert form.request().config.min_size == 7
    assert shown(form.settings["min_size"]) and not shown(form.settings["link"])
    form.models.use(folders / "models" / "flat.model")
    assert form.request().config.min_size is None and not shown(form.settings["min_size"])
    assert not shown(form.settings["probability_type"])
    form.probabilities.value = True
    assert shown(form.settings["probability_type"])


def test_how_long_a_run_will_take_is_said(form, viewer):
    viewer.add_image(image_of((200, 200)), name="plane")
    until(lambda: "block" in form.preflight.value)
    assert form.preflight.value.startswith("Takes about ")


def test_run_stays_in_sight_in_a_small_window(form, viewer):
    window = viewer.window._qt_window
    window.resize(1280, 720)
    window.show()
    for _, head in enumerate(form.settings.widgets[::2]):
        head.native.click()
    until(lambda: form.scroll.verticalScrollBar().maximum() > 0)
    for control in (form.preview, form.run, form.cancel):
        native = control.native
        assert native.visibleRegion().boundingRect().height() == native.height()


def test_the_diameter_is_measured_on_what_the_preview_shows(form, viewer):
    labels = np.zeros((90, 90), int)
    grid = np.add.outer((np.arange(90) % 30 - 15) ** 2, (np.arange(90) % 30 - 15) ** 2)
    disks = np.sqrt(grid) <= 10
    labels[disks] = (1 + np.arange(90)[:, None] // 30 * 3 + np.arange(90)[None] // 30)[disks]
    form.diameter._shown = lambda: labels
    form.diameter.measure()
    assert float(form.diameter.line.value) == pytest.approx(20, abs=0.5)
    form.diameter._shown = lambda: None
    form.diameter.measure()
    assert "press Preview first" in form.status.value


def test_the_sign_of_loading_goes_when_all_is_loaded(viewer, folders):
    widget = SegmentWidget(viewer)
    until(lambda: widget.preflight.value == WAKING)
    until(lambda: widget.preflight.value == "")
    viewer.add_image(image_of((40, 48)), name="cells")
    widget = opened(viewer, folders)
    widget.preflight.value = WAKING
    widget.start()
    assert widget.preflight.value == ""
    until(lambda: not widget.busy)
    widget.model.changed.emit(widget.model.value)
    until(lambda: bool(widget.preflight.value))
    assert widget.preflight.value != WAKING  # it is loaded by now
