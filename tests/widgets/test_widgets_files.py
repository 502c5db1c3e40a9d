"""What is opened in the viewer is what lies on disk, lazily; what is saved there opens as the same layers."""

import itertools
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image
from napari.utils.notifications import notification_manager

from napari_unet import open_stack, wait
from napari_unet.arrays.stack import Stack
from napari_unet.arrays.views import View
from napari_unet.errors import DataError, OutputError, UnetError
from napari_unet.examples import NOISE
from napari_unet.sources import open_labels
from napari_unet.store import Output, ResultStore
from napari_unet.store.save import save_stack
from napari_unet.units import canonical
from napari_unet.widgets import files, samples
from napari_unet.widgets.files import get_reader, write_image, write_labels, write_layers
from napari_unet.widgets.preferences import Preferences
from napari_unet.widgets.source import Source, usual_axes

LOOK = {
    "colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}, {"label-value": 3, "rgba": [0, 0, 255, 128]}],
    "properties": [{"label-value": 1, "class": "nucleus"}, {"label-value": 3, "class": "cell", "area": 12.5}],
}
UM = "micrometer"


def numbers(shape, dtype=np.uint16, high=200):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def read(path):
    return get_reader(str(path))(str(path))


def pixels(data):
    finest = data[0] if isinstance(data, list) else data
    return np.asarray(finest[(slice(None),) * len(finest.shape)])


@pytest.fixture
def store(tmp_path):
    stack = Stack(
        numbers((2, 6, 300, 400)),
        "czyx",
        scale=(1.0, 2.0, 0.5, 0.5),
        units=(None, UM, UM, UM),
        translation=(0.0, 5.0, 6.0, 7.0),
        channel_names=("DAPI", "GFP"),
    )
    root = wait(save_stack(stack, tmp_path / "cells.ome.zarr"))
    place = {"scale": (2.0, 0.5, 0.5), "units": (UM,) * 3, "translation": (5.0, 6.0, 7.0)}
    labels = Stack(numbers((6, 300, 400), np.uint8, 4), "zyx", **place)
    wait(save_stack(labels, root, kind="labels", name="found", attributes=LOOK))
    return root


