"""Which reader opens which file, and what is to be installed for it."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError
from ..arrange import Found


class Format(NamedTuple):
    """A format: its name, the module here and the function in it that opens it, and the package that it needs.

    The extra of that name installs the package.
    """

    name: str
    module: str
    function: str
    package: str = ""
    extra: str = ""


HDF5 = Format("HDF5", "hdf5", "find_hdf5", "h5py", "hdf5")
NRRD = Format("NRRD", "raw", "find_nrrd", "nrrd", "nrrd")
MRC = Format("MRC", "raw", "find_mrc", "mrcfile", "mrc")
NIFTI = Format("NIfTI", "nifti", "find_nifti", "nibabel", "nifti")
FORMATS = {
    ".npy": Format("numpy", "raw", "find_npy"),
    ".npz": Format("numpy", "raw", "find_npz"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".he5"), HDF5),
    ".ims": Format("Imaris", "ims", "find_ims", "h5py", "hdf5"),
    **dict.fromkeys((".mrc", ".mrcs", ".rec", ".map"), MRC),
    **dict.fromkeys((".nii.gz", ".nii"), NIFTI),
    **dict.fromkeys((".nrrd", ".nhdr"), NRRD),
    ".nd2": Format("ND2", "instruments", "find_nd2", "nd2", "nd2"),
    ".lif": Format("LIF", "instruments", "find_lif", "liffile", "lif"),
    ".czi": Format("CZI", "instruments", "find_czi", "pylibCZIrw", "czi"),
}
ZIPPED = (".zarr.zip", ".ozx")  # zarr in an archive
ENDINGS = (*FORMATS, *ZIPPED)
# Formats that nothing here opens, and what turns them into one that is.
CONVERTED = (
    *(".oib", ".oif", ".oir", ".vsi", ".dv", ".r3d", ".sld", ".zvi", ".lei", ".lof", ".xlif", ".xlef", ".ids", ".ics"),
    *(".mvd2", ".stk", ".flex", ".mrxs", ".scn", ".ndpi", ".svslide", ".dcm", ".mha", ".mhd", ".klb", ".pic", ".bif"),
)
CONVERTER = "bioformats2raw (glencoesoftware/bioformats2raw) makes an OME-Zarr of it"


def ending_of(path: str | Path) -> str:
    """Return the ending of a file in lower case, both parts of ``.nii.gz``."""
    name = Path(path).name.lower()
    return next((e for e in (".nii.gz",) if name.endswith(e)), Path(name).suffix)


def find_format(path: Path, level: int | None, series: int | str | None) -> Found:
    """Open a file by its ending.

    Raises
    ------
    DataError
        Where it cannot be read, or its reader is not installed: it names the extra, or a converter.
    UnsafeError
        Where reading would run code from the file, or leave it.
    """
    ending = ending_of(path)
    kind = FORMATS.get(ending)
    if kind is None:
        if ending in CONVERTED:
            raise DataError(f"{path}: {ending} is not read; {CONVERTER}")
        raise DataError(f"{path}: {ending or 'this format'} is not read; convert it to OME-Zarr or TIFF")
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise DataError(
            f"{path}: {kind.name} is read by {kind.package}, which is not installed; "
            f"pip install 'napari-unet-stacks[{kind.extra}]'"
        )
    module = importlib.import_module(f".{kind.module}", __package__)
    find: Callable[..., Found] = getattr(module, kind.function)
    if kind.function == "find_ims":
        return find(path, level, series)
    if level:
        raise DataError(f"{path} is opened without a pyramid, there is no level {level}; leave it out")
    return find(path, series)
