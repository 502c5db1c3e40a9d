"""The Batch widget in a real viewer: what happened to each file of a folder is seen, and so is the odd one."""

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

import tifffile
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from helpers import image_of
from kinds import finder, restorer_of, small
from napari_unet import open_labels
from napari_unet.events import Progress
from napari_unet.network import UNetConfig
from napari_unet.summary import Files, Row
from napari_unet.widgets.batch import BatchWidget
from napari_unet.widgets.montage import odd, picture
from napari_unet.widgets.plate import SHADE, PlateMap
from plates import plate
from windows import until


def batch_of(viewer, folders):
    (folders / "images").mkdir()
    for i in range(3):
        tifffile.imwrite(folders / "images" / f"{i}.tif", image_of((40, 50), i), metadata={"axes": "YX"})
    (folders / "images" / "broken.tif").write_bytes(b"II*\0 nothing")
    small(2).save(folders / "elsewhere" / "flat.model")
    widget = BatchWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Batch")
    widget.models.use(folders / "images")
    assert "is no model" in widget.status.value
    widget.models.use(folders / "elsewhere" / "flat.model")
    widget.folder.value, widget.out.value = folders / "images", folders / "out"
    return widget


def cells(widget):
    table = widget.table
    return [[table.item(r, c).text() for c in range(table.columnCount())] for r in range(table.rowCount())]


