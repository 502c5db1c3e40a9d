"""Models that were trained at another pixel size, in the window: what is shown and written lies on the image."""

import dataclasses

import numpy as np

from helpers import FP32, cells
from kinds import finder
from napari_unet import PredictConfig, load_model, open_stack, predict, wait
from windows import opened, ran, until


def test_a_diameter_is_given_and_the_result_lies_on_the_image(viewer, folders):
    model = dataclasses.replace(finder(), diameter=9.0, scale=(3.0, 3.0), shrink=(3.0, 3.0))
    model.save(folders / "models" / "coarse.model")
    finder().save(folders / "models" / "plain.model")
    data = np.asarray(cells((90, 84)).data)
    image = viewer.add_image(data, name="cells")
    widget = opened(viewer, folders, "coarse")
    assert not widget.diameter.native.isHidden() and str(widget.size.value) == "as in training"
    assert "3 x 3 pixels become one" in widget.note.value and "27" in widget.note.value
    for diameter in (None, 18):
        widget.diameter.line.value = "" if diameter is None else str(diameter)
        chosen = PredictConfig(block=(32, 32), diameter=diameter, **FP32)
        place = folders / f"{diameter}.ome.zarr"
        want = wait(predict(open_stack(data, "yx"), load_model(folders / "models" / "coarse.model"), place, chosen))
        image.corner_pixels = np.array([[30, 20], [60, 70]])
        widget.show_preview()
        until(lambda: widget._preview.layer is not None and not widget._preview.running)
        shown = widget._preview.layer
        low = np.round(shown.translate).astype(int)
        assert tuple(shown.scale) == (1.0, 1.0) and min(shown.data.shape) >= 30
        assert (low <= 30).all()
        seen, cut = np.asarray(shown.data), shown.features["index"]
        there = np.asarray(want.data)[tuple(slice(n, n + size) for n, size in zip(low, seen.shape, strict=True))]
        whole = (seen > 0) & ~np.isin(seen, cut)
        assert whole.any() and (there[whole] > 0).all()
        assert len(np.unique(np.stack([there[whole], seen[whole]]), axis=1).T) == len(np.unique(seen[whole]))
        widget.out.value = str(folders / f"run {diameter}.ome.zarr")
        layer = ran(widget)
        assert tuple(layer.scale) == (1.0, 1.0) and tuple(layer.translate) == (0.0, 0.0)
        np.testing.assert_array_equal(np.asarray(layer.data), np.asarray(want.data))
    widget.models.use(folders / "models" / "plain.model")
    assert widget.diameter.native.isHidden() and widget.request().config.diameter is None
