import dataclasses

import numpy as np
import pytest

from kinds import small
from napari_unet import units
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.pixelsize import size_notes
from napari_unet.sources import open_stack
from napari_unet.training.pixelsize import check_same_size, same_axes, typical_size

SPELLINGS = {
    "micrometer": "um µm μm UM micron Microns micrometer micrometers micrometre \\u00B5m \\u03bcm Âµm &micro;m",
    "nanometer": "nm NM nanometer nanometers nanometre nanometres",
    "picometer": "pm picometre",
    "angstrom": "Å å \u212b A angstrom Angstroms ångström",
    "millimeter": "mm MM millimetre millimeters",
    "centimeter": "cm centimetre",
    "kilometer": "km kilometers",
    "meter": "m metre meters",
    "inch": "in inch inches",
    "thou": "thou mil mils",
    "point": "pt",
    "line": "li",
    "femtometer": "fm",
    "megameter": "Mm",
    "second": "s S sec second Seconds",
    "millisecond": "ms msec milliseconds",
    "microsecond": "us µs μs",
    "minute": "min minutes",
    "hour": "h hr hours",
    "day": "d day",
}
SIZES = {"nm": 1e-9, "µm": 1e-6, "angstrom": 1e-10, "inch": 0.0254, "cm": 1e-2, "kilometers": 1e3, "pm": 1e-12}


@pytest.mark.parametrize(("unit", "words"), SPELLINGS.items())
def test_every_spelling_is_one_unit(unit, words):
    assert {units.canonical(word) for word in [unit, *words.split()]} == {unit}
    assert units.canonical(f" {words.split()[0]}\0 ") == unit


@pytest.mark.parametrize(
    "word", ["", None, "pixel", "Pixels", "px", "voxel", "None", "dimensionless", "reference frame"]
)
def test_words_for_no_unit_are_none(word):
    assert units.canonical(word) is None
    assert not units.is_known(word)


@pytest.mark.parametrize("word", ["cubit", "furlong", "5", "m/s", "grey value"])
def test_an_unknown_unit_is_said(word):
    stack = open_stack(Stack(np.zeros((4, 4)), "yx", units=(word, "um")), axes="yx")
    assert stack.units == (word, "micrometer")
    assert units.factor(word, "um") is None
    layer = type("Layer", (), {"data": np.zeros((4, 4)), "scale": (1, 1), "units": (word, "um"), "axis_labels": "yx"})
    assert any(repr(word) in note and "along y" in note for note in open_stack(layer()).notes)


@pytest.mark.parametrize("one", SIZES)
@pytest.mark.parametrize("other", SIZES)
def test_a_factor_is_the_ratio_of_the_units(one, other):
    assert units.factor(one, other) == pytest.approx(SIZES[one] / SIZES[other])
    assert units.factor(one, "s") is None
    assert units.factor(one, None) is None


@pytest.mark.parametrize(
    ("sizes", "names", "want"),
    [
        ((1, 100, 100), ("um", "nm", "nm"), ((1000, 100, 100), "nanometer")),
        ((350, 0.25, 0.25), ("nm", "µm", "micron"), ((0.35, 0.25, 0.25), "micrometer")),
        ((0.3, 0.1, 0.1), (None, None, None), ((0.3, 0.1, 0.1), None)),
        ((2, 0.1, 0.1), (None, "um", "um"), ((2, 0.1, 0.1), "micrometer")),
        ((1, 1), ("inch", "mm"), ((25.4, 1), "millimeter")),
        ((40, 4, 4), ("angstrom", "pm", "nm"), ((4, 0.004, 4), "nanometer")),
        ((3, 0.1, 0.1), ("cubit", "um", "um"), ((3, 0.1, 0.1), "micrometer")),
    ],
)
def test_sizes_are_brought_to_one_unit(sizes, names, want):
    assert units.in_one(sizes, names) == want


@pytest.mark.parametrize(
    ("image", "labels", "fits"),
    [
        ((250, "nm"), (0.25, "um"), True),
        ((1, "nm"), (1, "um"), False),
        ((0.25, "um"), (1, None), True),
        ((1, None), (0.25, "um"), True),
        ((0.25, None), (0.25, "um"), True),
        ((0.25, "um"), (0.5, "um"), False),
        ((2.5, "angstrom"), (0.25, "nm"), True),
        ((1, "mm"), (1, "cm"), False),
    ],
)
def test_labels_are_compared_with_their_image_in_one_unit(image, labels, fits):
    one, other = (Stack(np.zeros((4, 4)), "yx", scale=(s, s), units=(u, u)) for s, u in (image, labels))
    if fits:
        check_same_size(one, other)
        return
    with pytest.raises(DataError, match="different pixel sizes"):
        check_same_size(one, other)


