"""Make a model that ships with the package: ``python benchmarks/models.py nuclei-2d --data FOLDER --out FOLDER``.

Trains on what is not held out, scores the model on that, and writes it as float16 with its card. FOLDER holds the
images as their publishers lay them out. Stopped, the same command goes on; the same seed and steps give the same
weights on one kind of machine. ``--start MODEL`` takes a model in place of the first of two trainings, ``--judge
MODEL`` scores one on the same images. ``--look MODEL`` writes one with what its training images looked like in its
record, without training it anew.
"""

import argparse
import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from napari_unet import (
    Model,
    PredictConfig,
    TrainConfig,
    evaluate,
    load_model,
    open_labels,
    open_stack,
    predict,
    train,
    wait,
)
from napari_unet.arrays.stack import Stack
from napari_unet.cli.progress import show
from napari_unet.intensities.looks import appearance, least_contrast

Named = tuple[str, Stack, Stack]
DRAWN_ASIDE = (-0.65, -0.25)
"""Pixels (y, x) by which the labels of isbi2012 lie beside the membranes; found on sections 0 to 17."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Parameters
    ----------
    pairs : callable
        Folder -> (name, image, labels) of each, in order.
    held_out : callable
        Number -> whether it is judged on, and not learnt from.
    config : TrainConfig
    kind : "instances" or "semantic"
    card : dict of str to str
    validated : callable
        Number -> whether it chooses the best of the run, and is not learnt from; none, and the training draws some.
    then : dict of str to value
        What is other in a second training, which goes on with the weights of the first; none, and there is one.
    ways : callable
        Image and labels -> the pairs that are learnt from in their place.
    more : callable
        All that is learnt from -> what is learnt from too, such as fields without any object.
    divided : callable
        Number -> whether the right quarter is validated, and the rest learnt from.
    """

    pairs: Callable[[Path], Iterator[Named]]
    held_out: Callable[[int], bool]
    config: TrainConfig
    kind: str
    card: dict[str, str]
    validated: Callable[[int], bool] = lambda number: False
    then: dict[str, Any] = dataclasses.field(default_factory=dict)
    ways: Callable[[Stack, Stack], Iterator[tuple[Stack, Stack]]] = lambda image, labels: iter([(image, labels)])
    more: Callable[[list[tuple[Stack, Stack]]], Iterator[tuple[Stack, Stack]]] = lambda learnt: iter(())
    divided: Callable[[int], bool] = lambda number: False

    @property
    def trainings(self) -> list[tuple[str, TrainConfig]]:
        """Name and settings of each training, in order."""
        second = [("tuned", dataclasses.replace(self.config, **self.then))] if self.then else []
        return [("trained", self.config), *second]


def dsb2018(folder: Path) -> Iterator[Named]:
    for path in sorted((folder / "images").glob("*.tif")):
        yield path.stem, open_stack(path, "yx"), open_labels(folder / "masks" / path.name, "yx")


def histology(folder: Path) -> Iterator[Named]:
    for path in sorted((folder / "images").glob("*.tif")):
        yield path.stem, open_stack(path, "yxc"), open_labels(folder / "masks" / path.name, "yx")


def bbbc050(folder: Path) -> Iterator[Named]:
    size: dict[str, Any] = {"scale": (1.75, 0.8, 0.8), "units": ("micrometer",) * 3}
    for path in sorted((folder / "images").glob("*.tif")):
        stacks = open_stack(path, "zyx"), open_labels(folder / "labels" / path.name, "zyx")
        image, labels = (dataclasses.replace(stack, **size) for stack in stacks)
        yield path.stem, image, labels


def isbi2012(folder: Path) -> Iterator[Named]:
    for path in sorted((folder / "image").glob("*.png"), key=lambda p: int(p.stem)):
        size: dict[str, Any] = {"scale": (0.004, 0.004), "units": ("micrometer",) * 2}
        stacks = open_stack(path, "yx"), open_labels(folder / "label" / path.name, "yx")
        image, labels = (dataclasses.replace(stack, **size) for stack in stacks)
        yield path.stem, image, labels


