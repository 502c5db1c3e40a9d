"""Objects learnt at a fitting size, and as the images are: ``python benchmarks/scale.py --data FOLDER``.

Each set is learnt with all defaults for some processor seconds on one thread, whatever else the machine does, and
others are judged at full resolution, pooled over all their objects: AP at IoU 0.5, and SEG. The row "as it is" has the
working pixel size 1. FOLDER holds the images as their publishers lay them out:

dic_hela      54 frames, the last 14 judged
omnipose      each of 3 images is learnt from, and judged: that it can be learnt at all
stardist      one dense plane of nuclei, the left half learnt from, the right one judged
ovule, plant  a volume of cells without gaps each, halves as well
embryos       one learnt from, two others judged

Of one image there is also the adapted Rand error, 1 - the F-score of pairs of voxels in the truth's objects.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from napari_unet import PredictConfig, TrainConfig, open_labels, open_stack, predict, train, wait
from napari_unet.arrays.stack import Stack
from napari_unet.metrics.boundaries import v_rand
from napari_unet.metrics.contingency import Contingency
from napari_unet.metrics.objects import Overlaps, seg
from napari_unet.model import Model
from napari_unet.training import fit

Pairs = list[tuple[Stack, Stack]]


def dic_hela(data: Path) -> tuple[Pairs, Pairs, float]:
    folder = data / "ctc_dic_hela"
    found = sorted((folder / "images").glob("*.tif"))
    pairs = [(open_stack(p), open_labels(folder / "labels_instance_derived" / p.name)) for p in found]
    return pairs[:-14], pairs[-14:], 400


def omnipose(data: Path) -> tuple[Pairs, Pairs, float]:
    folder = data / "omnipose_bacteria"
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in (".png", ".tif"))
    pairs = [(_grey(open_stack(p)), open_labels(folder / "masks" / f"{p.stem}_cp_masks.tif")) for p in found]
    return pairs, pairs, 250


def stardist(data: Path) -> tuple[Pairs, Pairs, float]:
    folder = data / "stardist_builtin" / "stardist" / "data" / "images"
    return *_halves(folder / "img2d.tif", folder / "mask2d.tif", None), 250


def ovule(data: Path) -> tuple[Pairs, Pairs, float]:
    return *_halves(*(data / "plant_cells3d" / kind / "sample_ovule.tif" for kind in ("images", "labels")), "zyx"), 400


def plant(data: Path) -> tuple[Pairs, Pairs, float]:
    return *_halves(*(data / "plant_cells3d" / kind / "1135_mini.tif" for kind in ("images", "labels")), "zyx"), 400


def embryos(data: Path) -> tuple[Pairs, Pairs, float]:
    folder = data / "bbbc050" / "train"
    found = sorted((folder / "images").glob("*.tif"))
    pairs = {p.stem: (open_stack(p, "zyx"), open_labels(folder / "labels" / p.name, "zyx")) for p in found}
    parts: dict[bool, Pairs] = {True: [], False: []}
    for name, pair in pairs.items():
        parts[name.startswith("other")].append(pair)
    return parts[False], parts[True], 400


def _halves(image: Path, labels: Path, axes: str | None) -> tuple[Pairs, Pairs]:
    """Cut an image in two along x."""
    pair = open_stack(image, axes), open_labels(labels, axes)
    middle = pair[0].size("x") // 2
    left, right = ([tuple(s.select(x=at) for s in pair)] for at in (slice(0, middle), slice(middle, None)))
    return left, right  # type: ignore[return-value]  # tuples of two


def _grey(stack: Stack) -> Stack:
    """Bring an image to one channel of 0 to 1."""
    data = np.asarray(stack.data[...], np.float32)
    data = data.mean(stack.axes.index("c")) if "c" in stack.axes else data
    low, high = np.percentile(data, (0.1, 99.9))
    return Stack(data=(data - low) / (high - low), axes=stack.axes.replace("c", ""), name=stack.name)


SETS = {each.__name__: each for each in (dic_hela, omnipose, stardist, ovule, plant, embryos)}


def pooled(tables: list[Contingency]) -> dict[str, float]:
    """Scores over the objects of all images."""
    overlaps = [Overlaps.of(table) for table in tables]
    truth, found = sum(o.n_truth for o in overlaps), sum(o.n_result for o in overlaps)
    right = sum(len(o.matched(0.5)) for o in overlaps)
    segs = sum(seg(o) * o.n_truth for o in overlaps if o.n_truth)
    scores = {"ap_50": right / (truth + found - right), "seg": segs / truth, "truth": truth, "found": found}
    inside = [table.without_border() for table in tables]
    same = {"rand_error": 1 - v_rand(inside[0])} if len(inside) == 1 else {}
    return scores | same


def clock() -> None:
    """Let minutes of a training be those of the processor, on one thread."""
    fit.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    torch.set_num_threads(1)


def learnt(learn: Pairs, out: Path, seconds: float, seed: int, size: float | None = None) -> Model:
    """Train with all defaults for some seconds."""
    config = TrainConfig(task="instances", minutes=seconds / 60, seed=seed, working_pixel_size=size)
    return wait(train(learn, out, config))


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    clock()
    for name in args.sets:
        learn, judge, seconds = SETS[name](args.data)
        seconds = args.seconds or seconds
        for seed in args.seeds:
            for way in args.sizes:
                size = {"fitting": None, "as it is": 1.0}.get(way) if not _is_number(way) else float(way)
                with tempfile.TemporaryDirectory() as work:
                    began = time.process_time()
                    model = learnt(learn, Path(work) / "a.model", seconds, seed, size)
                    spent = time.process_time() - began
                    tables = []
                    for number, (image, truth) in enumerate(judge):
                        found = wait(predict(image, model, Path(work) / f"{number}.ome.zarr", PredictConfig()))
                        tables.append(Contingency.of(np.asarray(truth.data[...]), np.asarray(found.data[...])))
                about = {"set": name, "size": way, "seed": seed, "shrink": [round(s, 3) for s in model.shrink]}
                yield about | {"seconds": round(spent), "steps": model.record["steps"]} | pooled(tables)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sizes", nargs="+", default=["as it is", "fitting"], help="or pixels that make one, as 4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, help="of training; 400, in planes 250 but for dic_hela, if not given")
    for row in rows(parser.parse_args()):
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
