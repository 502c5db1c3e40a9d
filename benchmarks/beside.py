"""What a run costs beside its network: ``python benchmarks/beside.py [--shape 256 512 512] [--sleep 30] [--image F]``.

A run from a zarr of 16-bit integers to OME-Zarr labels, reading, writing, checking and pyramids included, whose network
does nothing: it gives the same logits for each slab. Labels alone, and with the image copied beside them; each round in
a process of its own: nanoseconds of processor time and of wall time a voxel, and peak memory. With ``--sleep`` the
network sleeps so many nanoseconds a voxel, as one does that computes on an accelerator: the whole run over the sleep.
The image is noise, which hardly compresses, or F, mirrored at its ends until it has the shape.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from torch.nn import functional
from wall import pixels

from napari_unet import Model, PredictConfig, open_stack, predict, wait
from napari_unet.inference import engine
from napari_unet.intensities.normalise import Normalisation
from napari_unet.network import UNet, UNetConfig
from napari_unet.process.memory import keep_freed
from napari_unet.task import Semantic


class Idle:
    """A stream that computes nothing: blobs of two classes, the same for each slab."""

    given: tuple[Any, Tensor] | None = None
    sleep = 0.0  # seconds a voxel
    slept = 0.0

    def __init__(self, net: Any) -> None:
        self._dtype = net.head.weight.dtype

    def push(self, slab: Tensor, last: bool = False) -> Tensor:
        began = time.perf_counter()
        shape = (slab.shape[0], 2, *slab.shape[2:])
        if Idle.given is None or Idle.given[0] != shape:
            coarse = torch.randn(
                (1, 2, *(max(2, n // 16) for n in shape[2:])), generator=torch.Generator().manual_seed(0)
            )
            fine = functional.interpolate(coarse, shape[2:], mode="trilinear" if len(shape) == 5 else "bilinear")
            layout: Any = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
            Idle.given = shape, fine.expand(shape).to(self._dtype).contiguous(memory_format=layout)
        if self.sleep:
            seconds = self.sleep * slab.numel() / slab.shape[1]
            time.sleep(max(0.0, seconds - (time.perf_counter() - began)))
            Idle.slept += seconds
        return Idle.given[1]


def run(path: Path, axes: str, copied: bool, sleep: float) -> dict[str, float]:
    """Run once; return seconds of processor and wall, those of the sleep, and the peak in MiB."""
    keep_freed()
    engine.Stream = Idle  # type: ignore[assignment, misc]
    Idle.sleep = sleep * 1e-9
    torch.manual_seed(0)
    net = UNet(UNetConfig(ndim=len(axes), depth=3, base_features=16)).eval()
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    model = Model(net.config, state, Semantic.of(range(2)), Normalisation(), axes=axes)
    config = PredictConfig(precision="bf16", device="cpu", overview=copied)
    small = path.with_name("small.zarr")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wait(predict(open_stack(small), model, Path(folder) / "warm.ome.zarr", config))  # what is imported on the way
        Idle.slept = 0.0
        before = time.perf_counter(), time.process_time()
        wait(predict(open_stack(path), model, Path(folder) / "out.ome.zarr", config))
        wall, busy = time.perf_counter() - before[0], time.process_time() - before[1]
    status = Path("/proc/self/status").read_text()  # of getrusage, the peak is at least that of the parent
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return {"wall": wall, "busy": busy, "slept": Idle.slept, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[256, 512, 512])
    parser.add_argument("--image", type=Path, help="of 16 bit, with the axes of the shape")
    parser.add_argument("--sleep", type=float, default=0.0, help="of the network, in nanoseconds a voxel")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    axes = "zyx"[-len(args.shape) :]
    if args.only:
        print(json.dumps(run(Path(args.only[0]), axes, args.only[1] == "copied", args.sleep)))
        return
    voxels = int(np.prod(args.shape))
    found: dict[str, list[dict[str, float]]] = {"alone": [], "copied": []}
    with tempfile.TemporaryDirectory() as folder:
        chunks = tuple(min(n, 128 if len(args.shape) == 3 else 1024) for n in args.shape)
        data = pixels(args.shape, args.image, axes)
        zarr.create_array(Path(folder) / "image.zarr", data=data, chunks=chunks, dimension_names=list(axes))
        corner = np.ascontiguousarray(data[tuple(slice(0, 64) for _ in axes)])
        zarr.create_array(Path(folder) / "small.zarr", data=corner, dimension_names=list(axes))
        del data, corner
        same = ["--shape", *map(str, args.shape)]
        for _ in range(args.rounds):
            for kind, rounds in found.items():
                command = [sys.executable, __file__, *same, "--sleep", str(args.sleep)]
                command += ["--only", str(Path(folder) / "image.zarr"), kind]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rounds.append(json.loads(said.splitlines()[-1]))
    print(f"{' x '.join(map(str, args.shape))}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    for kind, rounds in found.items():
        busy, wall = (min(each[name] for each in rounds) / voxels * 1e9 for name in ("busy", "wall"))
        peak = statistics.median(each["peak"] for each in rounds)
        over = min(each["wall"] / each["slept"] for each in rounds) if args.sleep else 0.0
        slept = f"; {over:.2f} times the sleep" if args.sleep else ""
        name = "labels alone" if kind == "alone" else "with the image copied"
        print(f"{name}: {busy:.1f} ns of processor time a voxel, {wall:.1f} ns of wall{slept}; peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