def test_importing_the_reader_is_light():
    script = (
        "import sys, napari_unet.widgets.files as f; f.get_reader('.'); "
        "print([m for m in ('torch', 'zarr', 'dask', 'napari', 'qtpy', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_only_what_is_read_here_is_taken(tmp_path, store):
    for name in ("a.png", "a.vsi", "a", "folder"):
        assert get_reader(str(tmp_path / name)) is None
    (tmp_path / "folder.zarr").mkdir()
    assert get_reader(str(tmp_path / "folder.zarr")) is None
    assert get_reader([str(store), str(store)]) is None
    assert get_reader([str(store)]) is not None
    for inside in ("labels", "labels/found", "0"):
        assert get_reader(str(store / inside)) is not None
    assert get_reader(str(tmp_path / "a.TIF")) is not None


def test_an_image_is_a_lazy_pyramid_a_channel_with_its_labels_which_are_lazy_where_they_are_large(store, monkeypatch):
    monkeypatch.setattr(files, "IN_MEMORY", 100)
    *channels, (labels, about, kind) = read(store)
    stack = open_stack(store)
    for i, (data, meta, layer) in enumerate(channels):
        assert layer == "image"
        assert [d.shape for d in data] == [(6, 300, 400), (6, 150, 200)]
        assert all(isinstance(d, View) and isinstance(d.base, zarr.Array) for d in data)
        assert np.array_equal(pixels(data), stack.select(c=i).data[...])
        assert meta["scale"] == (2.0, 0.5, 0.5)
        assert meta["translate"] == (5.0, 6.0, 7.0)
        assert meta["units"] == (UM,) * 3
        assert meta["axis_labels"] == ("z", "y", "x")
        assert meta["metadata"]["napari_unet"] == {"path": str(store), "channel": i}
        assert open_stack(**{"what": str(store), "channel": i}).shape[1:] == data[0].shape
    assert [meta["name"] for _, meta, _ in channels] == ["cells: DAPI", "cells: GFP"]
    assert [meta["colormap"] for _, meta, _ in channels] == ["#ff0000", "#00ff00"]
    assert (kind, about["name"]) == ("labels", "found")
    assert all(isinstance(level, zarr.Array) for level in labels)
    assert about["metadata"]["napari_unet"]["path"] == str(store / "labels" / "found")
    assert about["colormap"][3] == pytest.approx([0, 0, 1, 128 / 255])
    assert about["features"]["class"] == ["background", "nucleus", "", "cell"]
    assert about["features"]["area"][3] == 12.5
    assert np.isnan(about["features"]["area"][1])


def test_parts_of_a_store_open_by_their_own_path(store):
    assert [kind for _, _, kind in read(store / "labels")] == ["labels"]
    assert [kind for _, _, kind in read(store / "labels" / "found")] == ["labels"]
    assert [data.shape for data, _, _ in read(store / "1")] == [(6, 150, 200)] * 2


def test_probabilities_of_a_result_are_hidden_and_labels_shown(tmp_path):
    outputs = [
        Output("labels/cells", "labels", "yx", (32, 32), np.dtype("u1")),
        Output("probabilities", "image", "cyx", (2, 32, 32), np.dtype("f4"), channel_names=("a", "b")),
    ]
    everywhere = (slice(0, 32),) * 2
    with ResultStore.create(tmp_path / "r.zarr", outputs, blocks=1, settings={}, provenance={}) as result:
        with pytest.raises(DataError, match="unfinished"):
            read(tmp_path / "r.zarr")
        labels, scores = numbers((32, 32), np.uint8), numbers((2, 32, 32), np.float32)
        result.write(0, {"labels/cells": (everywhere, labels), "probabilities": ((slice(0, 2), *everywhere), scores)})
        wait(result.finish())
    layers = read(tmp_path / "r.zarr")
    assert [(kind, meta.get("visible", True)) for _, meta, kind in layers] == [
        ("image", False),
        ("image", False),
        ("labels", True),
    ]
    assert isinstance(layers[-1][0], np.ndarray)
    assert np.array_equal(layers[-1][0], labels)


def test_objects_are_shown_and_the_classes_they_are_made_of_lie_hidden_below(tmp_path):
    names = ("cells", "cells_classes", "own_classes")
    outputs = [Output(f"labels/{name}", "labels", "yx", (32, 32), np.dtype("u1")) for name in names]
    with ResultStore.create(tmp_path / "r.zarr", outputs, blocks=1, settings={}, provenance={}) as result:
        values = ((slice(0, 32),) * 2, numbers((32, 32), np.uint8))
        result.write(0, {f"labels/{name}": values for name in names})
        wait(result.finish())
    shown = [(meta["name"], meta.get("visible", True)) for _, meta, _ in read(tmp_path / "r.zarr")]
    assert shown == [("cells_classes", False), ("cells", True), ("own_classes", True)]


def test_a_plate_names_the_images_inside(tmp_path):
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w-", attributes={"ome": {"version": "0.5", "plate": {"wells": [{"path": "A/1"}]}}})
    well = {"ome": {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}}
    zarr.open_group(plate / "A" / "1", mode="w-", attributes=well)
    for field in ("0", "1"):
        wait(save_stack(Stack(numbers((8, 8)), "yx"), plate / "A" / "1" / field))
    with pytest.raises(DataError, match=r"plate of 2 images; open one of them, such as .*A/1/0"):
        read(plate)
    assert len(read(plate / "A" / "1" / "1")) == 1


def test_tiffs_are_lazy_and_calibrated(tmp_path):
    path = tmp_path / "a.tif"
    data = numbers((5, 64, 80))
    tifffile.imwrite(path, data, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "um", "spacing": 3})
    ((layer, about, kind),) = read(path)
    assert kind == "image"
    assert not isinstance(layer, np.ndarray)
    assert np.array_equal(pixels(layer), data)
    assert about["scale"] == (3.0, 0.5, 0.5)
    assert about["units"] == (UM,) * 3
    assert about["contrast_limits"] == (data[2].min(), data[2].max())


