"""What samples bring beside one restored image: ``python benchmarks/diffusion.py QUESTION --data FOLDER --out FOLDER``.

QUESTION is one of

denoise   Set12 with Gaussian noise of sigma 25, learnt on nine images, judged on 03, 07 and 11
finer     membranes in electron microscopy, 2x
cost      processor time of a pass of restore, and of a step of samples, on one image
synthetic nuclei (fluorescence of DSB2018) learnt from five annotated images, from the same five and 100 that are made
          for simulated labels, and from 100 annotated ones: AP at IoU 0.5 over all objects of 40 others

The first two learn `restore` or `super_resolve`, and `diffuse`, for the same minutes each, and print the PSNR of one
sample and of the mean of eight, how much of the truth lies in intervals that should hold 90 %, and the power that is
left above a quarter of the sampling frequency, as a part of the truth's. In the last the network that makes images has
learnt from the same five and their labels alone, and all three are tried on a fifth of each real image that they learn
from, which is left out of learning, and never on what was made. FOLDER holds the images as their publishers
lay them out. Models, results and pictures (input, restored, a sample, the mean, truth) go to ``--out``; a model that is
there already is not trained again.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from images import Bench, asking, coarser, pooled, psnr, set12, table
from PIL import Image
from scipy import stats

from napari_unet import Model, PredictConfig, evaluate, open_stack, predict, wait
from napari_unet.arrays.stack import Stack
from napari_unet.objects.simulate import simulate_labels

SAMPLES, EDGE = 8, 512
ROUNDS = 3  # of which the quickest counts: the first finds the kernels
SIDE, FEW, MANY, JUDGED = 256, 5, 100, 40  # pixels of an image of nuclei; images that are learnt from, and judged
GRID = 4, 5  # of images that are made at once for labels like those of one: 5 x 20 are 100
LEAST = 8  # objects in an image: fewer tell little of their sizes and distances
LEARNT = 0.8  # of the rows of an image; the rest is what a training is tried on
MADE, FOUND = 400, 200  # updates, if none are given, of what makes images and of what finds nuclei
SEEDS = 0, 1
Learning = dict[str, Any]
Judged = Sequence[tuple[str, Stack, np.ndarray]]
Pairs = list[tuple[Stack, Stack]]


def samples(bench: Bench, stack: Stack, model: Model, name: str, steps: int, count: int) -> tuple[np.ndarray, ...]:
    """Return the mean of samples and their standard deviation; of one, that alone."""
    out = bench.out / f"{name}-{count}.ome.zarr"
    config = PredictConfig(overwrite=True, steps=steps, samples=count)
    found = np.asarray(wait(predict(stack, model, out, config)).data[...])
    return (found,) if count == 1 else (found, np.asarray(open_stack(out / "uncertainty").data[...]))


def fine_power(image: np.ndarray) -> float:
    """Power above a quarter of the sampling frequency, where regression to the mean shows first."""
    image = image - image.mean()
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    power = np.abs(np.fft.fft2(image * window)) ** 2
    far = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    return float(power[far > 0.25].sum())


def held(truth: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> float:
    """Share of the truth in intervals of 90 %, as Student's t gives them of so few samples of a normal distribution."""
    half = stats.t.ppf(0.95, SAMPLES - 1) * np.sqrt(1 + 1 / SAMPLES) * deviation
    return float((np.abs(truth - mean) <= half).mean())


