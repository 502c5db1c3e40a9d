"""Samples for the viewer: nuclei that ship with the package, synthetic ones in 3-D, and a pyramid of many."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import examples
from ..examples import PIXEL
from .files import read
from .writing import LayerTuple

LARGE = (8192, 8192)  # more than any screen shows
SHAPE, SCALE = (32, 192, 192), (2.0, 0.5, 0.5)  # planes 4 times as far apart as pixels, as in confocal stacks
UNIT = "micrometer"


def nuclei() -> list[LayerTuple]:
    """Return fluorescent nuclei, (512, 512) uint8, and their labels."""
    image, labels = examples.nuclei()
    shared = {"scale": (PIXEL, PIXEL), "units": (UNIT, UNIT), "axis_labels": ("y", "x")}
    return [(image, {"name": "nuclei", **shared}, "image"), (labels, {"name": "nuclei labels", **shared}, "labels")]


def noisy_nuclei() -> list[LayerTuple]:
    """Return the nuclei as they are, and with noise on them, (512, 512) float32: a pair to learn from."""
    noisy, clean = examples.noisy_nuclei()
    shared = {"scale": (PIXEL, PIXEL), "units": (UNIT, UNIT), "axis_labels": ("y", "x"), "contrast_limits": (0, 255)}
    return [(clean, {"name": "clean nuclei", **shared}, "image"), (noisy, {"name": "noisy nuclei", **shared}, "image")]


def nuclei_3d() -> list[LayerTuple]:
    """Return synthetic nuclei, (32, 192, 192) uint8, 2 x 0.5 x 0.5 micrometres per voxel, and their labels."""
    image, labels = synthetic()
    shared = {"scale": SCALE, "units": (UNIT,) * 3, "axis_labels": ("z", "y", "x")}
    return [
        (image, {"name": "synthetic nuclei", **shared}, "image"),
        (labels, {"name": "synthetic nuclei labels", **shared}, "labels"),
    ]


def nuclei_large() -> list[LayerTuple]:
    """Return a pyramid of 8192 x 8192 pixels, mirrored from the nuclei; it is kept in the user's cache folder.

    Raises
    ------
    OutputError, ResourceError
        Where it cannot be written.
    """
    from ..arrays.stack import Stack
    from ..events import wait
    from ..store.save import is_image, save_stack

    root = cache_folder() / "nuclei-large.ome.zarr"
    if not is_image(root):
        image = examples.nuclei()[0]
        more = [(0, n - size) for n, size in zip(LARGE, image.shape, strict=True)]
        stack = Stack(
            np.pad(image, more, mode="symmetric"), "yx", scale=(PIXEL, PIXEL), units=(UNIT, UNIT), name="nuclei"
        )
        root.parent.mkdir(parents=True, exist_ok=True)
        wait(save_stack(stack, root))
    return read(root)


def cache_folder() -> Path:
    """Return where files are kept that can be made again."""
    home = Path.home()
    if sys.platform == "win32":
        place = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        place = home / "Library" / "Caches"
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return place / "napari-unet-stacks"


def synthetic(seed: int = 0, count: int = 180) -> tuple[np.ndarray, np.ndarray]:
    """Draw nuclei as textured ellipsoids, blurred more along z, with the noise of a camera.

    Parameters
    ----------
    count : int
        That are tried; one that would overlap another is left out.

    Returns
    -------
    image : (32, 192, 192) uint8
    labels : (32, 192, 192) uint16
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint16)
    signal = np.zeros(SHAPE, np.float32)
    number = 0
    for _ in range(count):
        radii = rng.uniform(4.0, 7.0) * rng.uniform(0.8, 1.25, 3)
        box, inside = _ellipsoid(rng.uniform(0, 1, 3) * SHAPE, radii, rng.uniform(0, np.pi))
        if inside.sum() < 100 or (labels[box] > 0)[inside].any():
            continue
        number += 1
        labels[box][inside] = number
        signal[box][inside] = rng.uniform(70, 150)
    texture: Any = ndimage.gaussian_filter(rng.standard_normal(SHAPE, np.float32), (0.7, 2.0, 2.0))
    signal *= np.clip(1 + 0.25 * texture / texture.std(), 0.3, 1.8)
    signal = ndimage.gaussian_filter(signal, (0.9, 1.0, 1.0)) + 12
    image = rng.poisson(signal) + rng.normal(0, 2.0, SHAPE)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), labels


def _ellipsoid(centre: np.ndarray, radii: np.ndarray, angle: float) -> tuple[Any, np.ndarray]:
    """Return the box around an ellipsoid that is turned in the plane, and which voxels of it are inside.

    `centre` is in voxels, `radii` in micrometres.
    """
    reach = [max(radii) / s for s in SCALE]
    box = tuple(slice(max(0, int(c - r)), min(n, int(c + r) + 2)) for c, r, n in zip(centre, reach, SHAPE, strict=True))
    z, y, x = ((np.arange(b.start, b.stop) - c) * s for b, c, s in zip(box, centre, SCALE, strict=True))
    grid_y, grid_x = y[:, None], x[None, :]
    along, across = grid_y * np.cos(angle) + grid_x * np.sin(angle), grid_x * np.cos(angle) - grid_y * np.sin(angle)
    plane = (along / radii[1]) ** 2 + (across / radii[2]) ** 2
    return box, (z[:, None, None] / radii[0]) ** 2 + plane[None] <= 1
