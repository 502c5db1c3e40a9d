"""Pyramids of OME-Zarr as they are written elsewhere: positions, axes, names and colours, or a refusal by name."""

import json
import shutil
import types

import h5py
import numpy as np
import pytest
import zarr

from napari_unet.errors import DataError, UnsafeError, UsageError
from napari_unet.sources import open_stack
from napari_unet.sources.describe import describe
from napari_unet.sources.omero import channel_names, colour, label_colour, look, window
from napari_unet.sources.omezarr import levels_there, pyramid
from napari_unet.sources.zarrmeta import read_node


def array(where, shape, version=2, values=None):
    keys = {"name": "v2", "separator": "/"} if version == 2 else {"name": "default", "separator": "/"}
    made = zarr.create_array(
        str(where), shape=shape, dtype="f8", chunks=shape, zarr_format=version, chunk_key_encoding=keys, overwrite=True
    )
    if values is not None:
        made[...] = values
    return made


def store(root, shapes, multiscale, version="0.4", **more):
    """Write the levels of an image, and what a writer of `version` says of them."""
    old = version < "0.5"
    for path, shape in shapes.items():
        array(root / path, shape, 2 if old else 3)
    if old:
        (root / ".zgroup").write_text('{"zarr_format": 2}')
        (root / ".zattrs").write_text(json.dumps({"multiscales": [{"version": version, **multiscale}], **more}))
    else:
        attributes = {"ome": {"version": version, "multiscales": [multiscale], **more}}
        about = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (root / "zarr.json").write_text(json.dumps(about))
    return root


def plain(*scales, translations=()):
    """List datasets with these scales, None for one without."""
    found = []
    for i, scale in enumerate(scales):
        steps = [] if scale is None else [{"type": "scale", "scale": scale}]
        steps += [{"type": "translation", "translation": t} for t in translations[i : i + 1] if t is not None]
        found.append({"path": str(i), **({"coordinateTransformations": steps} if steps else {})})
    return found


LEVELS = {  # shapes, datasets, transformations of the multiscale, level, right scale, right translation
    "halved": ([(512, 512), (256, 256)], plain(None, None), None, 1, (2, 2), (0.5, 0.5)),
    "halved twice": ([(512, 512), (256, 256), (128, 128)], plain(None, None, None), None, 2, (4, 4), (1.5, 1.5)),
    "odd, rounded up twice": ([(17, 16), (9, 8), (5, 4)], plain(None, None, None), None, 2, (4, 4), (1.5, 1.5)),
    "odd, three times": ([(33, 65), (17, 33), (9, 17), (5, 9)], plain(*[None] * 4), None, 3, (8, 8), (3.5, 3.5)),
    "odd, down and up": ([(35, 36), (17, 18), (9, 9)], plain([2, 1], None, None), None, 2, (8, 4), (3, 1.5)),
    "thirds, twice": ([(100, 100), (33, 34), (11, 12)], plain(None, None, None), None, 2, (9, 9), (4, 4)),
    "odd, rounded up": ([(513, 511), (257, 256)], plain(None, None), None, 1, (2, 2), (0.5, 0.5)),
    "odd, rounded down": ([(513, 511), (256, 255)], plain(None, None), None, 1, (2, 2), (0.5, 0.5)),
    "by three": ([(300, 100), (100, 34)], plain(None, None), None, 1, (3, 3), (1, 1)),
    "not whole": ([(300, 300), (200, 200)], plain(None, None), None, 1, (1.5, 1.5), (0.25, 0.25)),
    "z is kept": ([(9, 64, 64), (9, 32, 32)], plain(None, None), None, 1, (1, 2, 2), (0, 0.5, 0.5)),
    "only the first has one": ([(64, 64), (16, 16)], plain([0.5, 0.25], None), None, 1, (2, 1), (0.75, 0.375)),
    "the first has a place": (
        [(64, 64), (32, 32)],
        plain([0.5, 0.5], None, translations=([10, 20],)),
        None,
        1,
        (1, 1),
        (10.25, 20.25),
    ),
    "of the multiscale": (
        [(64, 64), (32, 32)],
        plain(None, None),
        [{"type": "scale", "scale": [0.1, 0.2]}],
        1,
        (0.2, 0.4),
        (0.05, 0.1),
    ),
    "a place of its own": (
        [(64, 64), (32, 32)],
        plain([0.5, 0.5], None, translations=(None, [7, 8])),
        None,
        1,
        (1, 1),
        (7, 8),
    ),
    "its own": ([(64, 64), (32, 32)], plain([1, 1], [2.1, 2.2]), None, 1, (2.1, 2.2), (0, 0)),
    "the first's, though smaller": ([(64, 64), (32, 32)], plain([3, 3], [3, 3]), None, 1, (3, 3), (0, 0)),
    "text": ([(64, 64), (32, 32)], plain(["0.5", "0.5"], ["1", "1e0"]), None, 1, (1, 1), (0, 0)),
}


