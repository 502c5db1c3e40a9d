"""Images that ship with the package."""

import importlib.resources

import numpy as np

PIXEL = 0.5  # micrometres, assumed: the image came without a pixel size
NOISE = 20.0  # standard deviation of the noise that is put on it; its intensities are 0 ... 255


def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Return fluorescent nuclei and their labels, (512, 512) uint8."""
    from PIL import Image

    folder = importlib.resources.files(__package__) / "data"
    planes = []
    for name in ("nuclei.png", "nuclei_labels.png"):
        with (folder / name).open("rb") as file:
            planes.append(np.asarray(Image.open(file)))
    return planes[0], planes[1]


def noisy_nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Return the nuclei with Gaussian noise on them, and as they are, (512, 512) float32."""
    clean = nuclei()[0].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE, clean.shape)
    return clean + noise.astype(np.float32), clean
