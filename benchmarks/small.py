"""What small images cost: ``python benchmarks/small.py one``, ``batch [--images 200]`` and ``peers``.

`one`: processor seconds of the command ``predict`` of one image of 512 x 512 with a model that ships, and of ``import
torch`` alone; interleaved, the least of some rounds, as on a shared machine only this says what is needed.

`batch`: a batch of images of 256 x 256 in one process, after one image that loads all, and the network alone: the same
model called on tensors that are ready, one for each image. Processor seconds and seconds of each, and their ratio.

`peers`: images of 256 x 256 a processor second: a batch of ours, from files to results on disk, beside Cellpose's and
StarDist's networks on arrays in memory, each from its package in the interpreter that is named for it (``pip install
cellpose==3.1.1`` and ``pip install stardist tensorflow-cpu``). Their weights are random, so that no masks come of
them, and those cost nothing. Each has a process of its own for each round, one after the other.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SLOW = 10  # images of a round of a peer that takes seconds for each
COMMAND = [sys.executable, "-c", "from napari_unet.cli import main; main()"]


def nuclei(size: int, seed: int) -> np.ndarray:
    """Round, bright objects on a noisy background, of 8 bit."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:size, :size]
    image = rng.normal(20, 4, (size, size))
    for _ in range(size**2 // 1600):
        y, x, radius = *rng.uniform(0, size, 2), rng.uniform(6, 13)
        distance = np.hypot(grid[0] - y, grid[1] - x)
        image += rng.uniform(60, 180) * np.clip(radius - distance, 0, 1)
    return np.clip(image, 0, 255).astype(np.uint8)


def child_seconds(command: list[str]) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one(folder: Path, args: argparse.Namespace) -> None:
    from PIL import Image

    Image.fromarray(nuclei(args.size or 512, 0)).save(folder / "one.png")
    alone, whole = [], []
    for number in range(args.rounds):
        alone.append(child_seconds([sys.executable, "-c", "import torch"]))
        out = str(folder / f"{number}.ome.zarr")
        whole.append(child_seconds([*COMMAND, "predict", str(folder / "one.png"), "--model", args.model, "--out", out]))
    print(
        f"import torch {min(alone):.2f} s, predict {min(whole):.2f} s of the processor, "
        f"{min(whole) / min(alone):.2f} times; all {', '.join(f'{w:.2f}' for w in whole)}"
    )


def timed(work: Callable[[], object]) -> np.ndarray:
    """Processor seconds and seconds of some work."""
    began = time.process_time(), time.perf_counter()
    work()
    return np.array([time.process_time() - began[0], time.perf_counter() - began[1]])


def batch(folder: Path, args: argparse.Namespace) -> None:
    from PIL import Image

    from napari_unet.process.memory import keep_freed, patient

    keep_freed()  # as the shell does
    os.environ.update(patient())
    import torch

    from napari_unet import load_model, open_stack, run_batch, wait
    from napari_unet.cards import locate
    from napari_unet.inference.prepare import prepare

    size = args.size or 256
    (folder / "images").mkdir()
    for number in range(args.images):
        Image.fromarray(nuclei(size, number)).save(folder / "images" / f"{number:04d}.png")
    model = load_model(locate(args.model))
    wait(run_batch(folder / "images" / "0000.png", model, folder / "first"))
    job = prepare(open_stack(folder / "images" / "0000.png"), model).measured().job()
    route = job.route()
    ready = [(piece, route.read(piece)) for piece in route.pieces(range(len(job.grid)))]

    def network() -> None:
        for _ in range(args.images):
            for piece in ready:
                route.compute(*piece)

    took = timed(lambda: wait(run_batch(folder / "images", model, folder / "out")))
    alone = min((timed(network) for _ in range(args.rounds)), key=lambda each: float(each[0]))
    print(
        f"{args.images} images of {size} x {size}, {torch.get_num_threads()} threads: "
        f"{args.images / took[1]:.1f} a second"
    )
    for name, run, net in zip(("processor", "clock"), took / args.images, alone / args.images, strict=True):
        print(
            f"  {name}: {1000 * run:.0f} ms an image, its network {1000 * net:.0f}, "
            f"{run / net:.2f} times, beside it {1000 * (run - net):.0f} ms"
        )


def cellpose() -> Callable[[np.ndarray], object]:
    import torch
    from cellpose import models

    torch.manual_seed(0)
    model = models.CellposeModel(gpu=False, pretrained_model=False, diam_mean=30.0)
    return lambda image: model.eval(image, channels=[0, 0], diameter=30.0)


def stardist() -> Callable[[np.ndarray], object]:
    from stardist.models import Config2D, StarDist2D

    config = Config2D(n_channel_in=1, n_rays=32, grid=(2, 2))  # as its models of nuclei have it
    model = StarDist2D(config, name=None, basedir=None)
    return lambda image: model.predict_instances(image / np.float32(255), prob_thresh=1.0, nms_thresh=0.4)


PEERS = {"cellpose": cellpose, "stardist": stardist}


def peer(name: str, size: int, images: int) -> None:
    """Run one of them on some images after a first one; print processor seconds an image."""
    run, ready = PEERS[name](), [nuclei(size, number) for number in range(images)]
    run(ready[0])
    print(timed(lambda: [run(image) for image in ready])[0] / images)


def peers(folder: Path, args: argparse.Namespace) -> None:
    size, given = args.size or 256, {"cellpose": args.cellpose, "stardist": args.stardist}
    batches: dict[str, list[str]] = {"ours": [sys.executable, __file__, "batch", "--rounds", "1"]}
    batches |= {name: [python, __file__, "peer", "--peer", name] for name, python in given.items() if python}
    found: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(args.rounds):
        for name, command in batches.items():
            images = min(args.images, SLOW) if name == "cellpose" else args.images
            said = subprocess.run(
                [*command, "--size", str(size), "--images", str(images)], check=True, capture_output=True, text=True
            ).stdout
            found[name].append(
                float(said.split("processor:")[1].split()[0]) / 1000 if name == "ours" else float(said.split()[-1])
            )
    for name, seconds in found.items():
        print(
            f"{name}: {1 / min(seconds):.2f} images of {size} x {size} a processor second, "
            f"ms an image in each round: {', '.join(f'{1000 * s:.0f}' for s in seconds)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=("one", "batch", "peers", "peer"))
    parser.add_argument("--model", default="nuclei-2d", help="2-D, of one channel")
    parser.add_argument("--size", type=int, help="edge of an image: 512 for one, 256 for a batch")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cellpose", help="Python that has it")
    parser.add_argument("--stardist", help="Python that has it")
    parser.add_argument("--peer", choices=list(PEERS), default="stardist", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.question == "peer":
        peer(args.peer, args.size, args.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        {"one": one, "batch": batch, "peers": peers}[args.question](Path(folder), args)


if __name__ == "__main__":
    main()
