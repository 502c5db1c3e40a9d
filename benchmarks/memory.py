"""Peak memory of a prediction as the volume grows: ``python benchmarks/memory.py [--gib 2 8] [--sparse] [--cascade]``.

Each size runs in a process of its own on a zarr of noise in chunks of 64x256x256 float32, with a small 3-D network, and
reports the peak resident memory of that process, the wall time and the voxels a second. With ``--cascade`` three
networks run one into the other: restoration, twice as fine in y and x, classes. With ``--samples`` a network of two
convolutions draws a sample in two steps, as uint8: none of its blocks is empty, so all of a sparse volume is computed.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def make_volume(path: Path, gib: float, width: int, sparse: bool) -> None:
    """Write a zarr of that size, all chunks alike; if sparse one slab of chunks in 64, and nothing else."""
    import zarr

    planes = max(64, round(gib * 2**30 / 4 / width**2 / 64) * 64)
    array = zarr.create_array(
        path, shape=(planes, width, width), dtype="f4", chunks=(64, 256, 256), dimension_names=["z", "y", "x"]
    )
    rng = np.random.default_rng(0)
    chunk = np.round(rng.normal(100, 20, (64, 256, 256))).astype(np.float32)
    for z in range(0, planes, 64 * 64 if sparse else 64):
        for y, x in itertools.product(range(0, width, 256), repeat=2):  # this process must stay smaller than the run
            array[z : z + 64, y : y + 256, x : x + 256] = chunk[:, : width - y, : width - x]


def models(kind: str) -> list[Any]:
    """Return networks with weights drawn at random."""
    import torch

    from napari_unet import Model, UNet, UNetConfig
    from napari_unet.intensities.normalise import Normalisation
    from napari_unet.task import Diffuse, Restore, Semantic, SuperResolve

    def drawn(task: Any, normalisation: Any, **config: Any) -> Any:
        network = UNetConfig(ndim=3, **({"base_features": 4} | config))
        torch.manual_seed(0)
        weights = {name: value.numpy() for name, value in UNet(network).state_dict().items()}
        return Model(network, weights, task, normalisation, "zyx")

    classes = drawn(Semantic.of((0, 1)), Normalisation(), depth=2)
    if kind == "one":
        return [classes]
    images = {"channels": ("light",), "offset": (100.0,), "scale": (20.0,)}
    fixed = Normalisation("fixed", offset=(100.0,), scale=(20.0,))
    if kind == "samples":
        small = {"depth": 0, "base_features": 2, "in_channels": 2, "out_channels": 1}
        return [drawn(Diffuse(**images, dtype_name="uint8"), fixed, **small, timed=True)]
    return [
        drawn(Restore(**images), fixed, depth=1, out_channels=1, residual=True),
        drawn(SuperResolve(**images), fixed, depth=1, out_channels=1, residual=True, upscale=(1, 2, 2)),
        classes,
    ]


def run(volume: Path, out: Path, kind: str) -> None:
    """Predict, and print what it took as JSON."""
    from napari_unet import PredictConfig, open_stack, predict, wait

    chosen = models(kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    stack = open_stack(volume)
    wait(predict(stack, chosen, out, PredictConfig(device="cpu", memory=1.0, steps=2 if kind == "samples" else None)))
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    voxels = float(np.prod(stack.shape))
    found = {"peak_mib": peak / 1024, "before_mib": before / 1024, "seconds": seconds, "voxels_s": voxels / seconds}
    print(json.dumps(found))


def main() -> None:
    """Run every size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--width", type=int, default=1024, help="of the volumes, in y and x")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--sparse", action="store_true", help="volumes that are mostly empty")
    parser.add_argument("--cascade", action="store_true", help="three networks, one into the other")
    parser.add_argument("--samples", action="store_true", help="a network that draws a sample in two steps")
    parser.add_argument("--run", type=Path, nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(*args.run, "cascade" if args.cascade else "samples" if args.samples else "one")
        return
    print(f"{'GiB':>6} {'peak MiB':>9} {'before':>7} {'seconds':>8} {'Mvoxel/s':>9}")
    for gib in args.gib:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            volume = Path(folder) / "volume.zarr"
            make_volume(volume, gib, args.width, args.sparse)
            command = [sys.executable, __file__, "--run", str(volume), str(Path(folder) / "out.ome.zarr")]
            command += ["--cascade"] * args.cascade + ["--samples"] * args.samples
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{gib:6.1f} {found['peak_mib']:9.0f} {found['before_mib']:7.0f} {found['seconds']:8.0f} "
                f"{found['voxels_s'] / 1e6:9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
