"""Whether a run that is killed and started again ends with the same bytes: ``python benchmarks/kills.py``.

A run in a process of its own is killed (SIGKILL) at 10, 50 and 90 % of its blocks and started again, on this machine
and on a dask cluster of two workers, of which two are killed too while it goes on. Every file of each result is held
against those of a run that nobody disturbed. With ``--samples`` results are the mean and deviation of two samples.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from memory import models

from napari_unet import PredictConfig, load_model, open_stack
from napari_unet.inference.preflight import preflight


def files(result: Path) -> dict[str, str]:
    """Every file but the record of the run, and its hash."""
    found = [path for path in result.rglob("*") if path.is_file() and ".napari_unet" not in path.parts]
    return {str(path.relative_to(result)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class Run:
    """A run of the shell command.

    Parameters
    ----------
    folder : Path
        Holds image and model.
    result : Path
    block : sequence of int
    drawing : mapping of str to int
        Steps and samples, where the model draws samples.
    more : sequence of str
        Further options of the command.
    """

    def __init__(
        self, folder: Path, result: Path, block: Sequence[int], drawing: Mapping[str, int], more: Sequence[str] = ()
    ) -> None:
        self.result = result
        self._image, self._model = folder / "image.zarr", folder / "model"
        self._config = PredictConfig(precision="fp32", block=tuple(block), **drawing)
        drawn = [part for name, value in drawing.items() for part in (f"--{name}", value)]
        options = ["--model", self._model, "--out", result, "--precision", "fp32", "--block", *block, *drawn, *more]
        self._command = [
            sys.executable,
            "-c",
            "from napari_unet.cli import main; main()",
            "predict",
            *map(str, [self._image, *options]),
        ]

    def done(self) -> float:
        """Return the part of the blocks that is done."""
        ahead = preflight(open_stack(self._image), load_model(self._model), self.result, self._config)
        return ahead.done / ahead.blocks

    def go_on(self, marks: Sequence[tuple[float, Any]] = ()) -> float:
        """Start the command and call each when that part of the blocks is done; return what is done at the end."""
        process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        for part, act in marks:
            while process.poll() is None and self.done() < part:
                time.sleep(0.02)
            if process.poll() is None:
                act(process)
        if process.wait() > 0:
            raise SystemExit(f"the run ended with exit code {process.returncode}")
        return self.done()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 256])
    parser.add_argument("--block", type=int, nargs=3, default=[16, 64, 64])
    parser.add_argument("--parts", type=float, nargs="+", default=[0.1, 0.5, 0.9], help="done when it is killed")
    parser.add_argument("--here", action="store_true", help="without the cluster")
    parser.add_argument("--samples", action="store_true", help="a network that draws samples")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = np.random.default_rng(0).integers(0, 4000, args.shape).astype(np.uint16)
        zarr.create_array(folder / "image.zarr", data=data, chunks=(64, 64, 64), dimension_names=["z", "y", "x"])
        models("samples" if args.samples else "one")[0].save(folder / "model")
        drawing = {"steps": 2, "samples": 2} if args.samples else {}
        whole = Run(folder, folder / "whole.ome.zarr", args.block, drawing)
        whole.go_on()
        expected = files(whole.result)
        for part in args.parts:
            run = Run(folder, folder / f"here-{part}.ome.zarr", args.block, drawing)
            stopped = run.go_on([(part, lambda process: process.kill())])
            run.go_on()
            print(f"here, killed at {stopped:.0%}: {same(files(run.result), expected)}", flush=True)
        if not args.here:
            on_cluster(folder, args.block, args.parts, expected, drawing)


def on_cluster(
    folder: Path, block: Sequence[int], parts: Sequence[float], expected: dict[str, str], drawing: Mapping[str, int]
) -> None:
    import distributed

    where = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tcp://"}
    with distributed.LocalCluster(**where) as cluster:
        more = ["--scheduler", cluster.scheduler_address, "--allow-tcp"]
        killed: list[int] = []

        def kill_worker(_: Any) -> None:
            living = [worker.pid for worker in cluster.workers.values() if worker.pid not in (None, *killed)]
            os.kill(living[0], signal.SIGKILL)
            killed.append(living[0])

        for part in parts:
            killed.clear()
            run = Run(folder, folder / f"cluster-{part}.ome.zarr", block, drawing, more)
            stopped = run.go_on([(part, lambda process: process.kill())])
            rest = 1 - stopped
            run.go_on([(stopped + rest / 4, kill_worker), (stopped + rest / 2, kill_worker)])
            print(
                f"cluster, killed at {stopped:.0%}, then {len(killed)} workers: {same(files(run.result), expected)}",
                flush=True,
            )


def same(found: dict[str, str], expected: dict[str, str]) -> str:
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"{len(expected)} files, {len(different)} differ" + (f": {', '.join(different[:3])}" if different else "")


if __name__ == "__main__":
    main()
