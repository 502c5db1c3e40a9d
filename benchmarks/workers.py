"""How a cluster's speed grows with its workers: ``python benchmarks/workers.py [--workers 1 2] [--shape 128 256 256]``.

The same run on dask clusters of so many workers of one thread each, on this machine, interleaved, and in one thread
without a cluster: seconds from zarr to checked OME-Zarr labels, and how many times as fast as one worker. The processes
are started before the time is taken, and have loaded the network.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import distributed
import numpy as np
import torch
import zarr
from peers import network

from napari_unet import Model, PredictConfig, open_stack, predict, wait
from napari_unet.intensities.normalise import Normalisation
from napari_unet.task import Semantic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 256])
    parser.add_argument("--block", type=int, nargs=3, default=[64, 128, 128])
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = network(3)
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    model = Model(net.config, weights, Semantic.of((0, 1)), Normalisation(), axes="zyx")
    data = np.random.default_rng(0).integers(0, 4000, args.shape).astype(np.uint16)
    times: dict[int, list[float]] = {count: [] for count in (0, *args.workers)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zarr.create_array(folder / "image.zarr", data=data, chunks=(64, 64, 64), dimension_names=["z", "y", "x"])
        zarr.create_array(folder / "first.zarr", data=data[:64, :64, :64], dimension_names=["z", "y", "x"])
        for round_ in range(args.rounds):
            for count, taken in times.items():
                taken.append(seconds(folder, model, count, tuple(args.block), f"{round_}-{count}"))
    first = statistics.median(times[args.workers[0]])
    print("| workers of one thread | s | times as fast |\n|---|---|---|")
    for count, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {count or 'none, one thread here'} | {middle:.1f} | {first / middle:.2f} |")


def seconds(folder: Path, model: Model, count: int, block: tuple[int, ...], name: str) -> float:
    """Time of a run on so many workers; without a cluster where there are none."""
    if not count:
        return timed(folder, model, PredictConfig(device="cpu", block=block), name)
    with distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster:
        config = PredictConfig(device="cpu", block=block, scheduler=cluster.scheduler_address, allow_tcp=True)
        wait(predict(open_stack(folder / "first.zarr"), model, folder / f"first-{name}.ome.zarr", config))
        return timed(folder, model, config, name)


def timed(folder: Path, model: Model, config: PredictConfig, name: str) -> float:
    began = time.perf_counter()
    wait(predict(open_stack(folder / "image.zarr"), model, folder / f"{name}.ome.zarr", config))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