def every_way(image: Stack, labels: Stack) -> Iterator[tuple[Stack, Stack]]:
    """Yield 8-bit planes turned and mirrored in all 8 ways, labels always beside what they mark as they were drawn."""
    planes = [stack.data[...] for stack in (image, labels)]
    for swapped, down, right in itertools.product((False, True), (1, -1), (1, -1)):
        seen, drawn = ((plane.T if swapped else plane)[::down, ::right] for plane in planes)
        turned = np.multiply(DRAWN_ASIDE[::-1] if swapped else DRAWN_ASIDE, (down, right))
        moved = ndimage.shift(seen.astype(np.float32), turned - DRAWN_ASIDE, order=3, mode="reflect")
        data = np.clip(np.rint(moved), 0, 255).astype(np.uint8)
        yield dataclasses.replace(image, data=data), dataclasses.replace(labels, data=np.ascontiguousarray(drawn))


TISSUE = (47, 317, 386)  # sections of dense tissue that are learnt from, by number; the fourth is held out
FORMER = np.sort(np.random.default_rng([0, 359]).permutation(359)[:72])  # what validated the first training, of 359
CHOOSING = {[n for n in range(411) if n % 8][k] for k in FORMER[::2]} - {382}
LATE = 5  # nuclei of an embryo from which it is learnt in 4 orientations
MIRRORED = ((0, 1), (0, -1), (2, -1), (2, 1))  # quarter turns, then along x where -1: all ways to mirror planes
ALIKE = 6  # images of a size: of fewer each is learnt in all 8 orientations
EMPTY, EMPTIES = 96, 32  # pixels of a field without objects, and how many are real and how many made


def rare_in_every_way(image: Stack, labels: Stack) -> Iterator[tuple[Stack, Stack]]:
    """Yield images of sizes that few have turned and mirrored in all 8 ways, so that they are drawn more often."""
    usual = ((256, 256), (360, 360), (520, 696), (512, 640), (1040, 1388))
    for turns, mirrored in itertools.product(range(4), (1, -1)) if image.shape not in usual else [(0, 1)]:
        yield tuple(turned(stack, turns, mirrored) for stack in (image, labels))


def late_more_often(image: Stack, labels: Stack) -> Iterator[tuple[Stack, Stack]]:
    """Yield volumes of many nuclei mirrored in all 4 ways, so that they are drawn more often than those of a few."""
    for turns, mirrored in MIRRORED if labels.data[...].max() >= LATE else MIRRORED[:1]:
        yield tuple(turned(stack, turns, mirrored) for stack in (image, labels))


def turned(stack: Stack, turns: int, mirrored: int) -> Stack:
    """Return a stack turned by quarters in its planes, then mirrored along x where `mirrored` is -1."""
    data = np.rot90(stack.data[...], turns, (-2, -1))[..., ::mirrored]
    return dataclasses.replace(stack, data=np.ascontiguousarray(data))


