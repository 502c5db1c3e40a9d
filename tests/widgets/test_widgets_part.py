"""A part that is run alone has the numbers of the whole run, at its place, whatever layer it is chosen on."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

from helpers import image_of
from kinds import finder, small
from napari_unet.errors import UsageError
from napari_unet.widgets.part import DRAWN, VISIBLE, WHOLE
from windows import opened, ran, until


@pytest.fixture
def folders(folders):
    """Own folders, with models of two and of three dimensions."""
    learnt = dataclasses.replace(small(2), scale=(1.1, 1.1), units=("micrometer",) * 2, shrink=(2.2, 2.2))
    models = {"flat": small(2), "deep": small(3), "objects": finder(min_size=2), "resampled": learnt}
    for name, model in models.items():
        model.save(folders / "models" / f"{name}.model")
    return folders


LAYERS = {
    "flat": ((96, 120), {"scale": (0.5, 0.5), "translate": (30, -7), "units": "um"}),
    "resampled": ((96, 120), {"scale": (0.5, 0.5), "translate": (30, -7), "units": "um"}),
    "objects": ((96, 120), {"scale": (0.5, 0.5), "translate": (30, -7), "rotate": 30}),
    "deep": ((9, 64, 72), {"scale": (2, 0.5, 0.5), "translate": (4, 30, -7)}),
    "levels": ((96, 120), {"scale": (0.5, 0.5), "translate": (30, -7)}),
    "planes": ((4, 64, 72), {"translate": (4, 30, -7)}),
}


def add(viewer, kind):
    shape, place = LAYERS[kind]
    data = image_of(shape)
    if kind == "levels":
        return viewer.add_image([data, data[::2, ::2], data[::4, ::4]], multiscale=True, name="cells", **place)
    return viewer.add_image(data, name="cells", **place)


def at_place(layer, whole):
    """Where in the whole result the first pixel of another one lies."""
    corner = whole.world_to_data(layer.data_to_world((0,) * layer.ndim))
    assert corner == pytest.approx(np.round(corner), abs=1e-6)
    return np.round(corner).astype(int)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("how", [VISIBLE, DRAWN])
def test_a_part_has_the_numbers_of_the_whole_at_its_place(how, kind, viewer, folders):
    image = add(viewer, kind)
    widget = opened(viewer, folders, kind if kind in ("objects", "deep", "resampled") else "flat", "")
    whole = ran(widget)
    layers = set(viewer.layers)
    if how == DRAWN:
        box = np.array([[10, 12], [10, 60.4], [41, 60.4], [41, 12]])
        corners = np.hstack([np.full((4, image.ndim - 2), 2), box])
        viewer.add_shapes([[image.data_to_world(c) for c in corners]], shape_type="polygon", name="mine")
    else:
        image.corner_pixels = np.array([[0] * image.ndim, [0] * image.ndim])
        image.corner_pixels[:, -2:] = np.array([[20, 30], [50, 64]]) // 2**image.data_level
    widget.part.kind.value = how
    low, high = zip(*(map(int, each.split(":")) for each in widget.part.line.value.split(",")), strict=True)
    if how == DRAWN:
        assert (low[-2:], high[-2:]) == ((10, 12), (42, 61))
    if image.ndim == 3:
        assert (low[0], high[0]) == (0, image.data.shape[0])  # along a slider all of it
    assert 0 < (high[-1] - low[-1]) * (high[-2] - low[-2]) < 0.7 * np.prod(LAYERS[kind][0][-2:])
    part = ran(widget)
    assert part not in layers
    assert part.data.shape == tuple(h - s for s, h in zip(low, high, strict=True))
    np.testing.assert_array_equal(at_place(part, whole), low)
    there = np.asarray(whole.data)[tuple(map(slice, low, high))]
    if kind == "objects":  # they are found within the part: what its edge cuts may be another object there
        assert ((np.asarray(part.data) > 0) == (there > 0)).mean() > 0.9
    else:
        np.testing.assert_array_equal(np.asarray(part.data), there)


def test_a_rectangle_is_drawn_where_there_is_none_and_followed(viewer, folders):
    add(viewer, "flat")
    widget = opened(viewer, folders)
    widget.part.kind.value = DRAWN
    drawn = viewer.layers["part"]
    assert viewer.layers.selection.active is drawn
    assert drawn.mode == "add_rectangle"
    widget.start()
    assert not widget.busy
    assert "draw a rectangle" in widget.status.value
    drawn.add_rectangles(np.array([[31.0, -6.0], [45.0, 9.0]]))
    assert widget.part.line.value == "2:31,2:33"
    drawn.selected_data = {0}
    drawn.remove_selected()
    drawn.add_rectangles(np.array([[31.0, -6.0], [35.0, 9.0]]))
    assert widget.part.line.value == "2:11,2:33"
    drawn.data = [np.array([[900.0, 900], [900, 950], [950, 950], [950, 900]])]
    assert "lies beside cells" in widget.status.value
    widget.part.kind.value = WHOLE
    assert widget.request().config.region is None


def test_a_part_is_of_its_image_alone(viewer, folders):
    add(viewer, "flat")
    widget = opened(viewer, folders)
    widget.part.kind.value = VISIBLE
    assert widget.request().config.region
    viewer.add_image(image_of((50, 50)), name="other")
    assert widget.part.kind.value == VISIBLE
    widget.image.value = viewer.layers["other"]
    assert widget.part.kind.value == WHOLE
    widget.part.kind.value, widget.part.line.value = VISIBLE, "0:10,5:"
    assert "--region 0:10,5:" in _command(widget, folders)
    widget.part.line.value = "0:10"
    widget.start()
    until(lambda: not widget.busy)
    assert "give y0:y1,x0:x1" in widget.status.value


def test_a_part_is_in_pixels_of_the_level_that_it_was_chosen_on(viewer, folders):
    add(viewer, "levels")
    widget = opened(viewer, folders)
    widget.part.kind.value = VISIBLE
    level = next(size for size in widget.size.choices if size.level)
    with widget.size.changed.blocked():  # as another model brings another level with it
        widget.size.value = level
    with pytest.raises(UsageError, match="another level"):
        widget.request()
    widget.part.kind.native.activated.emit(1)
    assert widget.request().config.region
    widget.size.value = widget.size.choices[0]
    assert widget.request().config.region is None


def _command(widget, folders):
    from napari_unet.widgets.snippets import command

    widget.image.value.metadata = {"napari_unet": {"path": _stored(folders)}}
    return command(widget.request())


def _stored(folders):
    import tifffile

    tifffile.imwrite(folders / "a.tif", image_of((50, 50)), metadata={"axes": "YX"})
    return str(folders / "a.tif")
