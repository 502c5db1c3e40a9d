"""What a codec costs and saves: ``python benchmarks/codecs.py IMAGE [IMAGE ...]``.

Each image, or labels, whole in one thread: size as a part of the raw one, and MB of raw data a CPU second, compressed
and back; the best of five.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numcodecs import Blosc, Zstd, blosc

from napari_unet import open_stack

CODECS: dict[str, Any] = {f"zstd {level}": Zstd(level, checksum=True) for level in (1, 2, 3)} | {
    "blosc zstd 1, bytes": Blosc("zstd", 1, Blosc.SHUFFLE),
    "blosc lz4, bits": Blosc("lz4", 5, Blosc.BITSHUFFLE),
}


def rate(size: int, work: Callable[[Any], object], data: Any) -> float:
    taken = []
    for _ in range(5):
        began = time.process_time()
        work(data)
        taken.append(time.process_time() - began)
    return size / max(min(taken), 1e-6) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--axes", help="where a file does not say")
    args = parser.parse_args()
    blosc.use_threads = False
    print("| image | codec | size | MB/s, compressed | MB/s, back |\n|---|---|---|---|---|")
    for path in args.images:
        stack = open_stack(path, args.axes)
        data = np.ascontiguousarray(stack.data[...])
        for name, codec in CODECS.items():
            small = codec.encode(data)
            there, back = rate(data.nbytes, codec.encode, data), rate(data.nbytes, codec.decode, small)
            part = len(small) / data.nbytes
            print(f"| {stack.name} {data.dtype} | {name} | {part:.4f} | {there:.0f} | {back:.0f} |", flush=True)


if __name__ == "__main__":
    main()