def test_a_tiff_that_says_nothing_of_its_axes_is_shown_without_their_names(tmp_path):
    data = numbers((7, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", data, metadata=None)
    ((layer, about, kind),) = read(tmp_path / "a.tif")
    assert kind == "image"
    assert "axis_labels" not in about
    assert "metadata" not in about
    assert np.array_equal(pixels(layer), data)


def test_channels_of_a_tiff_are_told_apart_by_their_colours(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers((2, 30, 40)), imagej=True, metadata={"axes": "CYX"})
    layers = read(tmp_path / "a.tif")
    assert [(about["name"], about["colormap"]) for _, about, _ in layers] == [
        ("a: channel 0", "magenta"),
        ("a: channel 1", "green"),
    ]


def test_colours_of_a_tiff_stay_colours(tmp_path):
    data = numbers((30, 40, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb")
    ((layer, about, _),) = read(tmp_path / "a.tif")
    assert about["rgb"]
    assert about["axis_labels"] == ("y", "x")
    assert np.array_equal(pixels(layer), data)


def everything(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


def cut_short(path, planes, there, *, ome):
    """Write a file that declares all planes and holds the first, as of an acquisition that was stopped."""
    text = f"ImageJ=1.54f\nimages={len(planes)}\nslices={len(planes)}\nhyperstack=true\n"
    if ome:
        tifffile.imwrite(path, planes, metadata={"axes": "ZYX"}, ome=True, photometric="minisblack")
        with tifffile.TiffFile(path) as file:
            text = file.pages.first.description
    with tifffile.TiffWriter(path) as file:
        for i, plane in enumerate(planes[:there]):
            words = text.encode() if i == 0 else None
            file.write(plane, photometric="minisblack", description=words, metadata=None, contiguous=False)


def with_notices(path):
    """Read a file, and return its layers and what was said."""
    told = []
    notification_manager.notification_ready.connect(told.append)
    layers = files.read(str(path))
    notification_manager.notification_ready.disconnect(told.append)
    return layers, [str(each.message) for each in told]


@pytest.mark.parametrize(
    ("shapes", "order"),
    [
        ([(16, 16), (20, 20)], [1, 0]),
        ([(20, 20), (16, 16)], [0, 1]),
        ([(20, 20)], [0]),
        ([(8, 9), (30, 40), (10, 12), (9, 8)], [1, 0, 2, 3]),
        ([(3, 12, 14), (2, 9, 9)], [0, 1]),
        ([(5, 6 + i) for i in range(34)], [33, *range(31)]),
    ],
)
def test_each_of_several_images_of_a_tiff_is_a_layer_the_one_of_most_pixels_is_shown(tmp_path, shapes, order):
    path = tmp_path / "several.tif"
    with tifffile.TiffWriter(path) as tif:
        for i, shape in enumerate(shapes):
            axes = {"axes": "ZYX"[-len(shape) :]}
            tif.write(np.full(shape, i, "u1"), photometric="minisblack", metadata=axes)
    layers, lines = with_notices(path)
    assert [int(np.asarray(data).max()) for data, _, _ in layers] == order
    assert [about.get("visible", True) for _, about, _ in layers] == [True] + [False] * (len(order) - 1)
    said = [f"several.tif holds {len(shapes)} images; {order[0]} is shown" in line for line in lines]
    assert said == ([True] if len(shapes) > 1 else [])
    for (data, about, _), number in zip(layers, order, strict=True):
        source = Source(Image(data, **about), about["axis_labels"][0] and "".join(about["axis_labels"]))
        where, opening = source.whole()
        assert np.array_equal(everything(open_stack(where, **opening)), np.asarray(data))
        assert (f"[{number}]" in about["name"]) == (len(shapes) > 1)


@pytest.mark.parametrize("there", [1, 4, 9])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_a_tiff_that_lacks_planes_shows_what_is_there_and_says_so(tmp_path, kind, there):
    path, planes = tmp_path / "stopped.tif", numbers((10, 24, 24)).astype("u2")
    cut_short(path, planes, there, ome=kind == "ome")
    ((data, about, _),), lines = with_notices(path)
    assert np.array_equal(np.squeeze(np.asarray(data)), planes[:there].squeeze())
    assert any("it declares 10 pages" in line and "What is there is shown" in line for line in lines)
    layer = Image(data, **about)
    where, opening = Source(layer, usual_axes(layer)).whole()
    assert np.array_equal(np.squeeze(everything(open_stack(where, **opening))), planes[:there].squeeze())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_image_of_a_series_in_a_zarr_is_a_layer_and_results_lie_beside_the_whole(tmp_path, count):
    zarr.open_group(tmp_path / "s.zarr", mode="w-", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for i in range(count):
        wait(save_stack(Stack(np.full((8, 8 + i), i + 1, "u1"), "yx"), tmp_path / "s.zarr" / str(i)))
    layers, lines = with_notices(tmp_path / "s.zarr")
    assert [int(np.asarray(data).max()) for data, _, _ in layers] == list(range(1, count + 1))
    assert [about.get("visible", True) for _, about, _ in layers] == [True] + [False] * (count - 1)
    assert lines == [f"s.zarr holds {count} images; 0 is shown, the others are hidden layers"]
    assert Preferences.read().results_beside(layers[1][1]["metadata"]["napari_unet"]["path"]) == tmp_path


def test_pyramids_in_tiffs_are_multiscale(tmp_path):
    data = numbers((512, 512))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(data, subifds=1, tile=(64, 64), metadata={"axes": "YX"})
        tif.write(data[::2, ::2], subfiletype=1, tile=(64, 64))
    ((levels, about, _),) = read(tmp_path / "a.ome.tif")
    assert about["multiscale"]
    assert [level.shape for level in levels] == [(512, 512), (256, 256)]


def real_files(folder):
    for path in sorted(folder.rglob("*")):
        is_zarr = path.is_dir() and any((path / mark).is_file() for mark in files.MARKS)
        if is_zarr or path.suffix.lower() in files.TIFFS:
            yield path


@pytest.mark.parametrize("folder", ["omezarr_real", "ome_zarr_fiji", "ngio_omezarr", "odd_tiffs", "ndev_sample"])
def test_every_real_file_opens_as_layers_or_says_why_not(shared_data, folder):
    opened = 0
    for path in real_files(shared_data / folder):
        try:
            layers = read(path)
        except UnetError:
            with pytest.raises(UnetError):
                open_stack(path)
            continue
        assert layers
        for data, about, kind in layers:
            levels = data if about.get("multiscale") else [data]
            first = levels[0][tuple(slice(0, 2) for _ in levels[0].shape)]
            assert first.dtype == levels[0].dtype
            assert kind == "image" or levels[0].dtype.kind in "iu"
            spatial = len(levels[0].shape) - bool(about.get("rgb"))
            assert len(about.get("scale", [1] * spatial)) == spatial
            assert all(a.shape >= b.shape for a, b in itertools.pairwise(levels))
        opened += 1
    assert opened


def layer_data(shape, name="layer", **more):
    ndim = len(shape) - bool(more.get("rgb"))
    return numbers(shape), {"name": name, "scale": [0.5] * ndim, "translate": [1.0] * ndim, **more}


def test_an_image_layer_is_saved_with_its_axes_and_position(tmp_path):
    data, meta = layer_data((3, 20, 30), units=(UM,) * 3, axis_labels=("time", "y", "x"), contrast_limits=(3, 77))
    path = str(tmp_path / "a.zarr")
    assert write_image(path, data, meta) == [path]
    stack = open_stack(path)
    assert (stack.axes, stack.scale, stack.translation) == ("tyx", (0.5,) * 3, (1.0,) * 3)
    ((again, about, _),) = read(path)
    assert np.array_equal(pixels(again), data)
    assert about["contrast_limits"] == (3.0, 77.0)


@pytest.mark.parametrize(("ndim", "axes"), [(2, "yx"), (3, "zyx")])
def test_two_and_three_dimensions_need_no_names(tmp_path, ndim, axes):
    data, meta = layer_data((4, 20, 30)[-ndim:], axis_labels=("-3", "-2", "-1")[-ndim:])
    write_image(str(tmp_path / "a.zarr"), data, meta)
    assert open_stack(tmp_path / "a.zarr").axes == axes


def test_four_dimensions_without_names_are_not_guessed(tmp_path):
    data, meta = layer_data((2, 2, 20, 30))
    with pytest.raises(DataError, match="set the layer's axis labels, one letter per dimension: tzyx or tcyx or czyx"):
        write_image(str(tmp_path / "a.zarr"), data, meta)
    write_image(str(tmp_path / "a.zarr"), data, {**meta, "axis_labels": tuple("tzyx")})
    assert open_stack(tmp_path / "a.zarr").axes == "tzyx"


def test_a_turned_layer_is_refused(tmp_path):
    data, meta = layer_data((20, 30), rotate=np.array([[0.0, 1.0], [-1.0, 0.0]]))
    with pytest.raises(DataError, match="which OME-Zarr does not store"):
        write_image(str(tmp_path / "a.zarr"), data, meta)


def test_colours_are_saved_as_channels(tmp_path):
    data, meta = layer_data((20, 30, 3), rgb=True)
    write_image(str(tmp_path / "a.zarr"), data.astype(np.uint8), meta)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.axes == "cyx"
    assert np.array_equal(stack.data[...], np.moveaxis(data, -1, 0))


def test_what_is_there_is_never_replaced(tmp_path):
    data, meta = layer_data((20, 30), "cells")
    (tmp_path / "mine.zarr").mkdir()
    path = str(tmp_path / "a.zarr")
    write_labels(path, data, meta)
    for write, where in ((write_image, path), (write_labels, path), (write_labels, str(tmp_path / "mine.zarr"))):
        with pytest.raises(OutputError, match="exists; choose another name"):
            write(where, data, meta)


def test_labels_are_saved_into_the_image_that_is_there(tmp_path):
    path = str(tmp_path / "a.zarr")
    data, meta = layer_data((20, 30), "my cells!")
    write_image(path, data, meta)
    write_labels(path, data.astype(np.int64), meta)
    assert np.array_equal(pixels(read(path)[1][0]), data)
    with pytest.raises(OutputError, match="exists; choose another name"):
        write_labels(path, data, meta)


def test_several_layers_become_channels_and_labels_of_one_image(tmp_path, store):
    layers = read(store)
    path = str(tmp_path / "again.zarr")
    assert write_layers(path, layers) == [path]
    before, after = open_stack(store), open_stack(path)
    assert (after.axes, after.scale, after.translation) == (before.axes, before.scale, before.translation)
    assert after.channel_names == ("DAPI", "GFP")
    assert np.array_equal(after.data[...], before.data[...])
    assert np.array_equal(open_labels(path).data[...], open_labels(store).data[...])
    about, first = read(path)[-1][1], layers[-1][1]
    assert about["colormap"] == first["colormap"]
    assert about["features"]["class"] == first["features"]["class"]


def test_images_that_do_not_fit_each_other_are_refused(tmp_path):
    one, other = layer_data((20, 30), "one"), layer_data((20, 31), "other")
    with pytest.raises(DataError, match=r"one and other differ in .*save each by itself"):
        write_layers(str(tmp_path / "a.zarr"), [(*one, "image"), (*other, "image")])
    with pytest.raises(DataError, match="labels are saved inside an image"):
        write_layers(str(tmp_path / "a.zarr"), [(*one, "labels"), (*one, "labels")])
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("sizes", "units"),
    [
        ((0.5, 500.0), ("um", "nm")),
        ((500.0, 0.5), ("nanometer", "micron")),
        ((0.0005, 0.5), ("mm", "µm")),
        ((0.3, 3000.0), ("micrometer", "angstrom")),
        ((0.5, 0.5), ("um", None)),
        ((0.5, 0.5), (None, "um")),
    ],
)
def test_layers_of_one_pixel_size_are_saved_together_in_whatever_units(tmp_path, sizes, units):
    layers = [layer_of(size, unit) for size, unit in zip(sizes, units, strict=True)]
    write_layers(str(tmp_path / "a.zarr"), layers)
    stack = open_stack(tmp_path / "a.zarr")
    said = next(unit for unit in units if unit)
    assert stack.shape == (2, 8, 8)
    assert stack.values_along("yx", "scale") == (sizes[0],) * 2
    assert stack.values_along("yx", "units") == (canonical(said),) * 2


@pytest.mark.parametrize("units", [("um", "nm"), ("um", "angstrom"), ("mm", "um"), ("um", "s"), ("cubit", "um")])
def test_equal_numbers_in_other_units_are_other_pixel_sizes(tmp_path, units):
    with pytest.raises(DataError, match="differ in"):
        write_layers(str(tmp_path / "a.zarr"), [layer_of(0.5, unit) for unit in units])


def layer_of(size, unit):
    meta = {"name": f"in {unit}", "scale": [size, size], "axis_labels": ["y", "x"], "translate": [2 * size] * 2}
    return np.ones((8, 8), np.uint8), meta | ({"units": [unit, unit]} if unit else {}), "image"


def test_labels_of_one_name_are_told_apart(tmp_path):
    one = layer_data((20, 30), "Labels")
    layers = [(*one, "image"), (*one, "labels"), (*one, "labels")]
    write_layers(str(tmp_path / "a.zarr"), layers)
    assert [kind for _, _, kind in read(tmp_path / "a.zarr")] == ["image", "labels", "labels"]


def test_samples_are_the_same_every_time_and_fit_their_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    for sample in (samples.nuclei, samples.nuclei_3d):
        (image, about, _), (labels, *_, kind) = sample()
        assert kind == "labels"
        assert image.shape == labels.shape
        assert len(about["scale"]) == image.ndim
        assert labels.max() > 20
        assert image[labels > 0].mean() > 2 * image[labels == 0].mean()
        assert np.array_equal(image, sample()[0][0])


def test_the_noisy_sample_is_a_pair_to_learn_from():
    (clean, about, _), (noisy, again, kind) = samples.noisy_nuclei()
    assert kind == "image" and about["scale"] == again["scale"]
    assert clean.shape == noisy.shape and clean.dtype == noisy.dtype == np.float32
    assert abs(float(np.std(noisy - clean)) - NOISE) < 0.5


def test_the_large_sample_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(samples, "LARGE", (1200, 1100))
    ((levels, about, _),) = samples.nuclei_large()
    assert [level.shape for level in levels] == [(1200, 1100), (600, 550), (300, 275), (150, 138)]
    assert about["multiscale"]
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    samples.nuclei_large()
    assert made == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


@pytest.fixture
def viewer(display, request):
    pytest.importorskip("napari")
    return request.getfixturevalue("make_napari_viewer")(show=True)


def add(viewer, layers):
    from napari.layers import Layer

    return [viewer.add_layer(Layer.create(*layer)) for layer in layers]


def test_layers_in_a_viewer_slide_and_take_contrast(viewer, store):
    *channels, labels = add(viewer, read(store))
    viewer.reset_view()
    for step in (0, 5, 3):
        viewer.dims.set_current_step(0, step)
        for i, layer in enumerate(channels):
            level = open_stack(store, level=layer.data_level)
            (top, left), (bottom, right) = layer.corner_pixels[:, 1:]
            plane = level.data[i, step, top : bottom + 1, left : right + 1]
            assert plane.shape[0] > 100
            assert np.array_equal(layer._slice.image.raw, plane)
    for layer in channels:
        layer.reset_contrast_limits()
        layer.reset_contrast_limits(mode="slice")
        assert layer.get_value((7.0, 10.0, 10.0), world=True) is not None
    assert labels.editable  # a copy in memory, as it is small
    assert labels.features["class"][3] == "cell"
    assert np.allclose(labels.get_color(3), [0, 0, 1, 128 / 255])
    assert tuple(map(str, labels.units)) == (UM,) * 3
    viewer.dims.ndisplay = 3
    assert viewer.dims.ndisplay == 3


def test_every_kind_of_layer_shows_in_a_viewer(viewer, tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", numbers((30, 40, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "plain.tif", numbers((7, 40, 50)), metadata=None)
    tifffile.imwrite(tmp_path / "zc.tif", numbers((4, 2, 30, 40)), imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "float.tif", numbers((30, 40), np.float32))
    for name in ("rgb", "plain", "zc", "float"):
        for layer in add(viewer, read(tmp_path / f"{name}.tif")):
            viewer.dims.set_current_step(0, 1)
            layer.reset_contrast_limits()
            assert layer._slice.image.raw.size
    assert len(viewer.layers) == 5


def test_small_labels_can_be_painted_on_and_the_file_stays(viewer, tmp_path):
    data = numbers((30, 40), np.uint8)
    wait(save_stack(Stack(data, "yx"), tmp_path / "a.zarr", kind="labels", name="cells"))
    (layer,) = add(viewer, read(tmp_path / "a.zarr"))
    layer.fill((0, 0), 250)
    assert layer.data[0, 0] == 250
    assert np.array_equal(open_labels(tmp_path / "a.zarr").data[...], data)


def test_a_layer_of_the_viewer_comes_back_as_itself(viewer, tmp_path):
    image = viewer.add_image(
        da.from_array(numbers((3, 40, 50)), chunks=(1, 40, 50)),
        scale=(2, 0.5, 0.5),
        units=(UM,) * 3,
        axis_labels=("z", "y", "x"),
        contrast_limits=(1, 99),
    )
    labels = viewer.add_labels(numbers((3, 40, 50), int), scale=(2, 0.5, 0.5), translate=(2, 1, 1), units=(UM,) * 3)
    write_layers(str(tmp_path / "a.zarr"), [layer.as_layer_data_tuple() for layer in (image, labels)])
    found = [*add(viewer, read(tmp_path / "a.zarr"))]
    for before, after in zip((image, labels), found, strict=True):
        assert np.array_equal(np.asarray(before.data), np.asarray(after.data[...]))
        for field in ("scale", "translate", "units"):
            assert tuple(getattr(before, field)) == tuple(getattr(after, field))
    assert tuple(found[0].contrast_limits) == (1, 99)


def test_classes_of_a_labels_layer_are_kept(viewer, store, tmp_path):
    layer = add(viewer, read(store))[-1]
    write_labels(str(tmp_path / "a.zarr"), *layer.as_layer_data_tuple()[:2])
    again = add(viewer, read(tmp_path / "a.zarr"))[-1]
    assert list(again.features["class"]) == ["background", "nucleus", "", "cell"]
    assert list(again.features["area"])[3] == 12.5
    assert np.allclose(again.get_color(3), layer.get_color(3))


def test_the_samples_show_in_a_viewer(viewer):
    for sample in (samples.nuclei, samples.nuclei_3d):
        assert [type(layer).__name__ for layer in add(viewer, sample())] == ["Image", "Labels"]


def test_a_layer_made_by_the_reader_opens_as_the_stack_on_disk(store):
    data, about, _ = read(store)[1]
    layer = SimpleNamespace(data=data, **about)
    stack = open_stack(layer)
    assert stack.axes == "zyx"
    assert np.array_equal(stack.data[...], open_stack(store, channel=1).data[0])


def test_a_file_of_another_format_and_a_zip_archive_become_layers(tmp_path):
    data = np.arange(2 * 8 * 9, dtype=np.uint16).reshape(2, 8, 9)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=data, chunks=(1, 8, 9)).attrs["element_size_um"] = (2, 1, 0.5)
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        made = zarr.create_array(str(tmp_path / "b"), data=data, chunks=(2, 8, 9), dimension_names=["z", "y", "x"])
        for name in ("zarr.json", "c/0/0/0"):
            archive.write(tmp_path / "b" / name, name)
    for name, scale in (("a.h5", (2, 1, 0.5)), ("a.ozx", (1, 1, 1))):
        ((found, about, kind),) = read(tmp_path / name)
        assert kind == "image"
        assert tuple(about["scale"]) == scale
        assert (np.asarray(found[...]) == made[...]).all()