def compared(bench: Bench, names: tuple[str, str], models: tuple[Model, Model], judged: Judged, steps: int) -> None:
    """Print the figures of a regression beside samples."""
    rows: dict[str, list[float]] = {}
    for name, stack, truth in judged:
        restored = bench.run(stack, models[0], f"{names[0]}-{name}")
        (one,) = samples(bench, stack, models[1], f"{names[1]}-{name}", steps, 1)
        mean, deviation = samples(bench, stack, models[1], f"{names[1]}-{name}", steps, SAMPLES)
        figures = {
            f"{names[0]}, PSNR in dB": psnr(truth, np.clip(restored, 0, 255), 255),
            "one sample, PSNR in dB": psnr(truth, np.clip(one, 0, 255), 255),
            f"mean of {SAMPLES}, PSNR in dB": psnr(truth, np.clip(mean, 0, 255), 255),
            "intervals of 90 % hold": held(truth, mean, deviation),
            f"{names[0]}, fine power beside the truth's": fine_power(restored) / fine_power(truth),
            "one sample, fine power beside the truth's": fine_power(one) / fine_power(truth),
        }
        for what, value in figures.items():
            rows.setdefault(what, []).append(value)
        bench.picture(f"{names[1]}-{name}", np.asarray(stack.data), restored, one, mean, truth)
    title = f"{names[1]}, {steps} steps, learnt in {models[1].record['steps']} updates"
    table(title, [(what, float(np.mean(values))) for what, values in rows.items()])


def denoise(bench: Bench, steps: int, learning: Learning) -> None:
    learnt, judged = set12(bench)
    models = [
        bench.learn(f"denoise-{task}", learnt, task=task, noise=25.0, **learning) for task in ("restore", "diffuse")
    ]
    compared(bench, ("restore", "denoise"), (models[0], models[1]), judged, steps)


def finer(bench: Bench, steps: int, learning: Learning) -> None:
    folder = bench.data / "isbi2012_em" / "train" / "image"
    images = [np.asarray(Image.open(folder / f"{i}.png").convert("L")).astype(np.float32) for i in range(22)]
    stacks = [Stack(image, "yx", name=f"{i}") for i, image in enumerate(images)]
    pairs = [(coarser(stack, 1), stack) for stack in stacks]
    models = [
        bench.learn(f"finer-{task}", pairs[:18], task=task, upscale=(2, 2), **learning)
        for task in ("super_resolve", "diffuse")
    ]
    judged = [(f"{i}", low, np.asarray(fine.data)) for i, (low, fine) in enumerate(pairs[18:], 18)]
    compared(bench, ("super_resolve", "finer"), (models[0], models[1]), judged, steps)


def cost(bench: Bench, steps: int, _: Learning) -> None:
    learnt, _ = set12(bench)
    image = np.random.default_rng(0).normal(120, 50, (2 * EDGE, 2 * EDGE)).astype(np.float32)
    runs = {}
    for task in ("restore", "diffuse"):
        wishes = {"minutes": None, "steps": 1, "noise": 25.0, "depth": 3, "base_features": 16}
        model = bench.learn(f"cost-{task}", learnt, task=task, **wishes)
        runs[task] = model, PredictConfig(overwrite=True, steps=steps if task == "diffuse" else None)
    each: dict[str, list[float]] = {task: [] for task in runs}
    for _ in range(ROUNDS):  # in turns, so that what else runs slows both
        for task, (model, config) in runs.items():
            start = time.process_time()
            wait(predict(Stack(image, "yx"), model, bench.out / "cost.ome.zarr", config))
            each[task].append((time.process_time() - start) / image.size * 1e6)
    restore, sample = min(each["restore"]), min(each["diffuse"])
    rows = [
        ("restore, processor seconds a megavoxel", restore),
        (f"a sample of {steps} steps, processor seconds a megavoxel", sample),
        ("a step, processor seconds a megavoxel", sample / steps),
        ("a step beside a pass of restore", sample / steps / restore),
    ]
    table("Cost, the same depth and channels", rows)


