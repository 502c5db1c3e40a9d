"""Speed beside peers: the same weights and volume, every method in a process of its own, interleaved in one run.

``python benchmarks/peers.py --shape 256 512 512 --rounds 2`` (``pip install monai nnunetv2 torch-em`` beside
this package; a peer that is not installed is left out). Every method gets the image in memory and ends with labels.
Ratios are of processor seconds, which others on the machine change least (with ``OMP_NUM_THREADS=1``: threads that wait
for each other use some too), GF/s of seconds. ``--check`` compares, on a volume that fits memory at once, with the
result of the network on all of it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from napari_unet.arrays.stack import Stack
from napari_unet.inference.config import PredictConfig
from napari_unet.inference.prepare import prepare
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.network import UNet, UNetConfig
from napari_unet.process.memory import keep_freed
from napari_unet.task import Semantic

NETS = {
    2: UNetConfig(ndim=2, depth=4, base_features=32, max_features=512),
    3: UNetConfig(ndim=3, depth=3, base_features=16, max_features=128),
}
WINDOW = {2: (512, 512), 3: (64, 128, 128)}
HALO = {2: (512, 64), 3: (96, 16)}  # block and halo, as torch-em suggests
FLOPS = {2: 367e3, 3: 107e3}


def network(ndim: int) -> UNet:
    """Random weights, with running statistics as after a training."""
    torch.manual_seed(0)
    net = UNet(NETS[ndim])
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(2, 1, *(64,) * ndim))
    return net.eval()


def image(shape: tuple[int, ...]) -> np.ndarray:
    """Normalised already, so that every method does the network's work alone."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def ours(net: UNet, data: np.ndarray, precision: str) -> np.ndarray:
    keep_freed()
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    model = Model(net.config, state, Semantic.of(range(2)), Normalisation(), axes="zyx"[-data.ndim :])
    config = PredictConfig(precision=precision, device="cpu", overview=False)
    job = prepare(Stack(data=data, axes=model.axes), model, config).job()  # nothing is measured: offset 0, scale 1
    route, found = job.route(), np.empty(data.shape, np.uint8)
    for piece in route.pieces(range(len(job.grid))):
        for _, regions in route.decode(piece, route.compute(piece, route.read(piece))):
            box, values = next(iter(regions.values()))
            found[box] = values
    return found


def whole(net: UNet, data: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return labels(net(tensor(data)))


def tensor(data: np.ndarray) -> Tensor:
    return torch.from_numpy(data)[None, None]


def labels(logits: Tensor) -> np.ndarray:
    return logits[0].argmax(0).to(torch.uint8).numpy()


def monai(net: UNet, data: np.ndarray, overlap: float, bf16: bool) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = sliding_window_inference(tensor(data), WINDOW[data.ndim], 1, net, overlap=overlap, mode="gaussian")
    return labels(out)


def nnunet(net: UNet, data: np.ndarray) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
        device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    predictor.network = net
    predictor.configuration_manager = SimpleNamespace(patch_size=WINDOW[data.ndim])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
    planes = data if data.ndim == 3 else data[None]
    with torch.inference_mode():
        return labels(predictor.predict_sliding_window_return_logits(torch.from_numpy(planes[None]))[None]).squeeze()


def torch_em(net: UNet, data: np.ndarray) -> np.ndarray:
    from torch_em.util.prediction import predict_with_halo

    size, halo = HALO[data.ndim]
    out = np.empty((net.config.out_channels, *data.shape), np.float32)
    predict_with_halo(
        data, net, ["cpu"], (size,) * data.ndim, (halo,) * data.ndim, output=out, preprocess=None, disable_tqdm=True
    )
    return out.argmax(0).astype(np.uint8)


def map_overlap(net: UNet, data: np.ndarray) -> np.ndarray:
    """dask's own way, exact: blocks of the window's size and the whole halo around each."""
    import dask
    import dask.array as da

    halo = {2: 112, 3: 56}[data.ndim]

    def run(block: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return labels(net(tensor(np.ascontiguousarray(block))))

    size = tuple(max(n, 2 * halo) // 16 * 16 for n in WINDOW[data.ndim])
    lazy = da.from_array(data, chunks=size).map_overlap(
        run, depth=halo, boundary="none", dtype=np.uint8, meta=np.empty((0,) * data.ndim, np.uint8)
    )
    with dask.config.set(scheduler="synchronous"):
        return np.asarray(lazy)


METHODS: dict[str, Callable[[UNet, np.ndarray], np.ndarray]] = {
    "ours, bf16": lambda net, data: ours(net, data, "bf16"),
    "ours, fp32": lambda net, data: ours(net, data, "fp32"),
    "MONAI 0.25, fp32": lambda net, data: monai(net, data, 0.25, False),
    "MONAI 0.25, bf16": lambda net, data: monai(net, data, 0.25, True),
    "MONAI 0.5, fp32": lambda net, data: monai(net, data, 0.5, False),
    "nnU-Net 0.5, fp32": nnunet,
    "torch-em halo, fp32": torch_em,
    "dask map_overlap, fp32": map_overlap,
}


def measure(name: str, shape: tuple[int, ...]) -> None:
    """Run one method in this process; print seconds, processor seconds and peak memory."""
    net, data = network(len(shape)), image(shape)
    METHODS[name](net, data[tuple(slice(0, n) for n in WINDOW[len(shape)])])
    began, used = time.perf_counter(), time.process_time()
    METHODS[name](net, data)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "used": used, "peak": peak}))


