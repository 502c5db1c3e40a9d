"""What networks of images bring: ``python benchmarks/images.py QUESTION --data FOLDER --out FOLDER [--minutes 10]``.

QUESTION is one of

denoise   Set12 with Gaussian noise of sigma 25, learnt on nine images, judged on 03, 07 and 11
blind     the confocal images of Noise2Fast, learnt from the noisy images alone
finer     membranes in electron microscopy, blurred and made coarser: 2x, and 4x as a cascade of 2x and 2x, the second
          learnt on what the first gives
axial     nuclei in 3-D with planes four times as far apart
segment   the noisy nuclei of Noise2Fast: segmented as they are, and restored (blind) before
clean     nuclei of DSB2018 with noise put on: segmented as they are, restored before, and clean
skips     Set12 as in denoise, and nuclei as classes: the same network with and without skip connections

FOLDER holds the images as their publishers lay them out. Prints a table, and writes models, results and pictures
(input, result, truth) to ``--out``; what is there already is not trained again.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

from napari_unet import Model, PredictConfig, TrainConfig, evaluate, load_model, open_labels, open_stack, predict, train
from napari_unet.arrays.degrade import degraded
from napari_unet.arrays.stack import Stack
from napari_unet.cards import locate
from napari_unet.cli.progress import show
from napari_unet.events import wait
from napari_unet.metrics.objects import Intensity

Pairs = Sequence[tuple[Stack, Stack]]
NOISE = 25.0
BLUR = 1.0  # of its own pixels, before an image is made coarser


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where images are read from, where results go, and how long each network is trained."""

    data: Path
    out: Path
    minutes: float

    def learn(self, name: str, pairs: Pairs, validation: Pairs = (), **settings: Any) -> Model:
        """Train, or go on; a finished model is taken as it is."""
        path = self.out / name
        if (path / "model.json").is_file():
            return load_model(path)
        settings = {"minutes": self.minutes} | settings
        config = TrainConfig(resume=(path.with_name(name + ".training")).is_dir(), **settings)
        return show(train(list(pairs), path, config, validation=validation))

    def run(self, stack: Stack, models: Model | list[Model], name: str, tta: bool = False) -> np.ndarray:
        """Predict, and return the result."""
        config = PredictConfig(overwrite=True, tta=tta)
        return np.asarray(wait(predict(stack, models, self.out / f"{name}.ome.zarr", config)).data[...])

    def picture(self, name: str, *images: np.ndarray) -> None:
        """Write images side by side, of volumes a section, each in the contrast of the last."""
        planes = [a if a.ndim == 2 else a[:, a.shape[1] // 2] for a in images]
        low, high = np.percentile(planes[-1], (0.5, 99.5))
        shape = planes[-1].shape
        grey = [np.clip((p - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8) for p in planes]
        shown = [np.asarray(Image.fromarray(p).resize(shape[::-1], Image.Resampling.NEAREST)) for p in grey]
        Image.fromarray(np.concatenate(shown, 1)).save(self.out / f"{name}.png")


def table(title: str, rows: Iterable[tuple[str, float | str]]) -> None:
    """Print a table of figures."""
    print(f"\n{title}")
    for what, value in rows:
        print(f"| {what} | {value if isinstance(value, str) else f'{value:.3f}'} |")


def psnr(truth: np.ndarray, found: np.ndarray, peak: float | None = None) -> float:
    """Signal to noise in dB; of a peak that is given, or of the spread of the truth."""
    if peak is None:
        return Intensity.of(truth, found).scores()["psnr"]
    difference = truth.astype(np.float64) - found
    return float(10 * np.log10(peak**2 / np.mean(difference**2)))


def set12(bench: Bench) -> tuple[Pairs, list[tuple[str, Stack, np.ndarray]]]:
    """Return what is learnt from, and (name, noisy, clean) of each image that is held out."""
    folder = bench.data / "bsd68_set12" / "Set12"
    images = {path.stem: np.asarray(Image.open(path).convert("L")).astype(np.float32) for path in folder.glob("*.png")}
    stacks = {name: Stack(image, "yx", name=name) for name, image in sorted(images.items())}
    held = ("03", "07", "11")
    noisy = {
        name: images[name] + np.random.default_rng(int(name)).normal(0, NOISE, images[name].shape) for name in held
    }
    judged = [(name, Stack(noisy[name].astype(np.float32), "yx"), images[name]) for name in held]
    return [(stack, stack) for name, stack in stacks.items() if name not in held], judged


def denoised(bench: Bench, name: str, **settings: Any) -> dict[str, float]:
    """Learn to denoise Set12; return the PSNR of each image that was held out."""
    learnt, judged = set12(bench)
    model = bench.learn(name, learnt, task="restore", noise=NOISE, **settings)
    found = {}
    for image, noisy, clean in judged:
        restored = bench.run(noisy, model, f"{name}-{image}")
        found[image] = psnr(clean, np.clip(restored, 0, 255), 255)
        bench.picture(f"{name}-{image}", np.asarray(noisy.data), restored, clean)
    return found


def denoise(bench: Bench) -> None:
    before = np.mean([psnr(clean, np.asarray(noisy.data), 255) for _, noisy, clean in set12(bench)[1]])
    found = denoised(bench, "denoise")
    table("Set12, sigma 25, PSNR in dB", [("noisy", before), *found.items(), ("mean", np.mean(list(found.values())))])


def blind(bench: Bench) -> None:
    folder = bench.data / "noise2fast"
    noisy = {p.stem: tifffile.imread(p) for p in sorted((folder / "Confocal_gaussianpoisson").glob("*.tif"))}
    stacks = {name: Stack(image, "yx", name=name) for name, image in noisy.items()}
    model = bench.learn("blind", [(s, s) for s in stacks.values()], task="restore", blind=True)
    rows = []
    for name, stack in stacks.items():
        clean = tifffile.imread(folder / "Confocal" / f"{name}.tif").astype(np.float32)
        restored = bench.run(stack, model, f"blind-{name}")
        before, after = psnr(clean, noisy[name], 255), psnr(clean, restored, 255)
        rows.append((name, f"{before:.2f} -> {after:.2f}"))
        bench.picture(f"blind-{name}", noisy[name], restored, clean)
    table("Noise2Fast confocal, learnt from noisy images alone, PSNR in dB", rows)


def enlarged(image: np.ndarray, factor: int, how: Image.Resampling) -> np.ndarray:
    height, width = image.shape
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((width * factor, height * factor), how))


def coarser(stack: Stack, times: int) -> Stack:
    """Blur and take the mean of 2 x 2, so many times; computed once."""
    for _ in range(times):
        stack = degraded(stack, BLUR, (2, 2))
        stack = dataclasses.replace(stack, data=np.asarray(stack.data[...]))
    return stack


def finer(bench: Bench) -> None:
    folder = bench.data / "isbi2012_em" / "train" / "image"
    images = [np.asarray(Image.open(folder / f"{i}.png").convert("L")).astype(np.float32) for i in range(22)]
    levels = [[coarser(Stack(image, "yx", name=f"{i}"), n) for n in range(3)] for i, image in enumerate(images)]
    models = [
        bench.learn(
            f"finer-{n}", [(level[n], level[n - 1]) for level in levels[:18]], task="super_resolve", upscale=(2, 2)
        )
        for n in (1, 2)
    ]
    passed = [
        Stack(bench.run(level[2], models[1], "finer-seen"), "yx", level[1].scale, translation=level[1].translation)
        for level in levels[:18]
    ]
    pairs = [(seen, level[0]) for seen, level in zip(passed, levels[:18], strict=True)]
    last = bench.learn("finer-last", pairs, task="super_resolve", upscale=(2, 2))
    for n, chosen in ((1, models[0]), (2, [models[1], last])):
        rows: dict[str, list[float]] = {"bicubic": [], "Lanczos": [], "network": [], "network, mirrored": []}
        for i, level in enumerate(levels[18:]):
            low = np.asarray(level[n].data)
            found = {
                "bicubic": enlarged(low, 2**n, Image.Resampling.BICUBIC),
                "Lanczos": enlarged(low, 2**n, Image.Resampling.LANCZOS),
                "network": bench.run(level[n], chosen, f"finer-{2**n}x-{i}"),
                "network, mirrored": bench.run(level[n], chosen, f"finer-{2**n}x-{i}-mirrored", tta=True),
            }
            for name, image in found.items():
                rows[name].append(psnr(np.asarray(level[0].data), image, 255))
            bench.picture(f"finer-{2**n}x-{i}", low, found["bicubic"], found["network"], np.asarray(level[0].data))
        table(f"ISBI 2012 EM, {2**n}x, PSNR in dB", [(name, float(np.mean(v))) for name, v in rows.items()])


def axial(bench: Bench) -> None:
    files = sorted((bench.data / "bbbc050" / "train" / "images").glob("*.tif"))
    volumes = [tifffile.imread(path).astype(np.float32) for path in files]
    volumes = [v[: len(v) // 4 * 4] for v in volumes]
    fine = [
        Stack(v, "zyx", (1.75, 0.8, 0.8), ("micrometer",) * 3, name=p.stem) for v, p in zip(volumes, files, strict=True)
    ]
    coarse = [dataclasses.replace(c, data=np.asarray(c.data[...])) for c in (degraded(s, 0, (4, 1, 1)) for s in fine)]
    held = [i for i in range(len(files)) if i % 4 == 1]
    pairs = [(coarse[i], fine[i]) for i in range(len(files)) if i not in held]
    model = bench.learn("axial", pairs, task="super_resolve", upscale=(4, 1, 1))
    rows: dict[str, list[float]] = {"linear": [], "cubic": [], "network": []}
    for i in held:
        low, truth = np.asarray(coarse[i].data), volumes[i]
        found = {
            name: ndimage.zoom(low, (4, 1, 1), order=order, mode="nearest", grid_mode=True)
            for name, order in (("linear", 1), ("cubic", 3))
        } | {"network": bench.run(coarse[i], model, f"axial-{i}")}
        for name, volume in found.items():
            rows[name].append(psnr(truth, volume))
        bench.picture(f"axial-{i}", found["linear"], found["network"], truth)
    table(
        "BBBC050, planes 4x, PSNR in dB of the spread of the truth", [(n, float(np.mean(v))) for n, v in rows.items()]
    )


def pooled(found: list[dict[str, float]]) -> float:
    """AP@0.5 over the objects of all images."""
    right = sum(each["precision_50"] * each["n_result"] for each in found)
    return right / (sum(each["n_result"] + each["n_truth"] for each in found) - right)


def scored(
    bench: Bench, ways: dict[str, Any], images: list[tuple[str, dict[str, Stack], np.ndarray]], title: str
) -> None:
    """Segment each image in several ways: name -> (which of its stacks, models)."""
    rows = []
    for way, (which, models) in ways.items():
        scores = []
        for name, stacks, truth in images:
            found = bench.run(stacks[which], models, f"{way.replace(' ', '-')}-{name}")
            scores.append(evaluate(found, truth, "instances", axes="yx").scores)
        rows.append((way, pooled(scores)))
    table(title, rows)


def segment(bench: Bench) -> None:
    folder, nuclei = bench.data / "noise2fast" / "Fig5Data", load_model(locate("nuclei-2d"))
    images = []
    for path in sorted((folder / "noisy").glob("*.tif")):
        truth = np.asarray(Image.open(folder / "GT" / f"{path.stem}_cp_masks.png")).astype(np.int32)
        images.append((path.stem, {"noisy": Stack(tifffile.imread(path), "yx", name=path.stem)}, truth))
    restore = bench.learn("nuclei-blind", [(s["noisy"], s["noisy"]) for _, s, _ in images], task="restore", blind=True)
    for name, stacks, _ in images[:2]:
        bench.picture(
            f"segment-{name}", *(np.asarray(stacks["noisy"].data), bench.run(stacks["noisy"], restore, "seen"))
        )
    ways = {"noisy": ("noisy", nuclei), "restored, then segmented": ("noisy", [restore, nuclei])}
    scored(bench, ways, images, "Noisy nuclei of Noise2Fast, AP@0.5")


def clean(bench: Bench) -> None:
    nuclei, folder = load_model(locate("nuclei-2d")), bench.data / "dsb2018" / "fluo"
    images, learnt, rng = [], [], np.random.default_rng(0)
    for number, path in enumerate(sorted((folder / "images").glob("*.tif"))):
        image = tifffile.imread(path)
        low, high = np.percentile(image, (1, 99.8))
        noisy = image + rng.normal(0, 0.5 * (high - low), image.shape)
        stacks = {
            name: Stack(a.astype(np.float32), "yx", name=path.stem) for name, a in (("clean", image), ("noisy", noisy))
        }
        if number % 8 == 0:
            images.append((path.stem, stacks, tifffile.imread(folder / "masks" / path.name).astype(np.int32)))
        else:
            learnt.append((stacks["noisy"], stacks["clean"]))
    restore = bench.learn("nuclei-restore", learnt, task="restore")
    ways = {
        "clean": ("clean", nuclei),
        "noisy": ("noisy", nuclei),
        "restored, then segmented": ("noisy", [restore, nuclei]),
    }
    scored(bench, ways, images, "DSB2018 held out, noise of half the contrast, AP@0.5")


def classes(bench: Bench, name: str, **settings: Any) -> float:
    """Learn DSB2018 nuclei as classes; return the mean Dice of what was held out."""
    folder = bench.data / "dsb2018" / "fluo"
    files = sorted((folder / "images").glob("*.tif"))
    pairs = [(open_stack(path, "yx"), open_labels(folder / "masks" / path.name, "yx")) for path in files]
    learnt = [pair for number, pair in enumerate(pairs) if number % 8]
    model = bench.learn(name, learnt, binary=True, **settings)
    found = []
    for image, labels in pairs[::8]:
        truth = np.asarray(labels.data[...]) > 0
        found.append(evaluate(bench.run(image, model, name), truth, "semantic", axes="yx").scores["dice"])
    return float(np.mean(found))


def skips(bench: Bench) -> None:
    rows = [
        (f"DSB2018, {name} skips, Dice", classes(bench, f"nuclei-{name}-skips", **more))
        for name, more in (("with", {}), ("without", {"skips": False}))
    ] + [
        (f"Set12, {name} skips, PSNR in dB", float(np.mean(list(denoised(bench, f"{name}-skips", **more).values()))))
        for name, more in (("with", {}), ("without", {"skips": False}))
    ]
    table(f"{bench.minutes:g} minutes each", rows)


QUESTIONS: dict[str, Callable[[Bench], None]] = {
    f.__name__: f for f in (denoise, blind, finer, axial, segment, clean, skips)
}


def asking(about: str | None, questions: Iterable[str]) -> argparse.ArgumentParser:
    """Return what reads a question, where data lie and results go, and how long is learnt."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=list(questions))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each network (default: 10)")
    return parser


def main() -> None:
    args = asking(__doc__, QUESTIONS).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    QUESTIONS[args.question](Bench(args.data, args.out, args.minutes))


if __name__ == "__main__":
    main()