@pytest.mark.parametrize("case", LEVELS)
def test_a_level_lies_where_its_elements_are(tmp_path, case):
    shapes, datasets, outer, level, scale, translation = LEVELS[case]
    axes = list("zyx"[-len(shapes[0]) :])
    multiscale = {"axes": axes, "datasets": datasets, **({"coordinateTransformations": outer} if outer else {})}
    root = store(tmp_path / "a.zarr", {str(i): s for i, s in enumerate(shapes)}, multiscale, "0.3")
    for where in (root, root / str(level)):
        stack = open_stack(where, level=level if where == root else None)
        assert stack.axes == "".join(axes)
        assert stack.scale == pytest.approx(scale)
        assert stack.translation == pytest.approx(translation)
        assert any("though it is smaller" in n for n in stack.notes) == (case == "the first's, though smaller")


def test_a_time_step_without_a_scale_is_not_made_longer(tmp_path):
    shapes = {"0": (3, 2, 1, 64, 64), "1": (3, 2, 1, 32, 32)}
    stack = open_stack(store(tmp_path / "a.zarr", shapes, {"datasets": plain(None, None)}, "0.1"), level=1)
    assert (stack.axes, stack.scale) == ("tczyx", (1, 1, 1, 2, 2))


def system(axes, name="physical", units=True):
    types = {"t": "time", "c": "channel"}
    entries = [{"name": a, "type": types.get(a, "space")} for a in axes]
    return {"name": name, "axes": [e | ({"unit": "um"} if units and e["type"] == "space" else {}) for e in entries]}


def to(kind, value, **more):
    return {"type": kind, kind: value, "input": "0", "output": "physical", **more}


SEQUENCE = {
    "type": "sequence",
    "transformations": [{"type": "scale", "scale": [2, 0.25, 0.5]}, {"type": "translation", "translation": [1, 2, 3]}],
}
NESTED = {"type": "sequence", "transformations": [SEQUENCE, {"type": "scale", "scale": [2, 2, 2]}]}
DIAGONAL = [[2, 0, 0, 1], [0, 0.25, 0, 2], [0, 0, 0.5, 3]]
READ = {  # a transformation, right scale, right translation
    "identity": ({"type": "identity", "input": "0", "output": "physical"}, (1, 1, 1), (0, 0, 0)),
    "scale": (to("scale", [2, 0.25, 0.5]), (2, 0.25, 0.5), (0, 0, 0)),
    "translation": (to("translation", [1, 2, 3]), (1, 1, 1), (1, 2, 3)),
    "sequence": ({**SEQUENCE, "input": "0", "output": "physical"}, (2, 0.25, 0.5), (1, 2, 3)),
    "output as an object": ({**SEQUENCE, "output": {"name": "physical"}}, (2, 0.25, 0.5), (1, 2, 3)),
    "sequence in a sequence": ({**NESTED, "input": "0", "output": "physical"}, (4, 0.5, 1), (2, 4, 6)),
    "affine without mixing": (to("affine", DIAGONAL), (2, 0.25, 0.5), (1, 2, 3)),
    "homogeneous": (to("affine", [*DIAGONAL, [0, 0, 0, 1]]), (2, 0.25, 0.5), (1, 2, 3)),
    "rotation by nothing": (to("rotation", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]), (1, 1, 1), (0, 0, 0)),
}


