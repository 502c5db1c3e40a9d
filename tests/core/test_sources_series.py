import os
import pickle
import re
import time
import tracemalloc
import uuid

import numpy as np
import pytest
import tifffile

from napari_unet.errors import DataError
from napari_unet.sources import describe, open_stack
from napari_unet.sources.tiffseries import leading_box

RNG = np.random.default_rng(0)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def pixels(count, *shape):
    return [RNG.integers(0, 60_000, shape or (32, 40)).astype("u2") for _ in range(count)]


def everything(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


def xml(images, own, quote='"'):
    """OME-XML of images: each (name, data, size, channel, [(file name, id, first page, first z, planes)])."""
    body = ""
    for name, data, size, channel, parts in images:
        z = data.shape[0] if data.ndim == 3 else 1
        body += (
            f'<Image ID="Image:{name}" Name="{name}"><Pixels ID="Pixels:{name}" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{data.shape[-1]}" SizeY="{data.shape[-2]}" SizeZ="{z}" SizeC="1" SizeT="1" '
            f'PhysicalSizeX="{size}" PhysicalSizeY="{size}"><Channel ID="C:{name}" Name="{channel}"/>'
        )
        for file, key, page, first, count in parts:
            body += f'<TiffData IFD="{page}" FirstZ="{first}" PlaneCount="{count}">'
            body += f'<UUID FileName="{file}">urn:uuid:{key}</UUID></TiffData>'
        body += "</Pixels></Image>"
    root = f' UUID="urn:uuid:{own}"' if own else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}"{root}>{body}</OME>'.replace('"', quote)


def positions(folder, datas, quote='"', ids=True, names=None):
    """Write one file a position, each with the XML of all."""
    keys = [str(uuid.uuid4()) for _ in datas]
    files = [f"run_Pos{i}.ome.tif" for i in range(len(datas))]
    images = [
        (f"Pos{i}", data, 0.25 * (i + 1), f"dye {i}", [(files[i], keys[i], 0, 0, len(data) if data.ndim == 3 else 1)])
        for i, data in enumerate(datas)
    ]
    for i, data in enumerate(datas):
        text = xml(images, keys[i] if ids else None, quote)
        tifffile.imwrite(folder / files[i], data, photometric="minisblack", description=text.encode(), metadata=None)
    return [folder / name for name in files]


@pytest.mark.parametrize(
    ("datas", "options"),
    [
        (pixels(2), {}),
        (pixels(5), {}),
        (pixels(3, 4, 32, 40), {}),
        (pixels(2), {"quote": "'"}),
        (pixels(3), {"ids": False}),
        ([*pixels(1, 3, 32, 40), *pixels(1, 2, 64, 48)], {}),
    ],
)
def test_a_file_of_several_opens_as_the_image_whose_planes_lie_in_it(tmp_path, datas, options):
    for i, path in enumerate(positions(tmp_path, datas, **options)):
        stack = open_stack(path)
        assert np.array_equal(everything(stack).squeeze(), datas[i])
        assert stack.scale_along("yx") == (0.25 * (i + 1),) * 2
        assert stack.channel_names == (f"dye {i}",)
        assert any(f"'Pos{i}' of {len(datas)}" in note for note in stack.notes)