@pytest.mark.parametrize(
    ("images", "want", "said"),
    [
        ([((0.5, 0.5), "um")] * 2, ((0.5, 0.5), "micrometer"), ""),
        ([((500, 500), "nm"), ((0.5, 0.5), "um")], ((500, 500), "nanometer"), ""),
        ([((1, 1), None), ((0.5, 0.5), "um")], ((0.5, 0.5), "micrometer"), "1 of 2 images have no pixel size"),
        ([((1, 1), None), ((0.3, 0.1), None)], ((0.3, 0.1), None), "1 of 2 images have no pixel size"),
        ([((0.5, 0.5), "um"), ((4, 4), "um"), ((4, 4), "um")], ((4, 4), "micrometer"), "0.5 to 4 um"),
        ([((100, 100), "nm"), ((1, 1), "um")], ((550, 550), "nanometer"), "100 to 1e+03 nm"),
        ([((1, 1), None)] * 3, ((1, 1), None), ""),
    ],
)
def test_the_pixel_size_of_a_set_is_in_one_unit_and_differences_are_said(images, want, said):
    (spacing, names), notes = typical_size([(scale, (unit, unit)) for scale, unit in images], "yx")
    assert (spacing, names) == (pytest.approx(want[0]), (want[1],) * 2)
    assert said in " ".join(notes) and bool(said) == bool(notes)


@pytest.mark.parametrize(
    ("image", "model", "said"),
    [
        ((0.5, "um"), (0.5, "um"), ""),
        ((500, "nm"), (0.5, "um"), ""),
        ((0.5, "nm"), (0.5, "um"), "1e+03 times finer"),
        ((2, "um"), (0.5, "micron"), "4 times coarser"),
        ((0.9, "um"), (0.5, "um"), ""),
        ((1, None), (0.5, "um"), ""),
        ((2, "um"), (1, None), ""),
        ((2, None), (0.5, None), "4 times coarser"),
        ((2, "cubit"), (0.5, "um"), ""),
    ],
)
def test_an_image_whose_pixels_are_much_unlike_the_models_is_said_to_be_so(image, model, said):
    stack = Stack(np.zeros((4, 4)), "yx", scale=(image[0],) * 2, units=(image[1],) * 2)
    network = dataclasses.replace(small(), scale=(model[0],) * 2, units=(model[1],) * 2)
    notes = size_notes(stack, network, PredictConfig())
    assert len(notes) == bool(said)
    assert said in "".join(notes)


@pytest.mark.parametrize(
    ("one", "other", "axes"),
    [
        (("zyx", (1, 4, 5)), ("yx", (4, 5)), ("yx", "yx")),
        (("yx", (4, 5)), ("tyx", (1, 4, 5)), ("yx", "yx")),
        (("tczyx", (1, 2, 3, 4, 5)), ("zyx", (3, 4, 5)), ("czyx", "zyx")),
        (("zyx", (1, 4, 5)), ("tyx", (1, 4, 5)), ("yx", "yx")),
        (("zyx", (1, 4, 5)), ("zyx", (1, 4, 5)), ("zyx", "zyx")),
        (("zyx", (3, 4, 5)), ("yx", (4, 5)), ("zyx", "yx")),
    ],
)
def test_axes_of_size_1_that_only_one_of_a_pair_has_are_dropped(one, other, axes):
    found = same_axes(*(Stack(np.zeros(shape), letters) for letters, shape in (one, other)))
    assert tuple(stack.axes for stack in found) == axes


@pytest.mark.parametrize(
    "size", [(1.0, 0.25, 0.25), (0.3, 0.1, 0.1), (2.0, 0.65, 0.65), (7.0, 0.07, 0.07), (1.1, 1.3, 1.7)]
)
@pytest.mark.parametrize("unit", ["nanometer", "millimeter", "angstrom", "picometer"])
def test_the_pixel_size_of_a_set_is_one_that_somebody_meant(size, unit):
    times = {"nanometer": 1000, "millimeter": 0.001, "angstrom": 10_000, "picometer": 1_000_000}[unit]
    there = tuple(float(f"{s * times:.12g}") for s in size)
    images = [(there, (unit,) * 3), (size, ("micrometer",) * 3), (size, ("micrometer",) * 3)]
    assert typical_size(images, "zyx")[0] == (there, (unit,) * 3)