@pytest.mark.parametrize("case", READ)
def test_axes_and_positions_of_0_6_are_read(tmp_path, case):
    transformation, scale, translation = READ[case]
    datasets = [{"path": "0", "coordinateTransformations": [transformation]}]
    multiscale = {"coordinateSystems": [system("xyz", "array"), system("zyx")], "datasets": datasets}
    stack = open_stack(store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, multiscale, "0.6"))
    assert (stack.axes, stack.units, stack.shape) == ("zyx", ("micrometer",) * 3, (4, 6, 8))
    assert (stack.scale, stack.translation) == (scale, translation)


def test_axes_of_0_6_come_in_the_order_of_the_file(tmp_path):
    datasets = [{"path": "0", "coordinateTransformations": [to("scale", [9, 2, 1, 0.25, 0.5])]}]
    multiscale = {"coordinateSystems": [system("tzcyx")], "datasets": datasets}
    stack = open_stack(store(tmp_path / "a.zarr", {"0": (2, 4, 3, 6, 8)}, multiscale, "0.6.dev1"))
    assert (stack.axes, stack.shape, stack.scale) == ("tczyx", (2, 3, 4, 6, 8), (9, 1, 2, 0.25, 0.5))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("place", ["dataset", "multiscale"])
def test_a_sequence_is_read_in_earlier_versions_too(tmp_path, version, place):
    holder = {"coordinateTransformations": [SEQUENCE]}
    dataset = {"path": "0", **(holder if place == "dataset" else {})}
    multiscale = {"axes": system("zyx")["axes"], "datasets": [dataset], **(holder if place == "multiscale" else {})}
    stack = open_stack(store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, multiscale, version))
    assert (stack.scale, stack.translation) == ((2, 0.25, 0.5), (1, 2, 3))


TURNED = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
REFUSED = {
    "affine": to("affine", [[*row, 5] for row in TURNED]),
    "rotation": to("rotation", TURNED),
    "mapAxis": to("mapAxis", [0, 2, 1]),
    "displacements": {"type": "displacements", "path": "field", "interpolation": "linear"},
    "coordinates": {"type": "coordinates", "path": "field"},
    "byDimension": {"type": "byDimension", "transformations": [to("scale", [2, 2])]},
    "bijection": {"type": "bijection", "forward": SEQUENCE, "inverse": SEQUENCE},
    "inverseOf": {"type": "inverseOf", "transformation": SEQUENCE},
    "warp": {"type": "warp", "warp": 5},
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_scale_and_translation_is_refused_by_name(tmp_path, kind, version, inside):
    step = {"type": "sequence", "transformations": [REFUSED[kind]]} if inside else REFUSED[kind]
    datasets = [{"path": "0", "coordinateTransformations": [step]}]
    axes = {"coordinateSystems": [system("zyx")]} if version == "0.6" else {"axes": list("zyx")}
    root = store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, {**axes, "datasets": datasets}, version)
    for axes_given in (None, "zyx"):
        with pytest.raises(DataError, match=kind):
            open_stack(root, axes_given)
    assert open_stack(root / "0", "zyx").scale == (1, 1, 1)  # as the message says


def test_a_further_coordinate_system_is_named_and_not_applied(tmp_path):
    datasets = [{"path": "0", "coordinateTransformations": [to("scale", [2, 2, 2])]}]
    further = [{"type": "rotation", "rotation": TURNED, "input": "physical", "output": "atlas"}]
    multiscale = {"coordinateSystems": [system("zyx"), system("zyx", "atlas")], "datasets": datasets}
    root = store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, {**multiscale, "coordinateTransformations": further}, "0.6")
    stack = open_stack(root)
    assert stack.scale == (2, 2, 2)
    assert any("rotation" in note and "atlas" in note for note in stack.notes)


