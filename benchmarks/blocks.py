"""What a block costs beside its network: ``python benchmarks/blocks.py [--blocks 1000 10000 ...] [--workers 2]``.

A run whose network does nothing, through the pipeline, journal and cluster of any other: milliseconds a block
and memory beyond that of the smallest run, each size in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import zarr

from napari_unet import PredictConfig, open_stack
from napari_unet.inference.cluster import connected, run_on
from napari_unet.inference.job import Job
from napari_unet.inference.prepare import prepare
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.network import UNet, UNetConfig
from napari_unet.task import Semantic


class Nothing:
    """A way through the blocks on which nothing is done."""

    def build(self) -> None:
        return None

    def pieces(self, pending: Collection[int], near: Any = None) -> Iterator[int]:
        return iter(pending)

    def read(self, number: int) -> None:
        return None

    def compute(self, number: int, got: None) -> None:
        return None

    def decode(self, number: int, got: None) -> list[tuple[int, dict[str, Any]]]:
        return [(number, {})]


class Idle(Job):
    """A run that does nothing with its blocks but record them."""

    def route(self) -> Any:
        return Nothing()


def run(blocks: int, workers: int, folder: Path) -> dict[str, float]:
    side = round(blocks ** (1 / 3))
    zarr.create_array(folder / "a.zarr", shape=(side * 4,) * 3, dtype="u1", chunks=(64,) * 3, dimension_names="zyx")
    config = UNetConfig(ndim=3, depth=1, base_features=8, norm="instance")
    weights = {name: value.numpy() for name, value in UNet(config).state_dict().items()}
    model = Model(config, weights, Semantic.of((0, 1)), Normalisation(), "zyx")
    wanted = PredictConfig(device="cpu", precision="fp32", block=(4, 4, 4), overview=False)
    job = prepare(open_stack(folder / "a.zarr"), model, wanted).measured().job()
    job = Idle(job.grid, job.layout, job.decoder)
    with job.create(folder / "out.ome.zarr", wanted) as store:
        began = time.perf_counter()
        if workers:
            import distributed

            with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
                began = time.perf_counter()
                with connected(cluster.scheduler_address, job) as client:
                    seen = sum(1 for _ in run_on(client, job, store))
        else:
            seen = sum(1 for _ in job.run(store))
        seconds = time.perf_counter() - began
        done = store.count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"blocks": done, "events": seen, "ms": 1000 * seconds / done, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--workers", type=int, default=0, help="of a cluster on this machine; 0 is no cluster")
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    if given.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(given.only, given.workers, Path(folder))))
        return
    print("| blocks | ms a block | MiB more |\n|---|---|---|")
    least = None
    for blocks in given.blocks:
        command = [sys.executable, __file__, "--only", str(blocks), "--workers", str(given.workers)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        least = least or found["peak"]
        print(f"| {found['blocks']} | {found['ms']:.3f} | {found['peak'] - least:.0f} |", flush=True)


if __name__ == "__main__":
    main()
