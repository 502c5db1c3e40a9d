"""Make a model that ships with the package: ``python benchmarks/models.py nuclei-2d --data FOLDER --out FOLDER``.

Trains on all images of a set but every eighth, scores it on those, and writes the model as float16 with its card.
FOLDER holds the images as their publishers lay them out.
"""

import argparse
import dataclasses
from pathlib import Path

from napari_unet import Model, PredictConfig, TrainConfig, evaluate, open_labels, open_stack, predict, train, wait
from napari_unet.cli.progress import show

HELD_OUT = 8
NUCLEI_2D = {
    "name": "nuclei-2d",
    "about": "nuclei against background in 2-D fluorescence",
    "data": "Data Science Bowl 2018 (BBBC038, CC0), fluorescence; every eighth file, by name, held out",
    "licence": "BSD-3-Clause",
    "made by": "python benchmarks/models.py nuclei-2d --data DSB2018/fluo --out OUT",
}


def judged(model: Model, pairs: list[tuple[Path, Path]], out: Path) -> dict[str, float]:
    """Mean Dice and IoU over held-out images."""
    sums: dict[str, float] = {}
    for number, (image, labels) in enumerate(pairs):
        found = wait(predict(open_stack(image, "yx"), model, out / f"{number}.ome.zarr", PredictConfig(overwrite=True)))
        truth = open_labels(labels, "yx")
        truth = dataclasses.replace(truth, data=(truth.data[:] > 0).astype("uint8"))
        scores = evaluate(found, truth, "semantic").scores
        sums = {name: sums.get(name, 0.0) + scores[name] / len(pairs) for name in ("dice", "iou")}
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[NUCLEI_2D["name"]])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    files = [(p, args.data / "masks" / p.name) for p in sorted((args.data / "images").glob("*.tif"))]
    held_out = files[::HELD_OUT]
    learnt = [pair for pair in files if pair not in held_out]
    pairs = [(open_stack(image, "yx"), open_labels(labels, "yx")) for image, labels in learnt]
    config = TrainConfig(steps=args.steps, binary=True, base_features=8, depth=4, resume=True)
    model = show(train(pairs, args.out / "trained", config))
    task = dataclasses.replace(model.task, class_names=("background", "nucleus"))
    model = dataclasses.replace(model, task=task)
    scores = judged(model, held_out, args.out / "results")
    kept = ("steps", "minutes", "device", "threads", "precision", "versions", "learnt from", "settings")
    record = NUCLEI_2D | {k: model.record[k] for k in kept} | {"scores": scores}
    record["data digest"] = model.record["data"]["digest"]
    small = dataclasses.replace(model, record=record).save(args.out / args.model, half=True)
    print(small.card())


if __name__ == "__main__":
    main()