@pytest.mark.parametrize(("kind", "values"), [("scale", [2, 0.25, 0.5]), ("affine", DIAGONAL)])
def test_numbers_that_lie_in_an_array_are_read_from_it(tmp_path, kind, values):
    datasets = [{"path": "0", "coordinateTransformations": [{"type": kind, "path": "numbers"}]}]
    root = store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, {"axes": list("zyx"), "datasets": datasets}, "0.5")
    with pytest.raises(DataError, match="numbers"):
        open_stack(root)
    array(root / "numbers", np.shape(values), 3, values)
    assert open_stack(root).scale == (2, 0.25, 0.5)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("lost", [[1], [2], [1, 2], [1, 2, 3]])
def test_lost_lower_levels_are_named_and_the_others_open(tmp_path, version, lost):
    shapes = {str(i): (64 >> i, 64 >> i) for i in range(4)}
    multiscale = {"axes": list("yx"), "datasets": plain(*([2**i, 2**i] for i in range(4)))}
    root = store(tmp_path / "a.zarr", shapes, multiscale, version)
    assert not open_stack(root).notes
    for level in lost:
        shutil.rmtree(root / str(level))
    assert [n for n in open_stack(root).notes if all(str(level) in n for level in lost)]
    assert levels_there(pyramid(read_node(str(root)))) == [i for i in range(4) if i not in lost]
    rows = describe(root)
    assert [name for name, _ in rows if name.startswith("level")] == [
        f"level {i}" for i in range(1, 4) if i not in lost
    ]
    with pytest.raises(DataError, match="not there"):
        open_stack(root, level=lost[0])


@pytest.mark.parametrize("damage", ["{", "[]", '{"zarr_format": 3, "node_type": "array"}'])
def test_a_damaged_lower_level_does_not_shut_out_the_image(tmp_path, damage):
    multiscale = {"axes": list("yx"), "datasets": plain([1, 1], [2, 2])}
    root = store(tmp_path / "a.zarr", {"0": (64, 64), "1": (32, 32)}, multiscale, "0.5")
    (root / "1" / "zarr.json").write_text(damage)
    assert levels_there(pyramid(read_node(str(root)))) == [0]
    assert dict(describe(root))["axes"] == "yx"
    assert "level 1" in dict(describe(root))["note"]


def test_a_level_that_lies_outside_is_refused_and_the_finest_still_opens(tmp_path):
    array(tmp_path / "other", (4, 4), 3)
    datasets = [*plain([1, 1]), {"path": "../other"}]
    root = store(tmp_path / "a.zarr", {"0": (8, 8)}, {"axes": list("yx"), "datasets": datasets}, "0.5")
    assert open_stack(root).shape == (8, 8)
    with pytest.raises(UnsafeError):
        open_stack(root, level=1)


@pytest.mark.parametrize("count", [65, 50_000])
def test_a_pyramid_of_countless_levels_is_refused(tmp_path, count):
    datasets = plain([1, 1]) * count
    root = store(tmp_path / "a.zarr", {"0": (8, 8)}, {"axes": list("yx"), "datasets": datasets}, "0.5")
    with pytest.raises(DataError, match="levels"):
        describe(root)


def test_a_lost_finest_level_is_named(tmp_path):
    multiscale = {"axes": list("yx"), "datasets": plain([1, 1], [2, 2])}
    root = store(tmp_path / "a.zarr", {"0": (64, 64), "1": (32, 32)}, multiscale, "0.5")
    shutil.rmtree(root / "0")
    with pytest.raises(DataError, match="'0', which is not there"):
        open_stack(root)


UNITS = {"µm": "micrometer", "um": "micrometer", "Microns": "micrometer", "micrometre": "micrometer", "NM": "nanometer"}


@pytest.mark.parametrize("word", UNITS)
def test_units_of_axes_are_read_in_any_spelling(tmp_path, word):
    axes = [{"name": a, "type": "space", "unit": word} for a in "yx"]
    root = store(tmp_path / "a.zarr", {"0": (8, 8)}, {"axes": axes, "datasets": plain([1, 1])})
    assert open_stack(root).units == (UNITS[word],) * 2


