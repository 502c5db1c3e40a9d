"""Train on real images, predict held-out ones, score them: ``python benchmarks/quality.py SET --data FOLDER``.

SET is isbi2012 (membranes in electron microscopy, trained on slices 0-17, judged on 18-21), sandstone (four classes,
one of them rare; judged on the last slice) or bbbc050 (nuclei against background in 3-D; judged on the last three time
points). FOLDER holds the images as their publishers lay them out. Writes the model, the results, ``scores.json`` and
``overview.png`` (image, truth, prediction) to ``--out``.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from napari_unet import PredictConfig, TrainConfig, evaluate, open_labels, open_stack, predict, train
from napari_unet.cli.progress import show

Pairs = list[tuple[Path, Path]]


def isbi2012(data: Path, _: Path) -> tuple[Pairs, Pairs, dict]:
    folder = data / "isbi2012_em" / "train"
    pairs = [(folder / "image" / f"{i}.png", folder / "label" / f"{i}.png") for i in range(22)]
    return pairs[:18], pairs[18:], {}


def sandstone(data: Path, work: Path) -> tuple[Pairs, Pairs, dict]:
    pairs = []
    for image in sorted((data / "sandstone_microct" / "Train_images").glob("*.tif")):
        mask = tifffile.imread(data / "sandstone_microct" / "Train_masks" / image.name)
        labels = ((mask > 127) * np.array([1, 2, 4])).sum(-1).astype(np.uint8)
        tifffile.imwrite(work / image.name, labels)
        pairs.append((image, work / image.name))
    return pairs[:-1], pairs[-1:], {}


def bbbc050(data: Path, _: Path) -> tuple[Pairs, Pairs, dict]:
    folder = data / "bbbc050" / "train"
    images = sorted((folder / "images").glob("*.tif"))
    pairs = [(image, next(p for p in folder.glob(f"*/{image.name}") if p != image)) for image in images]
    return pairs[:-3], pairs[-3:], {"axes": "zyx", "binary": True}


SETS = {"isbi2012": isbi2012, "sandstone": sandstone, "bbbc050": bbbc050}
COLOURS = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [213, 94, 0]], np.uint8)


def picture(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> Image.Image:
    """Image, truth and prediction side by side; of volumes the middle plane."""
    planes = [a[len(a) // 2] if a.ndim == 3 else a for a in (image, truth, found)]
    low, high = np.percentile(planes[0], (0.5, 99.5))
    grey = np.clip((planes[0] - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    classes = np.unique(np.concatenate([p.ravel() for p in planes[1:]]))
    shown = [np.repeat(grey[..., None], 3, -1)]
    shown += [COLOURS[np.searchsorted(classes, p) % len(COLOURS)] for p in planes[1:]]
    return Image.fromarray(np.concatenate(shown, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--model", type=Path, help="judge this model instead of training one")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        learn, judge, options = SETS[args.set](args.data, Path(work))
        axes, binary = options.get("axes"), options.get("binary", False)
        if args.model is None:
            pairs = [(open_stack(i, axes), open_labels(t, axes)) for i, t in learn]
            config = TrainConfig(minutes=args.minutes, binary=binary, preset=args.preset)
            model = show(train(pairs, args.out / "model", config))
        else:
            from napari_unet import load_model

            model = load_model(args.model)
        rows, pictures = [], []
        for image, truth in judge:
            result = args.out / f"{image.stem}.ome.zarr"
            shutil.rmtree(result, ignore_errors=True)
            stack, right = open_stack(image, axes), open_labels(truth, axes)
            found = show(predict(stack, model, result, PredictConfig()))
            values = np.asarray(right.data[...])
            values = (values > 0).astype(np.uint8) if binary else values
            rows.append(evaluate(np.asarray(found.data[...]), values, "semantic", axes=found.axes).scores)
            pictures.append(np.asarray(picture(np.asarray(stack.data[...]), values, np.asarray(found.data[...]))))
    mean = {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[0]}
    Image.fromarray(np.concatenate(pictures[:2])).save(args.out / "overview.png")
    (args.out / "scores.json").write_text(json.dumps({"mean": mean, "each": rows}, indent=1))
    print("\n".join(f"{name:16} {value:.4f}" for name, value in mean.items()))


if __name__ == "__main__":
    main()