def measured(name: str, shape: tuple[int, ...]) -> dict[str, float] | None:
    command = [sys.executable, "-W", "ignore", __file__, "--only", name, "--shape", *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "nnUNet_raw": "."}, check=False)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        print(f"{name}: {(done.stderr.splitlines() or ['nothing was said'])[-1]}", file=sys.stderr)
        return None


def compare(shape: tuple[int, ...], rounds: int, only: list[str]) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in only or METHODS}
    for _ in range(rounds):
        for name, runs in found.items():
            one = measured(name, shape)
            if one is not None:
                runs.append(one)
                print(
                    f"{name}: {one['seconds']:.1f} s, of the processor {one['used']:.1f}", file=sys.stderr, flush=True
                )
    work = FLOPS[len(shape)] * np.prod(shape, dtype=float) / 1e9
    fast = {p: min(r["used"] for r in found[f"ours, {p}"]) for p in ("bf16", "fp32") if found.get(f"ours, {p}")}
    head = [f"x ours {p}" for p in fast]
    print(
        f"| {' x '.join(map(str, shape))} | s (median) | spread | processor s | {' | '.join(head)} | GF/s | peak GiB |"
    )
    print("|---" * (6 + len(head)) + "|")
    for name, all_ in found.items():
        if not all_:
            continue
        times = [r["seconds"] for r in all_]
        middle, used = statistics.median(times), min(r["used"] for r in all_)
        ratios = " | ".join(f"{used / f:.2f}" for f in fast.values())
        peak = max(r["peak"] for r in all_)
        spread = f"{min(times):.1f}-{max(times):.1f}"
        print(f"| {name} | {middle:.1f} | {spread} | {used:.1f} | {ratios} | {work / middle:.0f} | {peak:.1f} |")


def check(shape: tuple[int, ...]) -> None:
    """Labels that differ from those of the network on the whole volume at once."""
    net, data = network(len(shape)), image(shape)
    want = whole(net, data)
    print(f"| {' x '.join(map(str, shape))} | labels that differ from the whole |\n|---|---|")
    for name, method in METHODS.items():
        try:
            differ = (method(net, data) != want).mean()
        except Exception as error:  # noqa: BLE001 - a peer that is not installed, or not well
            print(f"{name}: {error!r}", file=sys.stderr)
            continue
        print(f"| {name} | {100 * differ:.4f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs="+", default=[256, 512, 512])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--only")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.only:
        measure(given.only, tuple(given.shape))
    elif given.check:
        check(tuple(given.shape))
    else:
        compare(tuple(given.shape), given.rounds, given.methods)


if __name__ == "__main__":
    main()