BAD_NUMBERS = [[0, 1], [-1, 1], ["x", 1], [None, 1], [True, 1], [1], 5, "1 1", {}, [10**400, 1], [float("inf"), 1]]
BAD_NUMBERS += [[float("nan"), 1], [[1], 1], ["1e999", 1]]


@pytest.mark.parametrize("values", BAD_NUMBERS, ids=lambda v: str(v)[:12])
@pytest.mark.parametrize("version", ["0.4", "0.6"])
def test_scales_that_cannot_be_are_refused(tmp_path, values, version):
    axes = {"coordinateSystems": [system("yx")]} if version == "0.6" else {"axes": list("yx")}
    root = store(tmp_path / "a.zarr", {"0": (8, 8)}, {**axes, "datasets": plain(values)}, version)
    with pytest.raises(DataError, match="scale") as caught:
        open_stack(root)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("position", [float("nan"), float("inf"), "-Infinity"])
def test_a_position_that_is_no_number_is_0_and_said(tmp_path, position):
    multiscale = {"axes": list("yx"), "datasets": plain([1, 1], translations=([position, 2],))}
    stack = open_stack(store(tmp_path / "a.zarr", {"0": (8, 8)}, multiscale))
    assert stack.translation == (0, 2)
    assert any("along y" in note for note in stack.notes)


def test_endless_nesting_is_refused(tmp_path):
    step = SEQUENCE
    for _ in range(200):
        step = {"type": "sequence", "transformations": [step]}
    datasets = [{"path": "0", "coordinateTransformations": [step]}]
    root = store(tmp_path / "a.zarr", {"0": (4, 6, 8)}, {"axes": list("zyx"), "datasets": datasets})
    with pytest.raises(DataError, match="deeply"):
        open_stack(root)


def test_a_stored_transformation_cannot_lie_outside(tmp_path):
    array(tmp_path / "numbers", (2,), 3, [2, 2])
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "path": "../numbers"}]}]
    root = store(tmp_path / "a.zarr", {"0": (8, 8)}, {"axes": list("yx"), "datasets": datasets}, "0.5")
    with pytest.raises(UnsafeError):
        open_stack(root)


COLOURS = {
    "FF8000": "FF8000",
    "#ff8000": "FF8000",
    "0xFF8000": "FF8000",
    "#f80": "FF8800",
    "FF8000FF": "FF8000",
    "red": "FF0000",
    " Green ": "00FF00",
    "rgb(255, 128, 0)": "FF8000",
    (255, 128, 0): "FF8000",
    ("255", "128", "0", "255"): "FF8000",
    0xFF8000: "FF8000",
    -1: "FFFFFF",
    "": None,
    "nonsense": None,
    (300, 0, 0): None,
    None: None,
    (1,): None,
}


@pytest.mark.parametrize("written", COLOURS, ids=str)
def test_colours_are_read_as_they_are_written(written):
    assert colour(list(written) if isinstance(written, tuple) else written) == COLOURS[written]


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ({"start": 1, "end": 9, "min": 0, "max": 10}, (1, 9)),
        ({"min": 0, "max": 10}, (0, 10)),
        ({"start": "1", "end": "9.5"}, (1, 9.5)),
        ({"start": 5, "end": 5, "min": 0, "max": 10}, (0, 10)),
        ([3, 7], (3, 7)),
        (["3", "7"], (3, 7)),
        ([7, 3], None),
        ([1, 2, 3], None),
        ({"start": float("nan"), "end": 1}, None),
        ({"start": 0, "end": 10**400}, None),
        ({}, None),
        (5, None),
        (None, None),
    ],
)
def test_windows_are_read_as_they_are_written(written, want):
    assert window(written) == want


@pytest.mark.parametrize(
    "omero", [None, 5, [], {}, {"channels": None}, {"channels": {}}, {"channels": [None]}, {"channels": [5]}, "x"]
)
def test_what_is_missing_of_omero_is_not_missed(tmp_path, omero):
    root = store(
        tmp_path / "a.zarr", {"0": (1, 8, 8)}, {"axes": list("cyx"), "datasets": plain([1, 1, 1])}, omero=omero
    )
    assert open_stack(root).channel_names in ((), ("0",))
    assert look({"omero": omero}, 0) == {}


