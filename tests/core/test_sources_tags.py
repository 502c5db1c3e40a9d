import json
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile

from napari_unet.errors import DataError
from napari_unet.sources import open_labels, open_stack

STACK = np.random.default_rng(0).integers(0, 60_000, (6, 20, 24)).astype("u2")
UM = ("micrometer",) * 3


def everything(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


def hyperstack(path, lines, resolution=None, unit="NONE"):
    """Write planes as ImageJ describes them, with lines and resolution tags of any kind."""
    with tifffile.TiffWriter(path, byteorder=">") as file:
        for number, page in enumerate(STACK):
            text = f"ImageJ=1.54f\nimages=6\nslices=6\n{lines}".encode("latin-1") if number == 0 else None
            options = {} if resolution is None else {"resolution": resolution, "resolutionunit": unit}
            file.write(page, photometric="minisblack", description=text, metadata=None, **options)
    return path


@pytest.mark.parametrize(
    ("lines", "resolution", "unit", "scale", "units"),
    [
        ("unit=\\u00B5m\nspacing=2\n", (4, 5), "NONE", (2, 0.2, 0.25), UM),
        ("unit=µm\nspacing=2\n", (4, 4), "NONE", (2, 0.25, 0.25), UM),
        ("unit=micrometre\nspacing=0.5\n", (4, 4), "NONE", (0.5, 0.25, 0.25), UM),
        ("unit=angstrom\nspacing=40\n", (0.1, 0.1), "NONE", (40, 10, 10), ("angstrom",) * 3),
        ("unit=cm\nspacing=1\n", (40, 40), "NONE", (1, 0.025, 0.025), ("centimeter",) * 3),
        ("unit=inch\nspacing=0.001\n", (1000, 1000), "INCH", (25.4, 25.4, 25.4), UM),
        ("unit=um\nspacing=2\n", (50_800, 50_800), "INCH", (2, 0.5, 0.5), UM),
        ("unit=nm\nspacing=50\n", (2_500_000, 2_500_000), "CENTIMETER", (50, 4, 4), ("nanometer",) * 3),
        ("unit=um\nspacing=2\n", (4, 4), "CENTIMETER", (2, 0.25, 0.25), UM),
        ("unit=mm\nyunit=um\nspacing=2\n", (4, 8), "NONE", (2, 0.125, 0.25), ("millimeter", *UM[:1], "millimeter")),
        ("spacing=3\n", (2, 2), "NONE", (3, 0.5, 0.5), (None,) * 3),
        ("unit=pixel\nspacing=-3\n", (1, 2), "NONE", (3, 0.5, 1), (None,) * 3),
        ("unit=voxels\nspacing=0.25\n", (1, 1), "NONE", (0.25, 1, 1), (None,) * 3),
        ("", None, "NONE", (1, 1, 1), (None,) * 3),
        ("unit=cubit\nspacing=2\n", (4, 4), "NONE", (2, 0.25, 0.25), ("cubit",) * 3),
        ("unit=micron\nspacing=0\n", (4, 4), "NONE", (1, 0.25, 0.25), (None, *UM[:2])),
        ("unit=micron\nspacing=NaN\n", (4, 4), "NONE", (1, 0.25, 0.25), (None, *UM[:2])),
    ],
)
def test_the_pixel_size_of_imagej_is_read_in_its_unit_along_each_axis(tmp_path, lines, resolution, unit, scale, units):
    stack = open_stack(hyperstack(tmp_path / "a.tif", lines, resolution, unit))
    assert stack.scale_along("zyx") == pytest.approx(scale, rel=1e-3)
    assert stack.values_along("zyx", "units") == units
    assert any("cubit" in note for note in stack.notes) == ("cubit" in lines)
    assert any("not a number" in note for note in stack.notes) == ("NaN" in lines)


@pytest.mark.parametrize("unit", ["sec", "ms", "h", "furlong", "grey value"])
def test_a_unit_that_is_no_length_is_said_and_anisotropy_is_kept(tmp_path, unit):
    stack = open_stack(hyperstack(tmp_path / "a.tif", f"unit={unit}\nspacing=3\n", (4, 4)))
    assert stack.scale == (3, 0.25, 0.25)
    assert any(note.startswith("the unit ") and "along zyx" in note for note in stack.notes)


@pytest.mark.parametrize(
    ("size", "unit", "scale", "name"),
    [
        ("0.5", "µm", 0.5, "micrometer"),
        ("500", "nm", 500, "nanometer"),
        ("0,5", "micron", 0.5, "micrometer"),
        ("5", "Å", 5, "angstrom"),
        ("0.5", "pixel", 0.5, None),
        ("0.5", "reference frame", 0.5, None),
        ("1", "in", 25400, "micrometer"),
        ("2", "thou", 50.8, "micrometer"),
        ("1", "pt", 25400 / 72, "micrometer"),
        ("big", "µm", 1, None),
    ],
)
def test_the_pixel_size_of_ome_xml_is_read_in_any_unit(tmp_path, size, unit, scale, name):
    tifffile.imwrite(
        tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX", "PhysicalSizeX": 7, "PhysicalSizeXUnit": "Q"}
    )
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.pages[0].description.replace('"7"', f'"{size}"').replace('"Q"', f'"{unit}"')
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, description=text.encode(), metadata=None)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert stack.scale_along("x") == pytest.approx((scale,)) and stack.values_along("x", "units") == (name,)
    assert any("not a number" in note for note in stack.notes) == (size == "big")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["DAPI", "GFP"], ("DAPI", "GFP")),
        (["DAPI", "GFP"] * 3, ("DAPI", "GFP")),
        (
            [f"c:{c + 1}/2 z:{z + 1}/3 - {'DAPI' if c == 0 else '488'}" for z in range(3) for c in range(2)],
            ("DAPI", "488"),
        ),
        ([f"plane {i}" for i in range(6)], ()),
        (["same"] * 6, ()),
        ([""] * 6, ()),
    ],
)
def test_labels_of_imagej_name_the_channels_where_each_has_one_of_its_own(tmp_path, labels, names):
    metadata = {"axes": "ZCYX", "Labels": labels}
    tifffile.imwrite(tmp_path / "a.tif", STACK.reshape(3, 2, 20, 24), imagej=True, metadata=metadata)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.channel_names == names
    if "488" in names:
        assert np.array_equal(everything(open_stack(tmp_path / "a.tif", channel="488"))[0], STACK[1::2])
        assert open_stack(tmp_path / "a.tif", channel=488).channel_names == ("488",)


