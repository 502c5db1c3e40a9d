"""NIfTI: volumes of medical imaging, x the fastest dimension."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ...arrays.views import Box
from ...errors import DataError
from ...units import canonical
from ..arrange import Found
from .infile import FileArray, named_errors, pick, plane_chunks

LETTERS = "xyztc"  # of the first five dimensions (NIfTI-1, dim)
UNKNOWN = "unknown"  # the unit where a header names none


class Volume:
    """A volume with its slowest dimension first, rescaled as its header says."""

    def __init__(self, path: Path, key: None = None) -> None:
        image: Any = nibabel.load(path)
        self._data = image.dataobj
        self.shape = tuple(int(n) for n in reversed(image.shape))
        stored = self._data.offset + image.get_data_dtype().itemsize * int(np.prod(self.shape, dtype=object))
        packed = path.suffix.lower() == ".gz"
        if not packed and stored > path.stat().st_size:
            raise DataError(f"{path} is cut off: it has {path.stat().st_size} bytes of {stored}; copy it again")
        scaled = (self._data.slope, self._data.inter) != (1, 0)
        self.dtype = np.dtype(np.float64) if scaled else image.get_data_dtype()
        # packed with gzip, what lies before a plane is unpacked for each plane anew
        self.by_box = not packed
        self.chunks = self.shape if packed else plane_chunks(self.shape, self.dtype.itemsize)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return np.asarray(self._data[tuple(reversed(box))], self.dtype).transpose()

    def close(self) -> None:
        """Do nothing: nibabel opens the file when it reads."""


def find_nifti(path: Path, series: int | str | None) -> Found:
    """Open a volume; how it is turned in the room is left to the viewer."""
    with named_errors(path, "NIfTI", ImageFileError, HeaderDataError):
        data = FileArray(Volume, path)
        pick(path, [path.stem], [data.shape], series)
        header: Any = nibabel.load(path).header
        space, time = header.get_xyzt_units()
        zooms = [float(z) for z in header.get_zooms()]
        known = LETTERS[: len(data.shape)]
        if len(data.shape) > len(LETTERS):
            raise DataError(f"{path} has {len(data.shape)} dimensions; {len(LETTERS)} are read")
        unit = {"t": None if time == UNKNOWN else time, "c": None}
        space = None if space == UNKNOWN else space
        steps = [abs(z) if z else 1.0 for z in zooms]
    return Found(
        data,
        known[::-1],
        path.name.partition(".nii")[0],
        str(path),
        scale=tuple(steps[::-1]),
        units=tuple(canonical(unit.get(a, space)) for a in reversed(known)),
    )