def test_channels_are_named_where_they_have_names():
    assert channel_names({"omero": {"channels": ["DAPI", {"label": "GFP"}, {}, {"label": 7}]}}) == (
        "DAPI",
        "GFP",
        "2",
        "7",
    )


@pytest.mark.parametrize(
    ("rgba", "want"),
    [
        ([255, 0, 0, 255], [1, 0, 0, 1]),
        (["255", "0", "0", "255"], [1, 0, 0, 1]),
        ([255, 0, 0], [1, 0, 0, 1]),
        ("#ff0000", [1, 0, 0, 1]),
        ("red", [1, 0, 0, 1]),
        ([1, 2], None),
        ([256, 0, 0], None),
        (None, None),
        ([None, 0, 0], None),
    ],
)
def test_colours_of_labels_are_read_as_they_are_written(rgba, want):
    assert label_colour({"rgba": rgba}) == want


def _ome(version):
    def make(root, names, shape):
        axes = [{"name": name, "type": "space"} for name in names]
        about = {"axes": axes} if version < "0.6" else {"coordinateSystems": [{"name": "physical", "axes": axes}]}
        return store(root, {"0": shape}, {**about, "datasets": plain([1] * len(shape))}, version)

    return make


def _bare(root, names, shape):
    return zarr.create_array(str(root), shape=shape, dtype="u1", dimension_names=names).store_path.store.root


def _xarray(root, names, shape):
    array(root, shape).attrs["_ARRAY_DIMENSIONS"] = names
    return root


def _ilastik(root, names, shape):
    with h5py.File(root.with_suffix(".h5"), "w") as file:
        file["data"] = np.zeros(shape, "u1")
        file["data"].attrs["axistags"] = json.dumps({"axes": [{"key": name} for name in names]})
    return root.with_suffix(".h5")


def _layer(root, names, shape):
    return types.SimpleNamespace(data=np.zeros(shape, "u1"), scale=np.ones(len(shape)), axis_labels=names, name="a")


WRITERS = {"0.4": _ome("0.4"), "0.5": _ome("0.5"), "0.6": _ome("0.6")}
WRITERS |= {"zarr array": _bare, "xarray": _xarray, "HDF5": _ilastik, "layer": _layer}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("names", "given"),
    [("yy", "yx"), ("xx", "yx"), ("zyy", "zyx"), ("YyX", "zyx"), ("tyxt", "tyxc"), ("ccyx", "tcyx"), ("zzyx", "tzyx")],
)
def test_an_axis_named_twice_is_refused_by_its_name_and_can_be_given(tmp_path, writer, names, given):
    what = WRITERS[writer](tmp_path / "a", list(names), tuple(range(4, 4 + len(names))))
    twice = next(a for a in names.lower() if names.lower().count(a) > 1)
    with pytest.raises(DataError, match=f"with {twice} more than once; give axes"):
        open_stack(what)
    assert open_stack(what, given).axes == "".join(a for a in "tczyx" if a in given)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("names", [("lat", "lon"), ("phi", "r"), ("Zeile", "Spalte"), ("u", "v"), ("i_1", "i_2")])
def test_a_plane_whose_axes_have_other_names_opens_and_says_as_what(tmp_path, writer, names):
    stack = open_stack(WRITERS[writer](tmp_path / "a", list(names), (4, 5)))
    assert (stack.axes, stack.shape) == ("yx", (4, 5))
    assert f"its axes are named '{names[0].lower()}', '{names[1].lower()}'; y, x was taken" in stack.notes


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("names", [("row", "col"), ("height", "width"), ("width", "height"), ("Column", "Row"), "xy"])
def test_axes_are_known_by_their_names(tmp_path, writer, names):
    stack = open_stack(WRITERS[writer](tmp_path / "a", list(names), (4, 5)))
    turned = str(names[0]).lower() in ("x", "width", "column")
    assert (stack.axes, stack.shape, stack.notes) == ("yx", (5, 4) if turned else (4, 5), ())