@pytest.mark.parametrize("channel", ["2", 2, "DAPI", -1])
def test_a_channel_that_is_not_there_is_named_beside_those_that_are(tmp_path, channel):
    tifffile.imwrite(tmp_path / "a.tif", STACK.reshape(3, 2, 20, 24), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(DataError, match="0 to 1"):
        open_stack(tmp_path / "a.tif", channel=channel)
    assert open_stack(tmp_path / "a.tif", channel="1").size("c") == 1


def micromanager(path, plane):
    """Write a plane with the tag by which Micro-Manager is known."""
    tag = (51123, 2, None, json.dumps(plane), True)
    tifffile.imwrite(path, STACK[0], photometric="minisblack", metadata=None, extratags=[tag], byteorder="<")


@pytest.mark.parametrize(
    ("plane", "size"),
    [
        ({"PixelSizeUm": 0.65}, 0.65),
        ({"PixelSize_um": "0.325"}, 0.325),
        ({"PixelSizeUm": 0}, 1.0),
        ({"Camera": "a"}, 1.0),
    ],
)
def test_the_pixel_size_of_a_plane_of_micro_manager_is_read(tmp_path, plane, size):
    micromanager(tmp_path / "a.tif", plane)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.scale_along("yx") == (size, size)
    assert np.array_equal(everything(stack), STACK[0])


def png(data, colour):
    """Return a PNG of 16 bits per channel whose rows use every filter."""
    height, width, channels = data.shape
    rows = data.astype(">u2").reshape(height, -1).view("u1").astype(int)
    step, out = 2 * channels, b""
    above = np.zeros(rows.shape[1], int)
    for y, row in enumerate(rows):
        left, corner = np.r_[np.zeros(step, int), row[:-step]], np.r_[np.zeros(step, int), above[:-step]]
        guess = left + above - corner
        far = np.abs(np.stack([guess - left, guess - above, guess - corner]))
        paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner))
        kind = y % 5
        taken = (0, left, above, (left + above) // 2, paeth)[kind]
        out += bytes([kind]) + ((row - taken) % 256).astype("u1").tobytes()
        above = row
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(out)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (3, 2), (4, 6)])
@pytest.mark.parametrize("shape", [(7, 11), (20, 24), (1, 1)])
def test_pngs_of_16_bits_keep_their_values(tmp_path, channels, colour, shape):
    data = np.random.default_rng(channels).integers(0, 2**16, (*shape, channels)).astype("u2")
    (tmp_path / "a.png").write_bytes(png(data, colour))
    stack = open_stack(tmp_path / "a.png")
    assert stack.dtype == np.uint16
    if channels < 3:
        assert np.array_equal(everything(stack), data[..., 0])
    else:
        assert np.array_equal(everything(stack), data[..., :3].transpose(2, 0, 1))
    assert ("the alpha channel was left out" in stack.notes) == (channels in (2, 4))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_of_whole_numbers_are_labels(tmp_path, dtype):
    data = (STACK % 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZYX"}, byteorder=">" if dtype[0] == ">" else "<")
    stack = open_labels(tmp_path / "a.tif")
    assert stack.dtype.kind == "u"
    assert np.array_equal(everything(stack), STACK % 200)


@pytest.mark.parametrize("value", [0.5, -1, np.nan, np.inf, 2.0**33])
def test_floats_that_are_no_labels_are_refused_with_the_number(tmp_path, value):
    data = (STACK % 200).astype("f4")
    data[3, 7, 9] = value
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZYX"})
    with pytest.raises(
        DataError, match=rf"float32, labels are integers; convert.*\(there is {re.escape(f'{value:g}')} in"
    ):
        open_labels(tmp_path / "a.tif")


def test_a_fraction_beyond_the_sample_is_refused_where_it_is_read():
    data = np.ones((3000, 3000), "f4")
    data[-700, -200] = 0.25
    stack = open_labels(data)
    with pytest.raises(DataError, match=r"there is 0\.25"):
        everything(stack)
