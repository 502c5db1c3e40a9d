"""Fields without any object, given to a model of objects: ``python benchmarks/empty.py [--model nuclei-2d]``.

Ten kinds of noise, forty fields of each, 256 x 256 of 16 bits: how many fields have an object in the result, by kind,
and of how many of these nothing is said, as that they are unlike what was learnt from.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_unet import PredictConfig, load_model, predict, wait
from napari_unet.arrays.stack import Stack

SIDE = 256
Draw = Callable[[np.random.Generator], np.ndarray]


def _noise(rng: np.random.Generator, sigma: float = 0.0) -> np.ndarray:
    noise = rng.normal(size=(SIDE, SIDE))
    return ndimage.gaussian_filter(noise, sigma) if sigma else noise


def _slope(rng: np.random.Generator) -> np.ndarray:
    down, right = rng.uniform(-1, 1, 2)
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    return np.asarray(down * y + right * x)


def _level(rng: np.random.Generator) -> float:
    return float(rng.uniform(100, 2000))


KINDS: dict[str, Draw] = {
    "gaussian": lambda rng: _level(rng) + 10 * _noise(rng),
    "gaussian, strong": lambda rng: _level(rng) + 200 * _noise(rng),
    "poisson": lambda rng: rng.poisson(_level(rng), (SIDE, SIDE)),
    "poisson, few photons": lambda rng: 20 * rng.poisson(rng.uniform(0.5, 5), (SIDE, SIDE)),
    "blurred a little": lambda rng: _level(rng) + 50 * _noise(rng, 1),
    "blurred": lambda rng: _level(rng) + 300 * _noise(rng, 3),
    "gradient": lambda rng: _level(rng) + 500 * _slope(rng) + 10 * _noise(rng),
    "brighter in the middle": lambda rng: (
        _level(rng) + 500 * np.exp(-((np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] ** 2).sum(0))) + 10 * _noise(rng)
    ),
    "lines": lambda rng: _level(rng) + 30 * rng.normal(size=(SIDE, 1)) + 10 * _noise(rng),
    "hot pixels": lambda rng: _level(rng) + 10 * _noise(rng) + 3000 * (rng.random((SIDE, SIDE)) > 0.9995),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei-2d")
    parser.add_argument("--each", type=int, default=40, help="fields of each kind")
    args = parser.parse_args()
    model, every = load_model(args.model), np.zeros(2, int)
    print("| kind | fields | with an object | of them without a warning |\n|---|---|---|---|")
    for seed, (kind, draw) in enumerate(KINDS.items()):
        rng, found = np.random.default_rng(seed), np.zeros(2, int)
        with tempfile.TemporaryDirectory() as work:
            for number in range(args.each):
                data = np.clip(np.rint(draw(rng)), 0, 2**16 - 1).astype(np.uint16)
                result = wait(predict(Stack(data, "yx"), model, Path(work) / f"{number}.ome.zarr", PredictConfig()))
                there = bool(np.asarray(result.data[...]).any())
                found += there, there and not result.notes
        every += found
        print(f"| {kind} | {args.each} | {found[0]} | {found[1]} |", flush=True)
    print(f"| all | {args.each * len(KINDS)} | {every[0]} | {every[1]} |")


if __name__ == "__main__":
    main()
