"""What a package shows of its model: a small image to test it with, and a picture."""

import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage

from ..arrays.stack import Stack
from ..errors import DataError
from ..evaluation.figures import grey
from ..examples import nuclei
from ..grid.tiles import Footprint
from ..inference.engine import check_fit
from ..model import Model
from ..network import footprint

ROOM = {2: 128, 3: 24}  # elements per axis beside halos: some objects, and a file of some 100 kB
EDGE = 400  # pixels of a picture's height: a card in a browser


def sizes(foot: Footprint) -> list[tuple[int, int]]:
    """Return the least size per axis that leaves something when halos are cropped, and the step to larger ones."""
    found = []
    for stride, halo, margin, remainder in zip(foot.stride, foot.halo, foot.margin, foot.remainder, strict=True):
        found.append((remainder + 2 * margin if margin else 2 * halo + stride, stride))
    return found


def test_image(model: Model, given: Stack | None) -> np.ndarray:
    """Return a float32 image, (C, *space), of a size that the network takes.

    Parameters
    ----------
    given : Stack, optional
        Where it is cut out of, at its centre; else nuclei that ship, one plane like the other.

    Raises
    ------
    ModelError, DataError
        Where the image given does not fit the model, or is smaller than what the network takes.
    """
    ndim = model.config.ndim
    wanted = [
        least + math.ceil(ROOM[ndim] / step) * step if least < ROOM[ndim] else least
        for least, step in sizes(footprint(model.config))
    ]
    if given is None:
        return _made(model, wanted)
    check_fit(given, model)
    short = [f"{a} {given.size(a)}" for a, n in zip(model.axes, wanted, strict=True) if given.size(a) < n]
    if short:
        raise DataError(
            f"{given.name} is too small to test the model with: {', '.join(short)}; "
            f"{' x '.join(map(str, wanted))} pixels are needed"
        )
    box = []
    for axis, size in zip(given.axes, given.shape, strict=True):
        part = size if axis == "c" else wanted[model.axes.index(axis)] if axis in model.axes else 1
        start = 0 if axis == "c" else (size - part) // 2
        box.append(slice(start, start + part))
    data = given.read(tuple(box))
    at = given.axes.find("c")
    data = data[None] if at < 0 else np.moveaxis(data, at, 0)
    return np.ascontiguousarray(data.reshape(len(data), *wanted), np.float32)


def _made(model: Model, wanted: list[int]) -> np.ndarray:
    """Make an image of nuclei: each channel another part, and planes that fade towards the ends."""
    plane = nuclei()[0].astype(np.float32)
    reach = [max(math.ceil(n / m), 1) for n, m in zip(wanted[-2:], plane.shape, strict=True)]
    planes = [np.tile(np.roll(plane, 64 * c, 1), reach) for c in range(model.config.in_channels)]
    image = np.stack([p[: wanted[-2], : wanted[-1]] for p in planes])
    if model.config.ndim == 3:
        fading = np.hanning(wanted[0] + 2)[1:-1].astype(np.float32)
        image = image[:, None] * fading[:, None, None]
    if model.normalisation.kind == "fixed":
        shape = (-1, *(1,) * (image.ndim - 1))
        offset, scale = (np.reshape(v, shape) for v in (model.normalisation.offset, model.normalisation.scale))
        image = (image - image.mean()) / image.std() * scale + offset
    return np.ascontiguousarray(image, np.float32)


def cover(image: np.ndarray, result: np.ndarray) -> bytes:
    """Return a PNG: the image on the left of a diagonal, the result on the right.

    Parameters
    ----------
    image, result : (C, *space) arrays
        Of a stack the middle plane is shown, and of several channels the last of the result.
    """
    left, right = (part[len(part) // 2] if part.ndim == 3 else part for part in (image[0], result[-1]))
    right = ndimage.zoom(right, [a / b for a, b in zip(left.shape, right.shape, strict=True)], order=0)
    size = min(left.shape)
    corner = [(n - size) // 2 for n in left.shape]
    box = tuple(slice(start, start + size) for start in corner)
    left, right = (grey(part)[box] for part in (left, right))
    rows, columns = np.indices((size, size))
    wide = np.concatenate([left, np.where((columns < size - rows)[..., None], left, right)], 1)
    edge = min(size, EDGE)
    out = io.BytesIO()
    Image.fromarray(wide).resize((2 * edge, edge)).save(out, "PNG")
    return out.getvalue()
