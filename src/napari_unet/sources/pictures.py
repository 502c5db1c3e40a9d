"""PNG and JPEG pictures, through Pillow."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .arrange import Found

MAX_PIXELS = 2**29  # a picture is decoded as a whole: 512 Mi pixels take up to 2 GiB
# Pillow keeps only the high byte of colours of 16 bits. How each kind is decoded for its high and its low bytes.
WIDE = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),  # four bytes per pixel: grey high and low, alpha high and low
}
GREY = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")  # modes of Pillow with one channel


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
                found = _found(image, path, colours) if _raw_mode(image) not in WIDE else _wide(image, path)
                frames = getattr(image, "n_frames", 1)
                several = (f"the first of {frames} pictures in the file was taken",) if frames > 1 else ()
                return dataclasses.replace(found, notes=(*found.notes, *several))
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} cannot be read as a picture: {error}; copy it again") from None


def _raw_mode(image: Image.Image) -> str:
    """Return how the bytes of a picture are stored, in Pillow's words."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0][3]) if image.format == "PNG" and tiles else ""


def _wide(image: Image.Image, path: Path) -> Found:
    """Decode a PNG of 16 bits per channel: grey with opacity as yx, colours as three channels."""
    raw = _raw_mode(image)
    parts = [_decoded(path, mode).astype(np.uint16) for mode in WIDE[raw]]
    alpha = raw != "RGB;16B" or "transparency" in image.info
    dropped = ("the alpha channel was left out",) if alpha else ()
    if len(parts) == 1:
        return Found(parts[0][..., 0] << 8 | parts[0][..., 1], "yx", path.stem, str(path), notes=dropped)
    values = (parts[0] << 8 | parts[1])[..., :3]
    notes = ("RGB taken as three channels", *dropped)
    return Found(values, "yxc", path.stem, str(path), channel_names=("red", "green", "blue"), notes=notes)


def _decoded(path: Path, raw: str) -> np.ndarray:
    """Return the bytes of a PNG as its rows hold them in another order."""
    with Image.open(path, formats=("PNG",)) as image:
        tiles: Any = [(*tile[:3], raw) for tile in image.tile]
        image.tile = tiles
        return np.asarray(image)


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