def nuclei(bench: Bench, seed: int) -> tuple[Pairs, Pairs]:
    """Return 100 annotated images in an order that is drawn, and 40 others, always the same."""
    folder, pairs = bench.data / "dsb2018" / "fluo", []
    for path in sorted((folder / "images").glob("*.tif")):
        image, labels = tifffile.imread(path), tifffile.imread(folder / "masks" / path.name).astype(np.int32)
        if image.shape == (SIDE, SIDE) and len(np.unique(labels)) > LEAST:
            pairs.append((Stack(image, "yx", name=path.stem), Stack(labels, "yx", name=path.stem)))
    apart = max(2, len(pairs) // JUDGED)
    rest = [pair for number, pair in enumerate(pairs) if number % apart or number >= apart * JUDGED]
    order = np.random.default_rng(seed).permutation(len(rest))
    return [rest[i] for i in order[:MANY]], pairs[::apart][:JUDGED]


def divided(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Return the upper part of each image, and the lower one."""
    cut = round(LEARNT * SIDE)
    parts = slice(0, cut), slice(cut, SIDE)
    upper, lower = ([(image.select(y=part), labels.select(y=part)) for image, labels in pairs] for part in parts)
    return upper, lower


def turned(pairs: Pairs) -> Pairs:
    """Return each pair in its 8 turns and reflections: beside many images that are made few real ones weigh little."""
    ways = [(step, turn) for step in (1, -1) for turn in range(4)]

    def seen(stack: Stack, step: int, turn: int) -> Stack:
        return dataclasses.replace(stack, data=np.rot90(stack.data[...][::step], turn).copy())

    return [(seen(image, *way), seen(labels, *way)) for image, labels in pairs for way in ways]


def made_for(bench: Bench, labels: list[Stack], model: Model, seed: int, steps: int) -> Pairs:
    """Make images for simulated labels, as many as a grid has for labels like those of each image."""
    made: Pairs = []
    for number, each in enumerate(labels):
        ids = simulate_labels([each], (GRID[0] * SIDE, GRID[1] * SIDE), 100 * seed + number)
        out, config = (
            bench.out / f"made-{seed}-{number}.ome.zarr",
            PredictConfig(overwrite=True, seed=number, steps=steps),
        )
        image = np.asarray(wait(predict(ids, model, out, config)).data[...])
        truth = np.asarray(ids.data[...]).astype(np.int32)
        for y, x in np.ndindex(GRID):
            box = tuple(slice(at * SIDE, (at + 1) * SIDE) for at in (y, x))
            made.append((Stack(image[box], "yx", name=f"made {len(made)}"), Stack(truth[box], "yx")))
    return made


def nuclei_found(bench: Bench, model: Model, judged: Pairs) -> float:
    """Return the AP at IoU 0.5 over the objects of all images."""
    found = [(bench.run(image, model, "found"), np.asarray(labels.data)) for image, labels in judged]
    return pooled([evaluate(result, truth, "instances", axes="yx").scores for result, truth in found])


def synthetic(bench: Bench, steps: int, learning: Learning) -> None:
    wished = learning.get("steps")
    making = {"task": "diffuse", "condition": "labels", "steps": wished or MADE}
    finding = {"task": "instances", "steps": wished or FOUND}
    for seed in SEEDS:
        about = {"minutes": None, "seed": seed}
        real, judged = nuclei(bench, seed)
        few, tried = divided(real[:FEW])
        maker = bench.learn(f"maker-{seed}", few, tried, **about, **making)
        made = made_for(bench, [labels for _, labels in real[:FEW]], maker, seed, steps)
        for number, pair in enumerate(real[:FEW]):
            shown = made[number * GRID[0] * GRID[1]]
            bench.picture(f"made-{seed}-{number}", *(np.asarray(each.data) for each in (pair[0], shown[0])))
        upper, lower = divided(real)
        ways = {
            f"{FEW}": (few, tried),
            f"{FEW} and {len(made)} made": (turned(few) + made, tried),
            f"{len(real)}": (upper, lower),
        }
        rows = []
        for way, pairs in ways.items():
            model = bench.learn(f"{way.replace(' ', '-')}-{seed}", *pairs, **about, **finding)
            rows.append((way, nuclei_found(bench, model, judged)))
        table(f"Nuclei, learnt in {finding['steps']} updates, seed {seed}, AP@0.5", rows)


QUESTIONS = {"denoise": denoise, "finer": finer, "cost": cost, "synthetic": synthetic}


def main() -> None:
    parser = asking(__doc__, QUESTIONS)
    parser.add_argument("--updates", type=int, help="optimiser steps of each network, in place of minutes")
    parser.add_argument("--steps", type=int, default=8, help="of a sample (default: 8)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    learning = {"minutes": None, "steps": args.updates} if args.updates else {}
    QUESTIONS[args.question](Bench(args.data, args.out, args.minutes), args.steps, learning)


if __name__ == "__main__":
    main()
