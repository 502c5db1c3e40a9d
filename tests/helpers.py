"""What tests of many modules start from. It loads no torch: tests of files and stores run where there is none."""

import hashlib
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_unet.arrays.stack import Stack
from napari_unet.store.plan import FOLDER

TESTS = str(Path(__file__).parent)  # for child processes, which import this module too
FP32 = {"precision": "fp32", "device": "cpu"}
FAST = ["--precision", "fp32", "--device", "cpu"]


def image_of(shape, seed=0):
    """Intensities drawn at random."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.uint16)


def cells(shape, seed=1):
    """A smooth image, of which a network drawn at random makes several objects."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), [0, 1, 1, 1][-len(shape) :])
    return Stack(data=(noise * 1000 + 2000).astype(np.uint16), axes="tzyx"[-len(shape) :])


def scene(seed, size=64):
    """Smooth blobs."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size), np.float32)
    at = np.indices((size, size))
    for y, x, r in zip(*rng.uniform(5, size - 5, (2, 12)), rng.uniform(2, 5, 12), strict=True):
        image += np.exp(-((at[0] - y) ** 2 + (at[1] - x) ** 2) / (2 * r * r))
    return 100 + 1000 * image


def example(shape=(48, 48), seed=0, name="image", axes=None):
    """Bright boxes with labels 255 on a noisy ground."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(8 * shape[0] // 48 + 4):
        at = [int(rng.integers(0, n)) for n in shape]
        labels[tuple(slice(max(i - 3, 0), i + 4) for i in at)] = 255
    image = (labels / 4 + rng.normal(100, 8, shape)).astype(np.float32)
    axes = axes or "tzyx"[-len(shape) :]
    return Stack(image, axes, name=name), Stack(labels, axes, name=f"{name} labels")


def tree(root, ledger=False):
    """Every file below a folder as path: hash; of a result without its ledger."""
    files = [p for p in sorted(Path(root).rglob("*")) if p.is_file() and (ledger or FOLDER not in p.parts)]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def stopped_after(blocks, run):
    """Close a run when so many blocks are done."""
    for event in run:
        if event.stage == "predict" and event.done >= blocks:
            break
    run.close()


def stopped_at(step, run):
    """Close a run after so many events."""
    for _ in range(step):
        next(run)
    run.close()


def short(**wishes):
    """A training of a few steps."""
    from napari_unet import TrainConfig

    given = {
        "steps": 12,
        "device": "cpu",
        "patch": (16, 16),
        "batch": 2,
        "depth": 1,
        "base_features": 4,
        "precision": "fp32",
    }
    return TrainConfig(**given | wishes)


def collect(work):
    """Return (events, result)."""
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            return events, end.value


def same(a, b):
    """Whether two models have the same weights."""
    return a.weights.keys() == b.weights.keys() and all(np.array_equal(v, b.weights[k]) for k, v in a.weights.items())


def call(*args):
    """Run a command in this process: (exit code, what it said)."""
    from typer.testing import CliRunner

    from napari_unet.cli import app

    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())
