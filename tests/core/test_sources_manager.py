"""NDTiff of Micro-Manager: which planes belong to which position, time, channel and depth."""

import itertools
import json
import pickle
import struct

import numpy as np
import pytest

from napari_unet.errors import DataError
from napari_unet.sources import open_stack
from napari_unet.sources.manager import INDEX
from napari_unet.sources.tiff import tiff_images, tiff_names

SIZE = (20, 24)
PIXELS, TEXT, LONG, SHORT = 0.325, 2, 4, 3  # micrometres; types of TIFF's tags


def plane(number):
    return np.random.default_rng(number).integers(0, 4000, SIZE).astype("u2")


def ndtiff(folder, coordinates, summary=None, per_file=1000):
    """Write planes at their coordinates, in files of so many: header, then each plane behind its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    text, index, files = json.dumps(summary or {}).encode(), b"", []
    for number, at in enumerate(coordinates):
        if number % per_file == 0:
            count = number // per_file
            files.append([folder / f"a_NDTiffStack{f'_{count}' if count else ''}.tif", b""])
            head = struct.pack("<2sHIIIIII", b"II", 42, 28 + len(text), 483729, 3, 3, 2355492, len(text))
            files[-1][1] = head + text
        path, content = files[-1]
        about = json.dumps({"PixelSizeUm": PIXELS}).encode() + b"\0"
        data = plane(number).tobytes()
        start = len(content)
        tags = 10
        values = start + 2 + 12 * tags + 4
        last = (number + 1) % per_file == 0 or number + 1 == len(coordinates)
        after = 0 if last else values + len(about) + len(data)
        entries = [(256, SHORT, 1, SIZE[1]), (257, SHORT, 1, SIZE[0]), (258, SHORT, 1, 16), (259, SHORT, 1, 1)]
        entries += [(262, SHORT, 1, 1), (273, LONG, 1, values + len(about)), (277, SHORT, 1, 1)]
        entries += [(278, SHORT, 1, SIZE[0]), (279, LONG, 1, len(data)), (51123, TEXT, len(about), values)]
        body = struct.pack("<H", tags) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        files[-1][1] = content + body + struct.pack("<I", after) + about + data
        axes, name = json.dumps(at).encode(), path.name.encode()
        index += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
        index += struct.pack("<IiiiiIii", values + len(about), SIZE[1], SIZE[0], 1, 0, values, len(about), 0)
    for path, content in files:
        path.write_bytes(content)
    (folder / INDEX).write_bytes(index)
    return [path for path, _ in files]


def every(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


SETS = {  # coordinates in the order in which they came; which are of the image that is opened; its axes and name
    "time, channel, z": (every(time=range(3), channel=["b", "a"], z=range(2)), {}, "tczyx", ""),
    "z first": (every(z=range(3), time=range(2)), {}, "tzyx", ""),
    "from a negative z": (every(z=range(-2, 3)), {}, "zyx", ""),
    "positions by number": (every(position=range(3), time=range(2)), {"position": 1}, "tyx", "position 1"),
    "positions by name": (every(position=["A1", "B7"], z=range(4)), {"position": "B7"}, "zyx", "position B7"),
    "positions within times": (
        every(time=range(2), position=[4, 5], z=range(2)),
        {"position": 5},
        "tzyx",
        "position 5",
    ),
    "exposures": (every(time=range(2), exposure=[10, 11]), {"exposure": 11}, "tyx", "exposure 11"),
    "mosaic": (every(row=range(2), column=range(3)), {"row": 1, "column": 0}, "yx", "row 1, column 0"),
    "an axis of somebody's own": (every(pump=["on", "off"], z=range(2)), {"pump": "off"}, "zyx", "pump off"),
    "two of them": (every(pump=["on", "off"], dose=range(2)), {"pump": "off", "dose": 1}, "yx", "pump off, dose 1"),
    "a single plane": ([{"time": 0}], {}, "yx", ""),
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("per_file", [1000, 3])
def test_each_plane_lies_where_the_index_says(tmp_path, kind, per_file):
    coordinates, chosen, axes, name = SETS[kind]
    files = ndtiff(tmp_path / "a", coordinates, {"PixelSize_um": 9, "z-step_um": 1.5}, per_file)
    stack = open_stack(files[0], series=name or None)
    assert stack.axes == axes and stack.scale_along("yx") == (PIXELS, PIXELS)
    letters = {"time": "t", "channel": "c", "z": "z"}
    values = {axis: list(dict.fromkeys(at[axis] for at in coordinates)) for axis in coordinates[0]}
    whole = stack.read(tuple(slice(0, n) for n in stack.shape))
    for number, at in enumerate(coordinates):
        if all(at[axis] == value for axis, value in chosen.items()):
            where = {letters[axis]: values[axis].index(v) for axis, v in at.items() if axis not in chosen}
            assert (
                whole[tuple(where.get(a, slice(None)) for a in axes if a in where or a in "yx")] == plane(number)
            ).all()
    assert stack.channel_names == (("b", "a") if "c" in axes else ())
    assert "z" not in axes or stack.scale_along("z") == (1.5,)
    assert (np.asarray(pickle.loads(pickle.dumps(stack.data))[...]) == whole).all()


def test_the_first_of_several_positions_is_taken_and_that_is_said_and_each_is_listed(tmp_path):
    (path,) = ndtiff(tmp_path / "a", every(position=["A1", "B7"], z=range(4)))
    stack = open_stack(path)
    (note,) = stack.notes
    assert "'position A1' of 2 in the file was taken" in note and "1 'position B7'" in note
    assert tiff_names(path) == {0: "position A1", 1: "position B7"}
    assert [line.partition(",")[0] for _, line in tiff_images(path)] == ["position A1", "position B7"]
    assert (open_stack(path, series=1).read((slice(0, 1), slice(0, 20), slice(0, 24)))[0] == plane(4)).all()
    with pytest.raises(DataError, match="position B7"):
        open_stack(path, series="position C3")


def test_the_position_whose_planes_lie_in_a_file_is_taken(tmp_path):
    files = ndtiff(tmp_path / "a", every(position=range(3), z=range(2)), per_file=2)
    for number, path in enumerate(files):
        stack = open_stack(path)
        assert stack.notes == (f"position {number} of 3 was taken: its planes lie in this file",)
        assert (stack.read((slice(0, 1), slice(0, 20), slice(0, 24)))[0] == plane(2 * number)).all()


@pytest.mark.parametrize("there", [1, 3, 4, 7])
def test_a_position_that_was_stopped_is_incomplete_and_the_others_are_not(tmp_path, there):
    coordinates = every(position=range(2), time=range(4), z=range(2))
    (path,) = ndtiff(tmp_path / "a", coordinates[: 8 + there])
    assert open_stack(path, series="position 0").shape == (4, 2, *SIZE)
    with pytest.raises(DataError, match=f"declares 8 pages, {there} readable.*--allow-incomplete"):
        open_stack(path, series="position 1")
    stack = open_stack(path, series="position 1", allow_incomplete=True)
    assert stack.shape[:2] == {1: (1, 1), 3: (1, 2), 4: (2, 2), 7: (3, 2)}[there]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.write_bytes(index.read_bytes()[:-5]),
        lambda index: index.write_bytes(b""),
        lambda index: index.write_bytes(index.read_bytes().replace(b'"z": 1', b'"z": {}')),
        lambda index: index.write_bytes(index.read_bytes().replace(b'"z": 1', b'"q": 1')),
        lambda index: index.write_bytes(index.read_bytes().replace(b'"z": 1}', b'"z":9e9')),
        lambda index: index.write_bytes(index.read_bytes().replace(b'{"position": 1, "z": 1}', b"[" * 23)),
        lambda index: index.write_bytes(index.read_bytes().replace(b"a_NDTiffStack.tif", b"../../etc/passwd1")),
    ],
)
def test_a_damaged_index_is_one_sentence(tmp_path, change):
    (path,) = ndtiff(tmp_path / "a", every(position=range(2), z=range(2)))
    change(tmp_path / "a" / INDEX)
    try:
        open_stack(path)
    except DataError as error:
        assert "\n" not in str(error)
