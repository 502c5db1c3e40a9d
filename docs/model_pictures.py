"""Make the pictures of the models that ship, for the list in the window: ``python docs/model_pictures.py``.

All are drawn or made: synthetic samples, and cells between random points, so that nobody else's image is packed.
"""

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_unet.cards import SHIPPED
from napari_unet.examples import nuclei
from napari_unet.widgets.samples import synthetic

SIDE = 64  # pixels, twice what the list shows, for fine screens
GROUND, STAIN = (225, 210, 232), (75, 35, 140)  # RGB of tissue and of nuclei in a purple stain


def membranes() -> np.ndarray:
    """Return dark lines between cells of grey noise, as sections in an electron microscope look."""
    rng = np.random.default_rng(3)
    points = np.stack(np.meshgrid(range(SIDE), range(SIDE), indexing="ij"), -1).reshape(-1, 2)
    near, _ = cKDTree(rng.uniform(-8, SIDE + 8, (26, 2))).query(points, 2)
    gap = (near[:, 1] - near[:, 0]).reshape(SIDE, SIDE)
    grain = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 0.8)
    return np.where(gap < 1.8, 60, 185) + 22 * grain


def main() -> None:
    """Write a picture into the folder of each model."""
    flat, deep = nuclei()[0][100 : 100 + 2 * SIDE, 150 : 150 + 2 * SIDE], synthetic()[0].max(0)[:128, :128]
    pictures = {"nuclei-2d": flat, "nuclei-histology": flat, "nuclei-3d": deep, "membranes-em": membranes()}
    for name, data in pictures.items():
        low, high = np.percentile(data, (0.5, 99.8))
        seen = np.clip((data.astype(float) - low) / (high - low), 0, 1) * 255
        if name == "nuclei-histology":
            seen = np.add(GROUND, seen[..., None] / 255 * np.subtract(STAIN, GROUND))
        Image.fromarray(seen.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(
            SHIPPED / name / "picture.png", optimize=True
        )


if __name__ == "__main__":
    main()