def test_a_folder_is_segmented_and_the_table_says_what_happened(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.start()
    until(lambda: not widget.busy)
    rows = {row[0]: row for row in cells(widget)}
    assert [rows[f"{i}.tif"][1] for i in range(3)] == ["done"] * 3
    assert rows["broken.tif"][1] == "failed"
    assert rows["broken.tif"][2]
    assert rows["0.tif"][2].startswith("foreground")
    assert widget.status.value.startswith("3 done, 1 failed")
    assert (folders / "out" / "summary.csv").is_file()
    widget.start()
    until(lambda: not widget.busy)
    assert widget.status.value.startswith("3 skipped, 1 failed")


@pytest.mark.parametrize(("series", "states"), [("", {"done"}), ("1", {"done", "failed"}), ("small", {"failed"})])
def test_the_image_that_a_batch_takes_of_each_file_is_chosen(viewer, folders, series, states):
    widget = batch_of(viewer, folders)
    widget.pattern.value, widget.reading.series.value = "[1-9].tif", series
    with tifffile.TiffWriter(folders / "images" / "2.tif") as file:
        for size in (40, 24):
            file.write(image_of((size, size)), metadata=None)
    widget.start()
    until(lambda: not widget.busy)
    assert {row[1] for row in cells(widget)} == states
    if series == "1":
        found = open_labels(folders / "out" / "2.ome.zarr")
        assert found.shape == (24, 24)


def test_a_cancelled_batch_goes_on(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.pattern.value = "[0-9].tif"
    widget.start()
    until(lambda: any(row[1] == "done" for row in cells(widget)))
    widget.stop()
    until(lambda: not widget.busy)
    widget.start()
    until(lambda: not widget.busy)
    assert {row[1] for row in cells(widget)} <= {"done", "skipped"}
    assert len(cells(widget)) == 3


def test_a_batch_without_folders_says_what_is_missing(viewer, folders):
    widget = BatchWidget(viewer)
    widget.start()
    assert "choose the folder" in widget.status.value


def test_what_is_said_of_a_file_names_controls_of_the_window_and_is_in_sight(viewer, folders):
    widget = batch_of(viewer, folders)
    tifffile.imwrite(folders / "images" / "two.tif", image_of((2, 40, 50)), metadata={"axes": "CYX"})
    widget.start()
    until(lambda: not widget.busy)
    (row,) = [row for row in cells(widget) if row[0] == "two.tif"]
    assert row[1] == "failed"
    assert "2 channels" in row[2]
    assert '"Channel"' in row[2]
    assert "--" not in row[2]
    names = [row[0] for row in cells(widget)]
    widget.table.selectRow(names.index("two.tif"))
    assert row[2] in widget.message.value
    widget.native.resize(360, 600)
    widths = [widget.table.columnWidth(c) for c in range(3)]
    assert widths[2] > widths[0]  # the last takes what is left


def test_a_row_shows_its_image_with_its_result_in_the_place_of_the_row_before(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.start()
    until(lambda: not widget.busy)
    names = [row[0] for row in cells(widget)]
    for name in ("0.tif", "2.tif"):
        widget.table.selectRow(names.index(name))
        widget.table.itemDoubleClicked.emit(widget.table.item(names.index(name), 0))
        image, labels = viewer.layers
        np.testing.assert_array_equal(np.asarray(image.data), tifffile.imread(folders / "images" / name))
        assert isinstance(labels, Labels)
        assert labels.name.startswith(f"{name[0]} ")
        np.testing.assert_array_equal(labels.data, open_labels(folders / "out" / f"{name[0]}.ome.zarr").data[...])
    widget.table.selectRow(names.index("broken.tif"))
    widget.show_chosen()
    assert "broken.tif has no result" in widget.status.value
    assert not viewer.layers


def test_what_was_painted_on_a_result_stays_when_another_row_is_shown(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.start()
    until(lambda: not widget.busy)
    names = [row[0] for row in cells(widget)]
    for name in ("0.tif", "2.tif", "1.tif"):
        widget.table.selectRow(names.index(name))
        widget.show_chosen()
        if name == "0.tif":
            corrected = viewer.layers[1]
            corrected.data_setitem((np.array([3]), np.array([4])), 9)
    assert corrected in viewer.layers and corrected.data[3, 4] == 9
    assert len(viewer.layers) == 3


def test_the_bar_is_of_all_files_and_says_how_many_are_done(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.pattern.value = "[0-9].tif"
    seen = []
    widget.progress.native.valueChanged.connect(lambda value: seen.append((value, widget.status.value)))
    widget.start()
    until(lambda: not widget.busy)
    values = [value for value, _ in seen]
    assert values == sorted(values)
    assert values[-1] == 1000
    assert any(" of 3 files" in said for _, said in seen)


def test_what_follows_a_prediction_does_not_take_the_bar_back(viewer, folders):
    widget, seen = batch_of(viewer, folders), []
    widget._heard([Files(1, 3, "batch", "", ())])
    for event in (Progress(1, 2, "predict"), Progress(2, 2, "predict"), Progress(0, 4, "check")):
        widget._heard([event])
        seen.append(widget.progress.value)
    widget._heard([Files(2, 3, "batch", "", ())])
    assert [*seen, widget.progress.value] == [500, 667, 667, 667]


def test_the_montage_shows_a_picture_of_each_result(viewer, folders):
    widget = batch_of(viewer, folders)
    widget.start()
    until(lambda: not widget.busy)
    widget.looks["Montage"].clicked.emit(True)
    assert widget.looks["Montage"].text == "Table"
    until(lambda: widget.montage.count() == 3)
    assert [widget.montage.item(i).text().partition("\n")[0] for i in range(3)] == ["0.tif", "1.tif", "2.tif"]
    widget.montage.itemClicked.emit(widget.montage.item(1))
    widget.montage.itemDoubleClicked.emit(widget.montage.item(1))
    assert viewer.layers[-1].name.startswith("1 ")
    widget.looks["Montage"].clicked.emit(True)
    assert widget.looks["Montage"].text == "Montage"
    found = picture(folders / "out" / "1.ome.zarr")
    labels = np.asarray(open_labels(folders / "out" / "1.ome.zarr").data[...]) > 0
    assert found.shape == (*labels.shape, 3)
    coloured = found.max(2) != found.min(2)
    np.testing.assert_array_equal(coloured, labels)


def test_a_count_that_is_unlike_the_others_is_odd():
    usual = {f"{i}": 100 + i for i in range(8)}
    assert odd(usual) == set()
    assert odd(usual | {"x": 12, "y": 400}) == {"x", "y"}
    assert odd({"a": 1, "b": 1000}) == set()  # of two, who is the odd one?


def test_settings_are_in_groups_of_which_only_what_applies_is_shown_and_run_stays_in_sight(viewer, folders):
    widget = batch_of(viewer, folders)
    finder(2).save(folders / "elsewhere" / "cells.model")
    restorer_of(UNetConfig(ndim=2, depth=1, base_features=4)).save(folders / "elsewhere" / "clean.model")

    def shown(name):
        return widget.settings[name].native.isVisibleTo(widget.settings[name].native.parentWidget())

    assert not shown("border_bias")
    assert shown("probabilities")
    widget.models.use(folders / "elsewhere" / "cells.model")
    assert shown("border_bias")
    assert shown("link")
    widget.axes.value = "yx"
    assert not shown("link")
    widget.models.use(folders / "elsewhere" / "clean.model")
    assert not shown("border_bias")
    assert not shown("probabilities")
    second = widget.cascade[0][1]
    second.value = folders / "elsewhere" / "cells.model"
    assert shown("border_bias")
    assert shown("probabilities")
    assert widget.run.native.parentWidget().parentWidget() is widget.pinned.native


def test_the_wells_of_a_plate_are_coloured_by_what_was_found_and_a_click_shows_a_field(viewer, folders):
    widget = batch_of(viewer, folders)
    finder(2).save(folders / "elsewhere" / "cells.model")
    widget.models.use(folders / "elsewhere" / "cells.model")
    images = {place: image_of((40, 50), i) for i, place in enumerate(("A/1/0", "A/1/1", "B/3/0"))}
    widget.folder.value = plate(folders / "screen.zarr", images)
    widget.looks["Plate"].clicked.emit(True)
    widget.start()
    until(lambda: not widget.busy)
    wells = widget.plate.wells
    until(lambda: wells.item(1, 2) is not None and wells.item(1, 2).text())
    assert (wells.rowCount(), wells.columnCount()) == (2, 3)  # of a plate whose last well is B3
    assert [wells.horizontalHeaderItem(i).text() for i in range(3)] == ["1", "2", "3"]
    counts = {place: open_labels(folders / "out" / "screen.ome.zarr" / place).data[...].max() for place in images}
    shown = wells.item(0, 0).data(Qt.ItemDataRole.AccessibleTextRole)
    assert shown == f"A1: {(counts['A/1/0'] + counts['A/1/1']) / 2:.3g} objects, mean of 2 fields"
    assert wells.item(1, 2).text() == str(counts["B/3/0"])
    assert wells.item(0, 1) is None
    for place in ("A/1/0", "A/1/1", "A/1/0"):  # again and again: one field after the other
        wells.cellClicked.emit(0, 0)
        np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), images[place])
    wells.setCurrentCell(1, 2)
    QTest.keyClick(wells, Qt.Key.Key_Return)
    np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), images["B/3/0"])
    assert isinstance(viewer.layers[1], Labels)


def test_a_plate_and_an_image_at_an_address_are_run_and_shown(viewer, folders, server):
    widget = batch_of(viewer, folders)
    images = {place: image_of((40, 50), i) for i, place in enumerate(("A/1/0", "B/3/0"))}
    plate(folders / "screen.zarr", images)
    for name, files in (("screen.zarr", [f"screen.zarr/{place}" for place in images]), ("screen.zarr/B/3/0", ["0"])):
        widget.folder.line_edit.value, widget.out.value = f"{server}/{name}", folders / name.replace("/", "-")
        widget.start()
        until(lambda: not widget.busy)
        assert [row[:2] for row in cells(widget)] == [[file, "done"] for file in files], widget.status.value
        widget.table.selectRow(len(files) - 1)
        widget.show_chosen()
        np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), images["B/3/0"])
        assert isinstance(viewer.layers[1], Labels)
        copy = folders / name if name == "screen.zarr" else folders / "screen.zarr" / "B" / "3" / "0"
        widget.folder.value, widget.out.value = copy, folders / f"{name.replace('/', '-')}-disk"
        shown = np.asarray(viewer.layers[1].data)
        widget.start()
        until(lambda: not widget.busy)
        widget.table.selectRow(len(files) - 1)
        widget.show_chosen()
        np.testing.assert_array_equal(np.asarray(viewer.layers[1].data), shown)


