"""Objects from classes beside other ways: ``python benchmarks/objects.py [--shape 256 1024 1024] [--cell 8]``.

A volume of little cubes, one every CELL voxels with a wall of two between them, read from memory and written to memory.
Each way in a process of its own: seconds by the clock and of the processor, objects, and peak memory beyond the volume
and its labels. Only the first merges blocks, fills holes, drops small objects, grows and measures; the others find
components of the whole at once (dask-image by blocks of 128). What is not installed is left out. All keep the memory
that they free, as the shell and the window's processes do.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_unet.process.memory import keep_freed

BLOCK = 128
WAYS = ("ours", "scikit-image", "scipy", "dask-image")


def volume(shape: list[int], cell: int) -> np.ndarray:
    """Return classes: 1 in cubes, 0 between."""
    inside = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        at = np.arange(n) % cell
        inside &= np.expand_dims((at > 0) & (at < cell - 1), [i for i in range(len(shape)) if i != axis])
    return inside.astype(np.uint8)


def found(way: str, classes: np.ndarray) -> int:
    if way == "ours":
        from napari_unet.events import wait
        from napari_unet.objects import ObjectConfig, ObjectGrid, decode

        labels = np.zeros(classes.shape, np.uint32)

        def write(number: int, box: tuple[slice, ...], part: np.ndarray) -> None:
            labels[box] = part

        grid = ObjectGrid(classes.shape, (BLOCK,) * 3, "zyx")
        with tempfile.TemporaryDirectory() as folder:
            config = ObjectConfig(min_size=5, fill_holes=20)
            return len(wait(decode(lambda box: classes[box], grid, write, Path(folder) / "scratch", config)))
    if way == "scikit-image":
        from skimage.measure import label

        return int(label(classes == 1, connectivity=1).max())
    if way == "scipy":
        from scipy import ndimage

        return int(ndimage.label(classes == 1)[1])
    import dask.array as da
    from dask_image.ndmeasure import label as lazy_label

    labels, count = lazy_label(da.from_array(classes == 1, chunks=BLOCK))
    labels.compute(scheduler="threads")
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 1024, 1024])
    parser.add_argument("--cell", type=int, default=8)
    parser.add_argument("--only", choices=WAYS)
    args = parser.parse_args()
    if args.only:
        keep_freed()
        classes = volume(args.shape, args.cell)
        before, began, used = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            time.perf_counter(),
            time.process_time(),
        )
        count = found(args.only, classes)
        spent = time.perf_counter() - began, time.process_time() - used
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - 4 * classes.nbytes / 2**20
        print(json.dumps({"objects": count, "s": spent[0], "cpu": spent[1], "more": more}))
        return
    about = " x ".join(map(str, args.shape))
    print(f"| {about} | objects | s | processor s | MiB beyond the labels |\n|---|---|---|---|---|")
    for way in WAYS:
        size = [*map(str, args.shape)]
        command = [sys.executable, __file__, "--only", way, "--cell", str(args.cell), "--shape", *size]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {way} | left out: {done.stderr.strip().splitlines()[-1]} | | | |")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"| {way} | {row['objects']} | {row['s']:.1f} | {row['cpu']:.1f} | {row['more']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