def empty_fields(learnt: list[tuple[Stack, Stack]]) -> Iterator[tuple[Stack, Stack]]:
    """Yield fields without any object: windows of images, and noise over a level and a gradient."""
    rng, found = np.random.default_rng(5), 0
    nothing = np.zeros((EMPTY, EMPTY), np.uint16)
    for image, labels in learnt:
        away = ndimage.distance_transform_edt(np.pad(labels.data[...] == 0, 1, constant_values=True))[1:-1, 1:-1]
        room = ndimage.minimum_filter(away, EMPTY)[EMPTY // 2 : -EMPTY // 2, EMPTY // 2 : -EMPTY // 2] > 1
        if found < EMPTIES and room.any():
            y, x = np.argwhere(room)[rng.integers(room.sum())]
            window = np.ascontiguousarray(image.data[y : y + EMPTY, x : x + EMPTY])
            if np.unique(window).size > ALIKE:
                found += 1
                yield Stack(window, "yx", name=f"empty {image.name}"), Stack(nothing, "yx")
    for number in range(EMPTIES):
        slope = np.linspace(0, rng.uniform(0, 12), EMPTY)[:, None] * rng.uniform(0, 1, EMPTY).cumsum() / EMPTY
        level = rng.uniform(2, 60) + slope
        noise = rng.poisson(level) if number % 2 else rng.normal(level, rng.uniform(1, 4))
        noise = ndimage.gaussian_filter(noise.astype(np.float32), rng.choice([0, 0.5, 1]))
        made = np.clip(np.rint(noise * 16), 0, 2**16 - 1).astype(np.uint16)
        yield Stack(made, "yx", name=f"noise {number}"), Stack(nothing, "yx")


RECIPES = {
    "nuclei-2d": Recipe(
        dsb2018,
        lambda number: number % 8 == 0 or number == 382,
        TrainConfig(task="instances", steps=12000, base_features=24, max_features=256, depth=4, resume=True),
        "instances",
        {
            "about": "single nuclei in 2-D fluorescence",
            "data": "Data Science Bowl 2018 (BBBC038, CC0), fluorescence, all kinds, and empty fields; every eighth "
            "file, by name, and one of four sections of dense tissue held out",
        },
        CHOOSING.__contains__,
        {"steps": 500, "learning_rate": 0.001, "seed": 1},
        rare_in_every_way,
        empty_fields,
        TISSUE.__contains__,
    ),
    "nuclei-histology": Recipe(
        histology,
        lambda number: number % 4 == 2,
        TrainConfig(task="instances", steps=2500, base_features=24, max_features=256, depth=4, resume=True),
        "instances",
        {
            "about": "single nuclei in RGB images of stained tissue",
            "data": "Data Science Bowl 2018 (BBBC038, CC0), purple stains; every fourth file, by name, held out",
        },
    ),
    "nuclei-3d": Recipe(
        bbbc050,
        lambda number: number in (1, 5, 9) or number >= 15,
        TrainConfig(task="instances", steps=1500, base_features=12, resume=True),
        "instances",
        {
            "about": "single nuclei of mouse embryos in 3-D fluorescence",
            "data": "BBBC050 (Tokuoka et al. 2020), embryo 01 and one more at four stages; time points 51, 251 and 451 "
            "of embryo 01 and all four stages of a third embryo held out",
        },
        (3, 6).__contains__,
        ways=late_more_often,
        divided=(8).__eq__,
    ),
    "membranes-em": Recipe(
        isbi2012,
        lambda number: number >= 18,
        TrainConfig(
            class_names=("membrane", "cell"),
            border_weight=10.0,
            patch=(256, 256),
            batch=3,
            steps=5000,
            base_features=32,
            max_features=128,
            depth=4,
            augment=2.0,
            flips=False,
            resume=True,
        ),
        "semantic",
        {
            "about": "membranes between neurites in 2-D electron microscopy, serial sections",
            "data": "ISBI 2012 EM challenge (Arganda-Carreras et al. 2015; Cardona et al. 2010), training sections "
            "0 to 17, learnt in all 8 orientations; 18 to 21 held out",
            "note": "membranes are drawn where the challenge's labels lie: 0.65 pixels further up, 0.25 further left; "
            "mirroring a prediction takes that back",
        },
        lambda number: number in (4, 13),
        {"steps": 1500, "learning_rate": 0.001, "augment": 1.0, "border_weight": 30.0, "seed": 1},
        every_way,
    ),
}


def judged(model: Model, pairs: list[Named], out: Path, kind: str, tta: bool) -> dict[str, float]:
    """Return scores over held-out images: counts pooled, also of each shape of several; others the mean."""
    config = PredictConfig(overwrite=True, tta=tta)
    for name, image, labels in pairs:
        found = wait(predict(image, model, out / "results" / f"{name}.ome.zarr", config))
        for side, data in (("found", found.data[...]), ("truth", labels.data[...])):
            (out / side).mkdir(parents=True, exist_ok=True)
            np.save(out / side / f"{name}.npy", data)
    scores = []
    for name, _, labels in pairs:
        sides = [np.load(out / side / f"{name}.npy") for side in ("found", "truth")]
        scores.append(evaluate(*sides, kind, axes=labels.axes).scores)
    mean = {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    if kind == "semantic":
        return {
            name: round(mean[name], 4) for name in ("dice", "iou", "pixel_error", "v_rand", "v_info") if name in mean
        }
    means = {f"{name}, mean of images": round(mean[name], 4) for name in ("ap_50", "ap_50_95", "seg", "pq")}
    shapes = collections.defaultdict(list)
    for (_, image, _), each in zip(pairs, scores, strict=True):
        shapes[" x ".join(map(str, image.shape))].append(each)
    kinds = {f"ap_50 of {shape}": pooled(each) for shape, each in shapes.items() if len(shapes) > 1}
    return {"ap_50 of all objects": pooled(scores), **means, **kinds}


def looked(model: Model, images: list[Stack]) -> Model:
    """Return a model whose record has what its training images looked like; other images than these are refused."""
    seen = [model.normalisation.measure(image).contrast for image in images]
    least = least_contrast(seen)
    if least != model.record.get("contrast", least):
        raise SystemExit(f"these are other images: the least contrast is {least}, not {model.record['contrast']}")
    return dataclasses.replace(model, record={**model.record, "contrast": least, "appearance": appearance(seen)})


def pooled(scores: list[dict[str, float]]) -> float:
    """Return the AP at IoU 0.5 over all objects of images."""
    right = sum(each["precision_50"] * each["n_result"] for each in scores)
    every = sum(each["n_result"] + each["n_truth"] for each in scores)
    return round(right / (every - right), 4)


def divided(recipe: Recipe, pairs: list[Named]) -> dict[bool, list[tuple[Stack, Stack]]]:
    """Return what chooses the best of the run, under True, and what is learnt from."""
    parts: dict[bool, list[tuple[Stack, Stack]]] = {True: [], False: []}
    for number, (_, image, labels) in enumerate(pairs):
        if recipe.held_out(number):
            continue
        if recipe.validated(number):
            parts[True].append((image, labels))
            continue
        at = image.shape[-1] * 3 // 4 if recipe.divided(number) else image.shape[-1]
        if recipe.divided(number):
            parts[True].append((image.select(x=slice(at, None)), labels.select(x=slice(at, None))))
        learnt = slice(0, at)
        parts[False] += recipe.ways(image.select(x=learnt), labels.select(x=learnt))
    parts[False] += recipe.more(parts[False])
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(RECIPES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--look", type=Path)
    args = parser.parse_args()
    recipe = RECIPES[args.model]
    pairs = list(recipe.pairs(args.data))
    held_out = [pair for number, pair in enumerate(pairs) if recipe.held_out(number)]
    if args.judge is not None:
        print(judged(load_model(args.judge), held_out, args.out, recipe.kind, tta=False))
        return
    parts = divided(recipe, pairs)
    if args.look is not None:
        model = looked(load_model(args.look), [image for image, _ in parts[False]])
        print(model.save(args.out / args.model, half=True).card())
        return
    trained: list[Model] = [] if args.start is None else [load_model(args.start)]
    for name, config in recipe.trainings[len(trained) :]:
        start = trained[-1] if trained else None
        trained.append(show(train(parts[False], args.out / name, config, validation=parts[True], init=start)))
    model = trained[-1]
    scores, mirrored = (judged(model, held_out, args.out, recipe.kind, tta) for tta in (False, True))
    kept = (
        "device",
        "threads",
        "precision",
        "versions",
        "learnt from",
        "contrast",
        "appearance",
        "foreground",
        "settings",
    )
    made = f"python benchmarks/models.py {args.model} --data DATA --out OUT"
    if args.start is not None:  # in place of the first training, whose settings and steps are in this record too
        made += f" --start MODEL, sha256 {trained[0].sha256[:16]}"
    about = {
        "name": args.model,
        **recipe.card,
        "licence": "BSD-3-Clause (the images: as their publishers say)",
        "made by": made,
    }
    record = about | {k: model.record[k] for k in kept if k in model.record} | {"scores": scores}
    steps = [each.record.get("steps", "") for each in trained]
    record["steps"] = ", then ".join(map(str, steps))
    record["minutes"] = round(sum(each.record.get("minutes", 0) for each in trained), 1)
    if len(trained) > 1:
        record["settings before"] = trained[0].record["settings"]
    record["scores with tta=True"] = mirrored
    record["data digest"] = model.record["data"]["digest"]
    small = dataclasses.replace(model, record=record).save(args.out / args.model, half=True)
    print(small.card())


if __name__ == "__main__":
    main()