@pytest.mark.parametrize(
    ("images", "results", "words"),
    [("ftp://x/a.zarr", "out", "use one of"), ("images", "https://x/out", "choose a folder on a disk here")],
)
def test_an_address_that_cannot_be_is_named_as_it_was_written(images, results, words, viewer, folders):
    widget = batch_of(viewer, folders)
    widget.folder.line_edit.value, widget.out.line_edit.value = images, results
    widget.start()
    assert not widget.busy
    assert words in widget.status.value
    assert (images if "://" in images else results) in widget.status.value


def row_of(place, state="done", **counts):
    row, column, field = place.split("/")
    return Row(f"p.zarr/{place}", state, 1.0, counts=counts, well=row + column, field=field)


def test_a_well_whose_fields_failed_is_told_from_an_empty_one_and_its_colour_is_of_what_was_chosen(display, qtbot):
    shown = PlateMap()
    qtbot.addWidget(shown)
    shown.put(row_of("A/1/0", objects=0, foreground=0))
    shown.put(row_of("A/2/0", objects=10, foreground=50))
    shown.put(row_of("A/2/1", "failed"))
    shown.put(row_of("A/3/0", "failed"))
    shown.put(row_of("A/4/0", "waiting"))
    shown.put(row_of("A/5/0", objects=5, foreground=500))
    shown.put(Row("other.tif", "done", 1.0, counts={"objects": 99}))
    shown.draw()
    said = [shown.wells.item(0, i).text() for i in range(5)]
    assert said == ["0", "10!", "!", "", "5"]
    assert [shown.wells.item(0, i).data(SHADE) for i in range(5)] == [0.0, 1.0, None, None, 0.5]
    assert shown.values.itemText(2) == "voxels per object"
    shown.values.setCurrentIndex(2)
    shown.draw()
    assert [shown.wells.item(0, i).text() for i in range(5)] == ["", "5!", "!", "", "100"]
    shown.fields.setCurrentText("1")
    shown.draw()
    assert shown.wells.item(0, 1).text() == "!"
    assert "1 failed" in shown.wells.item(0, 1).data(Qt.ItemDataRole.AccessibleTextRole)
