"""Files of other programs and instruments: values, axes, sizes, names, what is read; forged ones refused."""

import bz2
import gzip
import pickle
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from formats import write_lif, write_nd2
from napari_unet.arrays.cached import cached
from napari_unet.cli.shell import app
from napari_unet.errors import DataError, UnsafeError
from napari_unet.sources import describe, list_images, open_stack
from napari_unet.sources.formats import instruments, table

UM = "micrometer"
SHAPE = (6, 40, 56)


def volume(shape=SHAPE, dtype="uint16"):
    return np.random.default_rng(0).integers(0, 1000, shape).astype(dtype)


def npy(path, data):
    np.save(path, np.asfortranarray(data) if path.stem == "fortran" else data)


def npz(path, data):
    (np.savez_compressed if path.stem == "packed" else np.savez)(path, image=data, small=data[0])


def hdf5(path, data):
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("raw/image", data=data, chunks=(1, 20, 28), compression="gzip", shuffle=True)
        stored.attrs["element_size_um"] = (2, 0.5, 0.25)
        file["small"] = data[0]


def ims(path, data):
    letters = lambda text: np.array([c.encode() for c in str(text)], "S1")  # noqa: E731
    with h5py.File(path, "w") as file:
        for c in range(2):
            group = file.create_group(f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {c}")
            stored = np.pad(data + c, [(0, 2), (0, 24), (0, 8)])
            group.create_dataset("Data", data=stored, chunks=(4, 32, 32), compression="gzip")
            for axis, n in zip("ZYX", data.shape, strict=True):
                group.attrs[f"ImageSize{axis}"] = letters(n)
            file.create_group(f"DataSetInfo/Channel {c}").attrs["Name"] = letters(("DAPI", "GFP")[c])
        image = file.create_group("DataSetInfo/Image")
        image.attrs["Unit"] = letters("um")
        for i, (step, n) in enumerate(zip((0.25, 0.5, 2), reversed(data.shape), strict=True)):
            image.attrs[f"ExtMin{i}"], image.attrs[f"ExtMax{i}"] = letters(10.0), letters(10 + step * n)


def mrc(path, data):
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.set_volume()
        file.voxel_size = (2.5, 5, 20)


def nifti(path, data):
    image = nibabel.Nifti1Image(data.T, np.diag([0.25, 0.5, 2, 1]))
    image.header.set_xyzt_units("micron", "sec")
    nibabel.save(image, path)


def nifti_without_unit(path, data):
    nibabel.save(nibabel.Nifti1Image(data.T, np.diag([0.25, 0.5, 2, 1])), path)


def nearly(path, data):
    header = {"kinds": ["domain"] * 3, "space dimension": 3, "space units": ["um"] * 3}
    header |= {"space directions": np.diag([0.25, 0.5, 2]), "encoding": "raw" if path.stem != "packed" else "gzip"}
    nrrd.write(str(path), data.T, header)


def zeiss(path, data):
    czi = pytest.importorskip("pylibCZIrw.czi", reason="it has no wheels for this Python")
    with warnings.catch_warnings(), czi.create_czi(str(path)) as file:
        warnings.simplefilter("ignore")
        for z, plane in enumerate(data):
            for c in range(2):
                file.write(plane[..., None] + c, plane={"C": c, "Z": z, "T": 0}, scene=0)
                file.write(plane[:9, :9, None], location=(99, 77), plane={"C": c, "Z": z, "T": 0}, scene=1)
        names = {0: "DAPI", 1: "GFP"}
        file.write_metadata("a", channel_names=names, scale_x=0.25e-6, scale_y=0.5e-6, scale_z=2e-6)


def nikon(path, data):
    both = np.stack([data, data + 1], 1)[None, None]
    write_nd2(
        path, np.concatenate([np.tile(both, (1, 2, 1, 1, 1, 1)), np.tile(both // 2, (1, 2, 1, 1, 1, 1))]), step=2.0
    )


def leica(path, data):
    write_lif(path, {"big": np.stack([data, data + 1]), "small": data[None, :2]}, pixel=0.25e-6, step=2e-6)


def zipped(path, data):
    root = path.parent.with_name(f"{path.parent.name}.tmp") / "a.zarr"
    made = zarr.create_array(str(root), shape=data.shape, dtype=data.dtype, chunks=(1, data.shape[1] // 2, 28))
    made[...] = data
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(each, f"{'a.zarr/' if path.stem == 'packed' else ''}{each.relative_to(root).as_posix()}")


NO, ALL, PLANE = (1.0, 1.0, 1.0), (2.0, 0.5, 0.25), (2.0, 0.25, 0.25)
NAMES = ("DAPI", "GFP")
# name, writer, axes given, axes, pixel size, unit, channels
KINDS = [
    ("plain.npy", npy, "zyx", "zyx", NO, None, ()),
    ("fortran.npy", npy, "zyx", "zyx", NO, None, ()),
    ("plain.npz", npz, "zyx", "zyx", NO, None, ()),
    ("packed.npz", npz, "zyx", "zyx", NO, None, ()),
    ("plain.h5", hdf5, None, "zyx", ALL, UM, ()),
    ("plain.ims", ims, None, "tczyx", ALL, UM, NAMES),
    ("plain.mrc", mrc, None, "zyx", (20.0, 5.0, 2.5), "angstrom", ()),
    ("plain.nii", nifti, None, "zyx", ALL, UM, ()),
    ("packed.nii.gz", nifti, None, "zyx", ALL, UM, ()),
    ("bare.nii", nifti_without_unit, None, "zyx", ALL, None, ()),
    ("plain.nrrd", nearly, None, "zyx", ALL, UM, ()),
    ("packed.nrrd", nearly, None, "zyx", ALL, UM, ()),
    ("detached.nhdr", nearly, None, "zyx", ALL, UM, ()),
    ("plain.czi", zeiss, None, "tczyx", ALL, UM, NAMES),
    ("plain.nd2", nikon, None, "tczyx", PLANE, UM, NAMES),
    ("plain.lif", leica, None, "czyx", PLANE, UM, ("Green", "Red")),
    ("plain.ozx", zipped, "zyx", "zyx", NO, None, ()),
    ("packed.zarr.zip", zipped, "zyx", "zyx", NO, None, ()),
]
SEVERAL = [("plain.npz", npz, "small", SHAPE[1:]), ("plain.h5", hdf5, "small", SHAPE[1:])]
SEVERAL += [("plain.czi", zeiss, "1", (9, 9)), ("plain.lif", leica, "small", None)]
SEVERAL += [("plain.nd2", nikon, "right", SHAPE[1:])]


def whole(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is seen in /proc")
@pytest.mark.parametrize(("name", "writer"), [("a.npy", npy), ("a.mrc", mrc), ("a.nrrd", nearly), ("a.nd2", nikon)])
def test_what_was_read_of_a_file_does_not_stay_mapped(name, writer, tmp_path, monkeypatch):
    """It counts as memory of the process, as large as the file."""
    monkeypatch.setattr(instruments, "MAPPED", 0)
    writer(tmp_path / name, np.random.default_rng(0).integers(0, 999, (20, 300, 500)).astype(np.uint16))
    stack = open_stack(tmp_path / name, "zyx" if name == "a.npy" else None)
    first = np.asarray(stack.data[...])
    assert (np.asarray(stack.data[...]) == first).all()
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = [i for i, line in enumerate(lines) if line.endswith(f"/{name}")]
    resident = sum(int(next(each for each in lines[i:] if each.startswith("Rss:")).split()[1]) for i in at)
    assert resident < 2048  # KiB: its header; all of it is 5.7 MiB and more


@pytest.mark.parametrize(
    ("name", "write", "given", "axes", "scale", "unit", "channels"), KINDS, ids=[k[0] for k in KINDS]
)
def test_values_axes_sizes_and_names_are_those_of_the_file(tmp_path, name, write, given, axes, scale, unit, channels):
    data = volume(dtype="int16" if write is mrc else "uint16")
    write(tmp_path / name, data)
    stack = open_stack(tmp_path / name, given)
    assert stack.axes == axes
    assert stack.channel_names == channels
    assert stack.scale_along("zyx") == pytest.approx(scale)
    assert stack.values_along("zyx", "units") == (unit,) * 3
    found = whole(stack)
    first = (found[0] if "t" in axes else found) if "c" in axes else found[None]
    assert all((each == data + c).all() for c, each in enumerate(first))
    box = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in stack.shape)
    sent = pickle.loads(pickle.dumps(stack))  # as a worker of a cluster has it
    assert (sent.read(box) == found[box]).all()
    assert list_images(tmp_path) == [tmp_path / name]
    assert dict(describe(tmp_path / name))["kind"]


@pytest.mark.parametrize(("name", "write", "series", "shape"), SEVERAL, ids=[s[0] for s in SEVERAL])
def test_one_of_several_images_is_chosen_by_name_and_the_largest_is_said(tmp_path, name, write, series, shape):
    write(tmp_path / name, volume())
    notes = open_stack(tmp_path / name, "zyx" if "npz" in name else None).notes
    assert any("(--series)" in note and repr(series) in note for note in notes)
    chosen = open_stack(tmp_path / name, series=series)
    assert shape is None or chosen.shape[-2:] == shape
    assert not chosen.notes
    with pytest.raises(DataError, match=r"no (image|dataset) 'none'"):
        open_stack(tmp_path / name, series="none")


@pytest.mark.parametrize(
    ("name", "write"), [k[:2] for k in KINDS if "packed" not in k[0]], ids=lambda v: getattr(v, "__name__", v)
)
def test_a_plane_is_read_without_the_others(tmp_path, name, write):
    data = volume((16, 256, 512), "int16" if write is mrc else "uint16")  # 4 MiB
    write(tmp_path / name, data)
    stack = open_stack(tmp_path / name, "zyx" if name.endswith(("npy", "npz", "ozx")) else None)
    tracemalloc.start()
    stack.read(
        tuple(
            slice(0, n) if a in "yx" else slice(n // 2, n // 2 + 1)
            for a, n in zip(stack.axes, stack.shape, strict=True)
        )
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data.nbytes // 3


def _npy_header(shape, dtype="|u1"):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def _absurd_npy(path):
    path.write_bytes(_npy_header((2**40, 2**20)) + bytes(100))


def _objects(path):
    np.save(path, np.array([[{}], [[]]], object), allow_pickle=True)


def _bomb_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy_header((2**20, 2**20)) + bytes(2**26))


def _short_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy_header((2**10, 2**10)) + bytes(100))


def _patched(write, name, at, value):
    def make(path):
        write(path.with_name(name), volume(dtype="int16" if write is mrc else "uint16"))
        raw = bytearray(path.with_name(name).read_bytes())
        path.with_name(name).unlink()
        raw[at : at + len(value)] = value
        path.write_bytes(raw)

    return make


def _big_gz(path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[42:48] = struct.pack("<3h", 32000, 32000, 32000)
    path.write_bytes(gzip.compress(bytes(raw)))


def _text(path, sizes="4 4", encoding="raw", more="", data=b""):
    path.write_bytes(
        f"NRRD0004\ntype: uint8\ndimension: 2\nsizes: {sizes}\nencoding: {encoding}\n{more}\n".encode() + data
    )


def _linked(path):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["secret"] = np.zeros((4, 4))
    with h5py.File(path, "w") as file:
        file["image"] = h5py.ExternalLink("other.h5", "secret")


def _external(path):
    path.with_name("secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (8, 8), "u1", external=[(str(path.with_name("secret")), 0, 64)])


def _virtual(path):
    layout = h5py.VirtualLayout((4, 4), "u1")
    layout[...] = h5py.VirtualSource("other.h5", "secret", (4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("image", layout)


def _deflate_bomb(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("image", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**28)))


def _escape(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zarr.json", "{}")
        archive.writestr("../../evil", "x")


def _zip_bomb(path):
    made = zarr.create_array(str(path.with_name("b")), shape=(64, 64), dtype="u1", chunks=(64, 64), compressors=None)
    made[...] = 1
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_name("b") / "zarr.json", "zarr.json")
        archive.writestr("c/0/0", bytes(2**28))


FORGED = [
    ("a.npy", _absurd_npy, DataError, "cut off"),
    ("a.npy", _objects, UnsafeError, "Python objects"),
    ("a.npz", _bomb_npz, DataError, "more than 2 GiB"),
    ("a.npz", _short_npz, DataError, "cut off"),
    ("a.mrc", _patched(mrc, "b.mrc", 0, struct.pack("<3i", 2**30, 2**30, 2**30)), DataError, "cut off"),
    ("a.mrc", _patched(mrc, "b.mrc", 92, struct.pack("<i", 2**31 - 1)), DataError, "cut off"),
    ("a.nii", _patched(nifti, "b.nii", 42, struct.pack("<3h", 32000, 32000, 32000)), DataError, "cut off"),
    ("a.nii.gz", _big_gz, DataError, "pieces of"),
    ("a.nrrd", lambda path: _text(path, "999999999999 999999999999"), DataError, "cut off"),
    ("a.nrrd", lambda path: _text(path, "99999 99999", "gzip"), DataError, "more than 2 GiB"),
    ("a.nrrd", lambda path: _text(path, "40 40", "bz2", data=bz2.compress(bytes(9))), DataError, "cut off"),
    ("a.nrrd", lambda path: _text(path, more="data file: ../secret\n"), UnsafeError, "refused"),
    ("a.nhdr", lambda path: _text(path, more="data file: /etc/passwd\n"), UnsafeError, "refused"),
    ("a.h5", _linked, (UnsafeError, DataError), "link|no image"),
    ("a.h5", _external, UnsafeError, "other files"),
    ("a.h5", _virtual, UnsafeError, "other files"),
    ("a.h5", _deflate_bomb, DataError, "forged"),
    ("a.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600)), DataError, "HDF5"),
    ("a.lif", lambda path: path.write_bytes(struct.pack("<IIBI", 0x70, 9, 0x2A, 2**31)), DataError, "damaged"),
    ("a.lif", lambda path: path.write_text("<LMSDataContainerHeader/>"), DataError, "not a LIF"),
    ("a.nd2", lambda path: path.write_bytes(bytes(4096)), DataError, "ND2"),
    ("a.czi", lambda path: path.write_bytes(b"ZISRAWFILE" + bytes(4096)), DataError, "CZI"),
    ("a.ozx", _escape, UnsafeError, "outside of the archive"),
    ("a.zarr.zip", _zip_bomb, DataError, "forged"),
    ("a.ozx", lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), DataError, "not a zip archive"),
    ("a.vsi", lambda path: path.write_bytes(bytes(9)), DataError, "bioformats2raw"),
]


@pytest.mark.parametrize(("name", "make", "error", "says"), FORGED, ids=[f"{f[0]}-{i}" for i, f in enumerate(FORGED)])
def test_forged_files_are_refused_without_being_unpacked(tmp_path, name, make, error, says):
    make(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(error, match=says):
        whole(open_stack(tmp_path / name, "yx" if "zarr" in name else None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


def test_a_link_of_hdf5_that_is_named_is_refused_as_unsafe(tmp_path):
    _linked(tmp_path / "a.h5")
    with pytest.raises(UnsafeError, match="link"):
        open_stack(tmp_path / "a.h5", series="image")


@pytest.mark.parametrize("ending", [e for e, kind in table.FORMATS.items() if kind.package])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, ending):
    (tmp_path / f"a{ending}").write_bytes(b"x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=rf"napari-unet-stacks\[{table.FORMATS[ending].extra}\]"):
        open_stack(tmp_path / f"a{ending}")


def test_features_beside_images_are_none_but_are_taken_where_there_are_no_others(tmp_path):
    np.save(tmp_path / "a_seg.npy", volume())
    assert [p.name for p in list_images(tmp_path)] == ["a_seg.npy"]
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 4), dtype="u1")
    assert [p.name for p in list_images(tmp_path)] == ["a.zarr"]
    assert [p.name for p in list_images(tmp_path, "*.npy")] == ["a_seg.npy"]


def test_a_group_in_a_zip_archive_has_its_levels_labels_and_places_inside(tmp_path):
    root = tmp_path / "a.zarr"
    steps = [{"type": "scale", "scale": [0.5, 0.5]}]
    axes = [{"name": a, "type": "space", "unit": UM} for a in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    about = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}
    for place in ("", "labels/cells"):
        zarr.create_group(str(root / place), attributes=about)
        zarr.create_array(str(root / place / "0"), data=volume((8, 9)), chunks=(4, 9))
    zarr.create_group(str(root / "labels"), attributes={"ome": {"version": "0.5", "labels": ["cells"]}})
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        for each in root.rglob("*.*"):
            archive.write(each, each.relative_to(root).as_posix())
        for each in root.rglob("c/*/*"):
            archive.write(each, each.relative_to(root).as_posix())
    stack = open_stack(tmp_path / "a.ozx")
    assert stack.scale == (0.5, 0.5)
    assert (whole(stack) == volume((8, 9))).all()
    assert open_stack(tmp_path / "a.ozx" / "labels" / "cells").shape == (8, 9)
    rows = CliRunner().invoke(app, ["info", str(tmp_path / "a.ozx")]).output
    assert "labels/cells" in rows


@pytest.mark.parametrize(("name", "write"), [("a.npy", npy), ("a.nii", nifti), ("a.mrc", mrc), ("a.nrrd", nearly)])
def test_a_small_part_of_what_is_not_packed_is_read_without_what_lies_around_it(tmp_path, name, write):
    write(tmp_path / name, np.zeros((16, 256, 1024), "u2"))
    stack = cached(open_stack(tmp_path / name, "zyx"))
    assert stack.chunks == (1, 256, 1024)
    tracemalloc.start()
    stack.read((slice(0, 16), slice(30, 40), slice(30, 40)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**19  # bytes: one of the 16 planes


PACKED = {  # names in an archive beside or before those of an array: as which path it opens
    "by macOS": ("a.zarr/", ["__MACOSX/a.zarr/._zarr.json", "a.zarr/.DS_Store", ".DS_Store"], ""),
    "with a folder around it": ("data/today/a.zarr/", ["data/read me.txt"], ""),
    "with another": ("data/a.zarr/", ["data/b.zarr/zarr.json"], "data/a.zarr"),
}


@pytest.mark.parametrize("way", PACKED)
def test_an_array_is_found_in_an_archive_however_it_was_packed(tmp_path, way):
    before, beside, place = PACKED[way]
    made = zarr.create_array(str(tmp_path / "a.zarr"), data=volume((8, 9)), chunks=(4, 9), dimension_names=["y", "x"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for each in (tmp_path / "a.zarr").rglob("*"):
            if each.is_file():
                archive.write(each, before + each.relative_to(tmp_path / "a.zarr").as_posix())
        for name in beside:
            archive.writestr(name, b"\0")
    assert (whole(open_stack(tmp_path / "a.zip" / place)) == made[...]).all()


def test_the_kind_of_a_packed_volume_is_said(tmp_path):
    nifti(tmp_path / "a.nii.gz", volume())
    assert dict(describe(tmp_path / "a.nii.gz"))["kind"] == "NII.GZ file"


def test_a_header_without_its_elements_beside_it_is_named(tmp_path):
    nearly(tmp_path / "a.nhdr", volume())
    (tmp_path / "a.raw").unlink()
    with pytest.raises(DataError, match=r"elements in a\.raw, which is not beside it"):
        open_stack(tmp_path / "a.nhdr")


def test_six_dimensions_are_refused_with_what_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2, 3, 8, 8), "u1"))
    with pytest.raises(DataError, match=r"6 dimensions.* up to 5 are read"):
        open_stack(tmp_path / "a.npy")


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be replaced there")
def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    hdf5(tmp_path / "a.h5", volume())
    whole(open_stack(tmp_path / "a.h5"))
    (tmp_path / "a.h5").unlink()
    hdf5(tmp_path / "a.h5", volume((7, 41, 57)))
    assert whole(open_stack(tmp_path / "a.h5")).shape == (7, 41, 57)


@pytest.mark.parametrize(
    ("name", "write"), [(k[0], k[1]) for k in KINDS if k[0] in ("packed.npz", "packed.nii.gz", "plain.ozx")]
)
def test_packed_bytes_that_are_damaged_are_said_to_be(tmp_path, name, write):
    write(tmp_path / name, volume())
    raw = bytearray((tmp_path / name).read_bytes())
    raw[len(raw) // 4 : len(raw) // 4 + 64] = bytes(64)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=r"damaged|cannot be read"):
        whole(open_stack(tmp_path / name, "zyx" if write is not nifti else None))
