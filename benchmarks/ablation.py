"""What each choice of the training brings: ``python benchmarks/ablation.py SET --data FOLDER --out FOLDER``.

SET is membranes (ISBI 2012: sections 0-13 are learnt, 14-17 judged) or nuclei (fluorescence of DSB2018: every eighth
file, by name, is judged; the images on which models that ship are judged are not touched). Every run has the same
steps and seed, and differs from the first in what its name says; "5 % painted" learns from squares that cover 5 % of
each image, the rest of which is unlabelled. Choices that a user cannot make (the running average of the weights) are
switched off in the module that holds them. What is there already is not trained again.
"""

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from models import RECIPES, Named, judged

from napari_unet import TrainConfig, load_model, train
from napari_unet.arrays.stack import Stack
from napari_unet.cli.progress import show

LEARNER = "napari_unet.training.learner."
PAINTED, SQUARE = 0.05, 24  # share of an image, and pixels a side
COMMON: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no augmentation": {"augment": 0.0},
    "augmentation 1.5": {"augment": 1.5},
    "patches anywhere": {"balance": 0.0},
    "no running average": {LEARNER + "LONGEST_AVERAGE": 0.0},
    "half the rate": {"learning_rate": 1e-3},
    "not mirrored or turned": {"flips": False},
    "no skips": {"skips": False},
}
SETS: dict[str, tuple[str, str, tuple[str, ...], dict[str, dict[str, Any]]]] = {
    "membranes": (
        "membranes-em",
        "isbi2012_em/train",
        ("pixel_error", "v_rand", "v_info"),
        COMMON
        | {
            "border 0": {"border_weight": 0.0},
            "border 3": {"border_weight": 3.0},
            "32 channels": {"base_features": 32},
        },
    ),
    "nuclei": (
        "nuclei-2d",
        "dsb2018/fluo",
        ("ap_50 of all objects", "ap_50_95, mean of images"),
        COMMON
        | {
            "border 0": {"border_weight": 0.0},
            "32 channels": {"base_features": 32},
            "5 % painted": {"sparse": True, "background": 1},
        },
    ),
}


def parts(name: str, pairs: list[Named]) -> tuple[list[Named], list[Named]]:
    """Return what is learnt and what is judged: nothing of what the recipe holds out."""
    learnt = [pair for number, pair in enumerate(pairs) if not RECIPES[name].held_out(number)]
    if name == "membranes-em":
        return learnt[:14], learnt[14:]
    return [p for i, p in enumerate(learnt) if i % 7], learnt[::7]


def painted(labels: Stack, seed: int) -> Stack:
    """Keep squares of the labels, as if no more was painted: 0 is unlabelled, 1 background, objects follow."""
    truth = labels.data[...].astype(np.int32)
    rng = np.random.default_rng(seed)
    kept = np.zeros(truth.shape, bool)
    while kept.mean() < PAINTED:
        y, x = (rng.integers(0, n - SQUARE + 1) for n in truth.shape)
        kept[y : y + SQUARE, x : x + SQUARE] = True
    return dataclasses.replace(labels, data=np.where(kept, truth + 1, 0))


def run(out: Path, learnt: list[Named], base: dict[str, Any], change: dict[str, Any]) -> Any:
    """Train with one change, or take what was trained."""
    if (out / "model.json").is_file():
        return load_model(out)
    settings = base | {k: v for k, v in change.items() if "." not in k}
    config = TrainConfig(**settings, resume=out.with_name(out.name + ".training").is_dir())
    with contextlib.ExitStack() as switched:
        for name, value in change.items():
            if "." in name:
                switched.enter_context(mock.patch(name, value))
        pairs = [(i, painted(j, n) if config.sparse else j) for n, (_, i, j) in enumerate(learnt)]
        return show(train(pairs, out, config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", nargs="+", help="these changes alone")
    args = parser.parse_args()
    name, folder, figures, changes = SETS[args.set]
    learnt, held_out = parts(name, list(RECIPES[name].pairs(args.data / folder)))
    recipe = RECIPES[name].config
    kept = ("task", "border_weight", "depth", "patch", "batch")
    base = {field: getattr(recipe, field) for field in kept} | {"base_features": 16, "steps": args.steps}
    print("| change |", " | ".join(figures), "|", flush=True)
    for change in args.only or changes:
        path = args.out / f"{args.set}-{change.replace(' ', '-')}"
        model = run(path, learnt, base, changes[change])
        scores = judged(model, held_out, path.with_name(path.name + "-judged"), RECIPES[name].kind, False)
        print(f"| {change} |", " | ".join(f"{scores[each]:.4f}" for each in figures), "|", flush=True)


if __name__ == "__main__":
    main()