@pytest.mark.parametrize("where", ["a file of the run", "a companion file"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_that_names_the_one_with_the_metadata_has_the_size_and_the_axes_it_is_given_there(
    tmp_path, where, count, renamed
):
    datas, keys = pixels(3, count, 32, 40), [str(uuid.uuid4()) for _ in range(3)]
    parts = [[(f"p{i}.ome.tif", keys[i], 0, 0, count)] for i in range(3)]
    images = [(f"P{i}", datas[i], 0.5 * (i + 1), f"dye {i}", parts[i]) for i in range(3)]
    text, master = xml(images, keys[0]), "p0.ome.tif"
    if where == "a companion file":
        text, master = xml(images, None), "run.companion.ome"
        (tmp_path / master).write_text(text)
    for i, data in enumerate(datas):
        only = f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:x"/>'
        only = f'<OME xmlns="{OME}" UUID="urn:uuid:{keys[i]}">{only}</OME>'
        description = text if master == f"p{i}.ome.tif" else only
        path = tmp_path / f"p{i}.ome.tif"
        tifffile.imwrite(path, data, photometric="minisblack", description=description.encode(), metadata=None)
        if renamed and i == 2:
            path = path.rename(tmp_path / "other.ome.tif")
        stack = open_stack(path)
        assert np.array_equal(everything(stack).squeeze(), data.squeeze())
        assert stack.scale_along("yx") == (0.5 * (i + 1),) * 2
        assert stack.channel_names == (f"dye {i}",)


@pytest.mark.parametrize("name", ["../x.ome", "/etc/passwd", "sub/x.ome", "..", "a.pipe", "away.ome"])
def test_the_file_with_the_metadata_lies_in_the_folder_and_is_one(tmp_path, name):
    if name == "a.pipe" and not hasattr(os, "mkfifo"):
        return
    if name == "a.pipe":
        os.mkfifo(tmp_path / name)
    if name == "away.ome":
        (tmp_path / name).symlink_to("/etc/hostname")
    only = f'<OME xmlns="{OME}"><BinaryOnly MetadataFile="{name}" UUID="urn:uuid:x"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", PAGES[0], description=only.encode(), metadata=None)
    with pytest.raises(DataError, match=r"outside of its folder|not a regular file"):
        open_stack(tmp_path / "a.ome.tif")


def test_a_position_keeps_its_size_and_name_where_the_others_are_gone_or_it_is_renamed(tmp_path):
    datas = pixels(3)
    first, second, third = positions(tmp_path, datas)
    first.unlink()
    third = third.rename(tmp_path / "renamed.ome.tif")
    for path, i in ((second, 1), (third, 2)):
        stack = open_stack(path)
        assert np.array_equal(everything(stack), datas[i])
        assert (stack.scale, stack.channel_names) == ((0.25 * (i + 1),) * 2, (f"dye {i}",))


SLIDE, MACRO, THUMB = pixels(1, 200, 240)[0], pixels(1, 60, 90)[0], pixels(1, 20, 24)[0]
PAGES = pixels(1, 6, 64, 80)[0]
FILES = {
    "macro before slide": ([MACRO, SLIDE], 1),
    "slide before macro": ([SLIDE, MACRO], 0),
    "thumbnail, macro, slide": ([THUMB, MACRO, SLIDE], 2),
    "odd first page": ([MACRO, *PAGES], 1),
    "appended page": ([*PAGES, THUMB], 0),
    "two of one size": ([SLIDE, SLIDE.astype("u1")], 0),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("ome", [False, True])
def test_of_several_images_in_a_file_the_largest_is_taken_and_said_and_each_can_be_chosen(tmp_path, kind, ome):
    parts, largest = FILES[kind]
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    grouped = [np.stack([p for p in parts if p.shape == s and p.dtype == d]) for s, d in _kinds(parts)]
    with tifffile.TiffWriter(path, ome=ome) as file:
        for data in grouped if ome else parts:
            axes = "ZYX"[-data.ndim :]
            file.write(data, photometric="minisblack", contiguous=False, metadata={"axes": axes} if ome else None)
    largest = max(range(len(grouped)), key=lambda i: (grouped[i].size, -i))
    axes = "zyx" if len(grouped[largest]) > 1 else None
    stack = open_stack(path, axes)
    assert np.array_equal(everything(stack).squeeze(), grouped[largest].squeeze())
    assert any(f"of {len(grouped)} in the file" in note and "--series" in note for note in stack.notes)
    for i, data in enumerate(grouped):
        chosen = open_stack(path, "zyx" if len(data) > 1 else None, series=i)
        assert np.array_equal(everything(chosen).squeeze(), data.squeeze())
        assert not any("--series" in note for note in chosen.notes)
    with pytest.raises(DataError, match=rf"no image {len(grouped)}; it has 0"):
        open_stack(path, series=len(grouped))
    if axes is None or ome:
        assert {f"image {i}" for i in range(len(grouped))} <= {name for name, _ in describe(path)}


def _kinds(parts):
    return list(dict.fromkeys((p.shape, p.dtype) for p in parts))


def test_an_image_can_be_chosen_by_its_name(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for name, data in (("macro", MACRO), ("slide", SLIDE)):
            file.write(data, photometric="minisblack", metadata={"axes": "YX", "Name": name})
    assert open_stack(tmp_path / "a.ome.tif", series="macro").shape == MACRO.shape
    assert "'slide'" in open_stack(tmp_path / "a.ome.tif").notes[0]
    with pytest.raises(DataError, match=r"no image 'label'; it has 0 'macro' \(60 x 90 uint16\), 1 'slide'"):
        open_stack(tmp_path / "a.ome.tif", series="label")


@pytest.mark.parametrize("where", ["subifds", "reduced pages", "plain pages"])
def test_levels_of_a_pyramid_are_no_images_of_their_own(tmp_path, where):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        options = {"tile": (16, 16), "photometric": "minisblack", "metadata": None}
        file.write(SLIDE, subifds=2 if where == "subifds" else 0, **options)
        for step in (2, 4):
            file.write(SLIDE[::step, ::step], subfiletype=0 if where == "plain pages" else 1, **options)
    stack = open_stack(tmp_path / "a.tif")
    assert stack.shape == SLIDE.shape
    assert not any("--series" in note for note in stack.notes)
    assert np.array_equal(everything(open_stack(tmp_path / "a.tif", level=2)), SLIDE[::4, ::4])


def stopped(path, shape, axes, planes):
    """Write an OME-TIFF that declares more planes than are in it."""
    data = RNG.integers(0, 60_000, shape).astype("u2")
    tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": axes})
    with tifffile.TiffFile(path) as file:
        text = file.pages[0].description
    pages = data.reshape(-1, *shape[-2:])[:planes]
    tifffile.imwrite(path, pages, photometric="minisblack", description=text.encode(), metadata=None)
    return data


@pytest.mark.parametrize(
    ("shape", "axes", "planes", "want"),
    [
        ((10, 16, 20), "TYX", 6, np.s_[:6]),
        ((10, 16, 20), "ZYX", 1, np.s_[:1]),
        ((4, 5, 16, 20), "TZYX", 13, np.s_[:2]),
        ((4, 5, 16, 20), "TZYX", 3, np.s_[:1, :3]),
        ((3, 2, 4, 16, 20), "TCZYX", 23, np.s_[:2]),
        ((3, 2, 4, 16, 20), "TCZYX", 6, np.s_[:1, :1]),
    ],
)
def test_a_stopped_acquisition_opens_with_what_is_there_on_request(tmp_path, shape, axes, planes, want):
    data = stopped(tmp_path / "a.ome.tif", shape, axes, planes)
    count = np.prod(shape[:-2])
    with pytest.raises(DataError, match=rf"declares {count} pages, {planes} readable.*--allow-incomplete"):
        open_stack(tmp_path / "a.ome.tif")
    stack = open_stack(tmp_path / "a.ome.tif", allow_incomplete=True)
    assert np.array_equal(everything(stack), data[want])
    assert any(f"declares {count} pages" in note for note in stack.notes)


@pytest.mark.parametrize(
    ("lines", "planes", "axes", "want"),
    [
        ("images=10\nframes=10\n", 6, "tyx", np.s_[:6]),
        ("images=10\nslices=10\n", 9, "zyx", np.s_[:9]),
        ("images=10\nchannels=10\n", 7, "cyx", np.s_[:7]),
    ],
)
def test_a_stopped_hyperstack_of_imagej_opens_with_what_is_there_on_request(tmp_path, lines, planes, axes, want):
    data = RNG.integers(0, 60_000, (10, 16, 20)).astype("u2")
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as file:
        for number, page in enumerate(data[:planes]):
            text = f"ImageJ=1.54f\n{lines}hyperstack=true\n" if number == 0 else None
            file.write(page, photometric="minisblack", description=text, metadata=None, contiguous=False)
    with pytest.raises(DataError, match=rf"declares 10 pages, {planes} readable"):
        open_stack(tmp_path / "a.tif")
    stack = open_stack(tmp_path / "a.tif", allow_incomplete=True)
    assert stack.axes == axes
    assert np.array_equal(everything(stack), data[want])


@pytest.mark.parametrize(("counts", "axes"), [("slices", "zyx"), ("frames", "tyx"), ("channels", "cyx")])
@pytest.mark.parametrize(("shape", "dtype"), [((8, 10), "u2"), ((20, 16), "u2"), ((16, 20), "u1"), ((40, 60), "u1")])
def test_a_stack_of_imagej_with_another_page_behind_it_is_two_images(tmp_path, counts, axes, shape, dtype):
    data = RNG.integers(0, 60_000, (6, 16, 20)).astype("u2")
    extra = RNG.integers(0, 99, shape).astype(dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as file:
        for number, page in enumerate([*data, extra]):
            text = f"ImageJ=1.54f\nimages=6\n{counts}=6\nhyperstack=true\nunit=nm\n" if number == 0 else None
            more = {"resolution": (0.2, 0.2), "resolutionunit": "NONE"}
            file.write(page, photometric="minisblack", description=text, metadata=None, contiguous=False, **more)
    stack, other = (open_stack(tmp_path / "a.tif", series=i) for i in (0, 1))
    assert (stack.axes, stack.scale_along("yx"), stack.units[-1]) == (axes, (5.0, 5.0), "nanometer")
    assert np.array_equal(everything(stack), data) and np.array_equal(everything(other), extra)
    assert np.array_equal(everything(pickle.loads(pickle.dumps(stack))), data)
    assert any("--series" in note for note in open_stack(tmp_path / "a.tif").notes)


def test_pages_of_the_same_kind_behind_a_stack_of_imagej_are_left_out_and_that_is_said(tmp_path):
    data = RNG.integers(0, 60_000, (8, 16, 20)).astype("u2")
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as file:
        for number, page in enumerate(data):
            text = "ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n" if number == 0 else None
            file.write(page, photometric="minisblack", description=text, metadata=None, contiguous=False)
    stack = open_stack(tmp_path / "a.tif")
    assert np.array_equal(everything(stack), data[:6].reshape(3, 2, 16, 20).transpose(1, 0, 2, 3))
    assert "2 pages behind the stack were left out" in stack.notes


@pytest.mark.parametrize(
    ("shape", "planes", "want"),
    [((10,), 6, (6,)), ((4, 5), 13, (2, 5)), ((4, 5), 3, (1, 3)), ((2, 3, 4), 24, (2, 3, 4))],
)
def test_what_is_there_is_the_largest_box_from_the_first_plane(shape, planes, want):
    assert tuple(part.stop for part in leading_box(shape, planes)) == want


BOMBS = {
    "z": lambda text: text.replace('SizeZ="2"', 'SizeZ="1000000000"'),
    "t": lambda text: text.replace('SizeT="1"', f'SizeT="{10**30}"'),
    "planes": lambda text: text.replace('PlaneCount="2"', 'PlaneCount="1000000000"'),
    "no count": lambda text: text.replace('SizeC="1"', 'SizeC="many"'),
    "many images": lambda text: re.sub(
        "<Image.*</Image>", lambda m: m[0].replace('SizeZ="2"', 'SizeZ="9999"') * 900, text
    ),
    "modulo": lambda text: text.replace(
        "</OME>",
        '<StructuredAnnotations><XMLAnnotation ID="A" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
        '<Modulo><ModuloAlongZ Type="lifetime" Start="0" End="1e12" Step="1e-3"/></Modulo></Value></XMLAnnotation>'
        "</StructuredAnnotations></OME>",
    ),
    "brackets": lambda text: text.replace("</OME>", f"{'<Pixels ' * 40_000}</OME>"),
    "elements": lambda text: text.replace("</OME>", f"{'<Pixels/><Channel/>' * 20_000}</OME>"),
    "deep": lambda text: text.replace("</OME>", f"{'<a>' * 50_000}{'</a>' * 50_000}</OME>"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_metadata_that_declares_the_absurd_costs_neither_time_nor_memory(tmp_path, kind):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PAGES[:2], photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        text = BOMBS[kind](file.pages[0].description)
    tifffile.imwrite(path, PAGES[:2], photometric="minisblack", description=text.encode(), metadata=None)
    tracemalloc.start()
    start = time.process_time()
    try:
        stack = open_stack(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert kind in ("elements", "deep")
        assert stack.shape == (2, 64, 80)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27
    assert time.process_time() - start < 20  # 147 s for some; tracemalloc makes all slower


@pytest.mark.parametrize(("tag", "values"), [(270, 2**33), (273, 2**29), (279, 2**29), (305, 2**31), (65000, 2**30)])
@pytest.mark.parametrize("page", [0, 1])
def test_a_tag_of_absurd_size_in_a_sparse_file_is_refused_before_it_is_read(tmp_path, tag, values, page):
    path = tmp_path / "a.tif"
    more = {"metadata": None, "rowsperstrip": 1, "software": "x" * 40, "extratags": [(65000, 2, None, "y" * 40, True)]}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for data in PAGES[:2]:
            file.write(data, photometric="minisblack", description="z" * 40, **more)
    with tifffile.TiffFile(path) as file:
        assert tag in file.pages[page].tags
        offset = file.pages[page].tags[tag].offset
    with path.open("r+b") as file:
        file.seek(offset + 4)
        file.write(values.to_bytes(8, "little"))
        file.truncate(2**36)
    start = time.process_time()
    with pytest.raises(DataError, match=f"tag {tag} says that it holds {values} values"):
        open_stack(path, "zyx")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("name", ["../x.tif", "/etc/passwd", "sub\\x.tif", "..", "&#46;./x.tif"])
def test_names_that_lead_out_of_the_folder_are_refused_whatever_quotes_are_used(tmp_path, name, quote):
    data = PAGES[0]
    text = xml([("a", data, 1, "c", [(name, uuid.uuid4(), 0, 0, 1)])], uuid.uuid4(), quote)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, description=text.encode(), metadata=None)
    with pytest.raises(DataError, match="outside of its folder"):
        open_stack(tmp_path / "a.ome.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on Windows")
def test_links_out_of_the_folder_and_pipes_are_refused_and_not_opened(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    datas = pixels(2)
    first, second = positions(folder, datas)
    moved = second.rename(tmp_path / "outside.tif")
    second.symlink_to(moved)
    with pytest.raises(DataError, match="a link outside of its folder"):
        open_stack(first)
    second.unlink()
    os.mkfifo(second)
    with pytest.raises(DataError, match="regular file"):
        open_stack(first)
    with pytest.raises(DataError, match="regular file"):
        open_stack(second)


def test_a_folder_of_links_to_a_data_set_opens_as_that(tmp_path):
    datas = pixels(2)
    (tmp_path / "store").mkdir()
    (tmp_path / "work").mkdir()
    for path in positions(tmp_path / "store", datas):
        (tmp_path / "work" / path.name).symlink_to(path)
    for i, path in enumerate(sorted((tmp_path / "work").iterdir())):
        assert np.array_equal(everything(open_stack(path)), datas[i])


@pytest.mark.parametrize(
    ("kind", "bigtiff"), [("imagej", False), ("ome", False), ("ome", True), ("shaped", False), ("shaped", True)]
)
def test_a_file_cut_anywhere_is_refused_and_never_a_traceback(tmp_path, kind, bigtiff):
    data = RNG.integers(0, 255, (3, 8, 8)).astype("u1")
    options = {} if kind == "shaped" else {kind: True}
    tifffile.imwrite(tmp_path / "a.tif", data, bigtiff=bigtiff, photometric="minisblack", compression="zlib", **options)
    whole = (tmp_path / "a.tif").read_bytes()
    for size in range(1, len(whole) - 1, 7):
        (tmp_path / "b.tif").write_bytes(whole[:size])
        for allow in (False, True):
            try:
                everything(open_stack(tmp_path / "b.tif", "zyx", allow_incomplete=allow))
            except DataError:
                continue


@pytest.mark.parametrize("sizes", [(513, 257, 129), (515, 257, 128), (600, 300, 150), (401, 201, 101, 51)])
def test_levels_of_odd_sizes_stand_for_whole_numbers_of_pixels(tmp_path, sizes):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, size in enumerate(sizes):
            kind = {"subifds": len(sizes) - 1} if number == 0 else {"subfiletype": 1}
            file.write(np.zeros((size, size), "u1"), tile=(64, 64), photometric="minisblack", metadata=None, **kind)
    for level in range(len(sizes)):
        stack = open_stack(tmp_path / "a.tif", level=level)
        assert stack.scale == (2.0**level,) * 2
        assert stack.translation == ((2.0**level - 1) / 2,) * 2
