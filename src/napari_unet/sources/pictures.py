"""PNG and JPEG pictures, through Pillow."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .arrange import Found

MAX_PIXELS = 2**29
GREY = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")


def find_picture(path: Path, colours: bool = True) -> Found:
    """Read a picture: grey as yx, colours and palettes as three channels. It is decoded here, as it has no chunks.

    Raises
    ------
    DataError
        Where it is damaged, or larger than `MAX_PIXELS`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path} declares {image.width} x {image.height} pixels; store that as OME-Zarr")
                return _found(image, path, colours)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as a picture: {error}; copy it again") from None


def _found(image: Image.Image, path: Path, colours: bool) -> Found:
    if image.mode == "P" and not colours:
        return Found(np.asarray(image), "yx", path.stem, str(path), notes=("the numbers of the palette were taken",))
    if image.mode in GREY:
        return Found(np.asarray(image), "yx", path.stem, str(path))
    alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    dropped = ("the alpha channel was left out",) if alpha else ()
    if image.mode in ("LA", "La"):
        return Found(np.asarray(image.getchannel(0)), "yx", path.stem, str(path), notes=dropped)
    kind = "the palette taken as RGB, three channels" if image.mode in ("P", "PA") else "RGB taken as three channels"
    return Found(
        np.asarray(image.convert("RGB")),
        "yxc",
        path.stem,
        str(path),
        channel_names=("red", "green", "blue"),
        notes=(kind, *dropped),
    )