@pytest.mark.parametrize(("version", "newer"), [("0.7", "0.7"), ("0.7.dev2", "0.7"), ("1.0", "1.0"), ("0.10", "0.10")])
def test_a_version_that_is_not_known_is_said(tmp_path, version, newer):
    axes = [{"name": a, "type": "space"} for a in "yx"]
    stack = open_stack(store(tmp_path / "a.zarr", {"0": (4, 5)}, {"axes": axes, "datasets": plain([1, 1])}, version))
    assert stack.notes == (f"OME-Zarr {version} is newer than 0.6, as which it was read",) and newer in stack.notes[0]


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.5.1", "0.6", "0.6.dev3"])
def test_of_versions_that_are_known_nothing_is_said(tmp_path, version):
    axes = [{"name": a, "type": "space"} for a in "yx"]
    about = {"axes": axes, "datasets": plain([1, 1])}
    assert open_stack(store(tmp_path / "a.zarr", {"0": (4, 5)}, about, version)).notes == ()


@pytest.mark.parametrize(("series", "width"), [(0, 5), ("0", 5), ("1", 6), (2, 7), ("b", 7), ("1 ", None), (3, None)])
def test_an_image_of_a_group_of_several_is_chosen_by_number_or_name(tmp_path, series, width):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    for name, size in (("0", 5), ("1", 6), ("b", 7)):
        axes = [{"name": a, "type": "space"} for a in "yx"]
        about = {"axes": axes, "datasets": plain([1, 1])}
        store(tmp_path / "a.zarr" / name, {"0": (4, size)}, about, "0.5")
    if width is None:
        with pytest.raises(DataError, match=r"has no image .*; it has 0, 1, b"):
            open_stack(tmp_path / "a.zarr", series=series)
    else:
        assert open_stack(tmp_path / "a.zarr", series=series).shape == (4, width)


@pytest.mark.parametrize("series", [1, "1", "a", -1, "0 "])
@pytest.mark.parametrize("what", ["array", "layer", "zarr array", "zarr group"])
def test_a_choice_where_there_is_one_image_is_said(tmp_path, series, what):
    data = np.zeros((4, 5))
    about = {"axes": ["y", "x"], "datasets": plain([1, 1])}
    given = {
        "array": data,
        "layer": types.SimpleNamespace(data=data, scale=[1, 1]),
        "zarr array": array(tmp_path / "b.zarr", (4, 5)),
        "zarr group": store(tmp_path / "a.zarr", {"0": (4, 5)}, about),
    }[what]
    (note,) = open_stack(given, series=series).notes
    assert note == f"it is a single image, {series!r} was not looked for"
    assert open_stack(given, series=0).notes == open_stack(given).notes == ()


@pytest.mark.parametrize(
    ("names", "channel", "numbers"),
    [
        ("aba", "a", "0, 2"),
        ("aaa", "a", "0, 1, 2"),
        ("011", "1", "1, 2"),
        (["", "", "x"], "", "0, 1"),
        ("éée", "é", "0, 1"),
    ],
)
def test_a_channel_whose_name_several_have_is_asked_for_by_number(tmp_path, names, channel, numbers):
    axes = [{"name": a, "type": "space"} for a in "yx"]
    about = {"axes": [{"name": "c", "type": "channel"}, *axes], "datasets": plain([1, 1, 1])}
    omero = {"channels": [{"label": name} for name in names]}
    path = store(tmp_path / "a.zarr", {"0": (3, 4, 5)}, about, omero=omero)
    if channel:
        with pytest.raises(DataError, match=f"channels {channel!r}; give the number of one: {numbers}"):
            open_stack(path, channel=channel)
    assert open_stack(path, channel=0).size("c") == 1


@pytest.mark.parametrize(
    "chosen", [{"channel": 1.5}, {"channel": b"0"}, {"channel": [0]}, {"time": 0.5}, {"time": "1"}]
)
def test_a_choice_that_is_no_number_is_refused(chosen):
    with pytest.raises(UsageError, match="give"):
        open_stack(np.zeros((2, 2, 4, 5)), "tcyx", **chosen)
