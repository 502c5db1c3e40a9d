"""How much of the machine a whole run uses: ``python benchmarks/wall.py [--shape 256 512 512] [--image FILE]``.

In one process, interleaved: the network alone, on the run's own slabs from memory; the run from a zarr of 16-bit
integers to OME-Zarr labels, reading, writing, checking and pyramids included, with a copy of the image beside the
labels as it is by default, and without; and the fastest of some convolutions. For each: wall time over the network's,
and useful arithmetic as a part of what those convolutions reach. The image is noise, which hardly compresses, or FILE,
mirrored at its ends until it has the shape.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr
from peers import FLOPS, network

from napari_unet import Model, PredictConfig, open_stack, predict, wait
from napari_unet.arrays.stack import Stack
from napari_unet.inference.job import Job
from napari_unet.inference.prepare import prepare
from napari_unet.intensities.normalise import Normalisation
from napari_unet.process.memory import keep_freed
from napari_unet.task import Semantic

CONVOLUTIONS = {
    2: [(32, 512, 512), (64, 256, 256), (128, 128, 128), (256, 64, 64)],
    3: [(16, 32, 128, 128), (32, 32, 64, 64), (64, 16, 64, 64), (128, 16, 32, 32)],
}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rate(ndim: int, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest convolution, its weights packed as for inference."""
    best = 0.0
    for channels, *shape in CONVOLUTIONS[ndim]:
        kind = torch.nn.Conv2d if ndim == 2 else torch.nn.Conv3d
        conv = kind(channels, channels, 3, padding=1).eval().to(dtype)
        layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
        x = torch.randn(1, channels, *shape, dtype=dtype).contiguous(memory_format=layout)
        conv = conv.to(memory_format=layout)
        with torch.inference_mode():
            conv(x)
            took = min(seconds(lambda: conv(x)) for _ in range(5))  # noqa: B023
        best = max(best, 2 * channels**2 * 3**ndim * np.prod(shape) / took)
    return best


def network_seconds(job: Job) -> float:
    """Time of the network on all slabs of a job, read beforehand."""
    route = job.route()
    pieces = [(piece, route.read(piece)) for piece in route.pieces(range(len(job.grid)))]
    return seconds(lambda: [route.decode(piece, route.compute(piece, got)) for piece, got in pieces])


def pixels(shape: list[int], image: Path | None, axes: str) -> np.ndarray:
    """Return what the runs read, of 16 bit."""
    if image is None:
        return np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    data = open_stack(image, axes).data[...]
    return np.pad(data, [(0, max(0, n - m)) for n, m in zip(shape, data.shape, strict=True)], "symmetric")[
        tuple(map(slice, shape))
    ].astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[256, 512, 512])
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--image", type=Path, help="of 16 bit, with the axes of the shape")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_freed()
    net = network(len(args.shape))
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    axes = "zyx"[-len(args.shape) :]
    model = Model(net.config, state, Semantic.of(range(2)), Normalisation(), axes=axes)
    data = pixels(args.shape, args.image, axes)
    configs = {
        copied: PredictConfig(precision=args.precision, device="cpu", overview=copied == "with the image copied")
        for copied in ("with the image copied", "labels alone")
    }
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    times: dict[str, list[tuple[float, float]]] = {copied: [] for copied in configs}
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.zarr"
        chunks = tuple(min(n, 128 if len(args.shape) == 3 else 1024) for n in args.shape)
        zarr.create_array(path, data=data, chunks=chunks, dimension_names=list(axes))
        for number in range(args.rounds):
            rates.append(rate(len(args.shape), dtype))
            for copied, config in configs.items():
                job = prepare(Stack(data=data, axes=axes), model, config).measured().job()
                if not any(times.values()):
                    network_seconds(job)  # memory that was never touched before is slower, for both
                alone = network_seconds(job)
                out = Path(folder) / f"{number}.ome.zarr"
                run = seconds(lambda: wait(predict(open_stack(path), model, out, config)))  # noqa: B023
                times[copied].append((alone, run))
                shutil.rmtree(out)
    useful = FLOPS[len(args.shape)] * data.size
    print(
        f"{' x '.join(map(str, args.shape))}, {args.precision}, {torch.get_num_threads()} threads, {args.rounds} rounds"
        f"; fastest convolution {max(rates) / 1e9:.0f} GFLOP/s"
    )
    for copied, pairs in times.items():
        alone, run = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(run / alone for alone, run in pairs)
        best = min(run for _, run in pairs)
        print(
            f"{copied}: network alone {alone:.2f} s, from zarr to labels {run:.2f} s, ratio {ratio:.3f}; useful "
            f"{useful / best / 1e9:.0f} GFLOP/s, {useful / best / max(rates):.2f} of the fastest convolution"
        )


if __name__ == "__main__":
    main()
