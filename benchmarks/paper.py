"""The U-Net of 2015 on its own kinds of data: ``python benchmarks/paper.py SET --data FOLDER --out FOLDER``.

SET is isbi (membranes in electron microscopy: sections 0-17 are learnt, 18-21 judged) or hela (cells in differential
interference contrast: frames 0-43 are learnt, 44-53 judged). Valid convolutions, the weight between close objects,
elastic deformations, overlap-tile; with skip connections and without them. FOLDER holds the images as their publishers
lay them out; a model that is there already is not trained again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet import PredictConfig, TrainConfig, evaluate, load_model, open_labels, open_stack, predict, train
from napari_unet.arrays.stack import Stack
from napari_unet.cli.progress import show
from napari_unet.events import wait

Pairs = list[tuple[Stack, Stack]]
NAMES = ("iou", "dice", "pixel_error", "v_rand", "v_info")


def isbi(data: Path) -> tuple[Pairs, Pairs]:
    folder = data / "isbi2012_em" / "train"
    pairs = [
        (open_stack(folder / "image" / f"{i}.png", "yx"), open_labels(folder / "label" / f"{i}.png", "yx"))
        for i in range(22)
    ]
    return pairs[:18], pairs[18:]


def hela(data: Path) -> tuple[Pairs, Pairs]:
    folder = data / "ctc_dic_hela"
    images, labels = (sorted((folder / name).glob("*.tif")) for name in ("images", "labels"))
    pairs = [(open_stack(a, "yx"), open_labels(b, "yx")) for a, b in zip(images, labels, strict=True)]
    return pairs[:44], pairs[44:]


SETS = {"isbi": isbi, "hela": hela}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=15.0, help="of training, each network (default: 15)")
    length.add_argument("--steps", type=int, help="of training, each network; compares networks, not their speed")
    parser.add_argument("--features", type=int, default=16, help="channels of the first level; the paper has 64")
    parser.add_argument(
        "--tta", action="store_true", help="average over mirror images, as the paper does over turned ones"
    )
    parser.add_argument("--skips", type=int, nargs="+", default=[1, 0], help="1 with skips, 0 without them")
    args = parser.parse_args()
    learnt, judged = SETS[args.set](args.data)
    print("| network | steps |", " | ".join(NAMES), "|")
    for skips in map(bool, args.skips):
        name = f"{args.set}-{'with' if skips else 'without'}-skips"
        more: dict[str, Any] = {"binary": True} if args.set == "hela" else {}
        config = TrainConfig(
            preset="ronneberger2015",
            base_features=args.features,
            minutes=None if args.steps else args.minutes,
            steps=args.steps,
            resume=True,
            skips=skips,
            border_weight=10.0 if args.set == "isbi" else None,
            **more,
        )
        path = args.out / name
        model = load_model(path) if (path / "model.json").is_file() else show(train(learnt, path, config))
        scores = []
        for image, labels in judged:
            found = wait(
                predict(image, model, args.out / "result.ome.zarr", PredictConfig(overwrite=True, tta=args.tta))
            )
            truth = np.asarray(labels.data[...])
            truth = (truth > 0).astype(np.uint8) if more else truth
            scores.append(evaluate(found.data[...], truth, "semantic", axes="yx").scores)
        mean = [float(np.mean([each.get(name, np.nan) for each in scores])) for name in NAMES]
        print(f"| {name} | {model.record.get('steps')} |", " | ".join(f"{v:.4f}" for v in mean), "|", flush=True)


if __name__ == "__main__":
    main()
