"""Random kills and mutated inputs, counted: ``python benchmarks/campaign.py --kills 200 --mutations 2000``.

Each kill (SIGKILL) comes at a random time of the real command, which is run again to its end; every file of the result,
or the weights of the model, are held against those of a run that nobody disturbed. Each mutation is a model, a store or
a TIFF with bytes changed, cut or doubled, given to the real command: it must end with one of its exit codes, and no
traceback.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import zarr
from kills import files, same
from memory import models

SHELL = (sys.executable, "-c", "from napari_unet.cli import main; main()")
CODES = {0, 2, 3, 4, 5, 6, 7}
LONGEST = 120.0  # seconds that a command on inputs of this size may take: longer is counted as hanging
FIXED = ("--device", "cpu")


def command(*words: object) -> list[str]:
    return [*SHELL, *map(str, words)]


def killed_and_run_again(start: Sequence[str], again: Sequence[str], longest: float, draw: random.Random) -> int:
    """Kill a command at a random time, then run it to its end; return its exit code."""
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(draw.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
    if process.returncode == 0:
        return 0
    return subprocess.run(again, capture_output=True, check=False, timeout=LONGEST).returncode


def kills_of_predict(folder: Path, count: int, draw: random.Random) -> str:
    options = ("--model", folder / "model", "--precision", "fp32", "--block", 16, 64, 64, *FIXED, "--out")
    began = time.monotonic()
    subprocess.run(command("predict", folder / "image.zarr", *options, folder / "whole.ome.zarr"), check=True)
    longest, expected = time.monotonic() - began, files(folder / "whole.ome.zarr")
    wrong = []
    for i in range(count):
        out = folder / f"kill-{i}.ome.zarr"
        line = command("predict", folder / "image.zarr", *options, out)
        code = killed_and_run_again(line, line, longest, draw)
        found = same(files(out), expected)
        if code or ", 0 differ" not in found:
            wrong.append(f"exit code {code}, {found}")
        shutil.rmtree(out)
    return f"predict: {count} kills, {len(wrong)} ended otherwise {wrong[:3] or ''}"


def weights(model: Path) -> str:
    (path,) = model.glob("*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kills_of_train(folder: Path, count: int, draw: random.Random) -> str:
    small = ("--steps", 30, "--depth", 1, "--base-features", 4, "--patch", 32, 32, "--batch", 2, *FIXED)
    data = ("--images", folder / "raw", "--labels", folder / "painted", *small, "--out")
    began = time.monotonic()
    subprocess.run(command("train", *data, folder / "whole.model"), check=True, stdout=subprocess.DEVNULL)
    longest, expected = time.monotonic() - began, weights(folder / "whole.model")
    wrong = []
    for i in range(count):
        out = folder / f"kill-{i}.model"
        line = command("train", *data, out)
        code = killed_and_run_again(line, [*line, "--resume"], longest, draw)
        if code and not out.exists():  # killed before there was anything to go on with
            code = subprocess.run(line, capture_output=True, check=False, timeout=LONGEST).returncode
        if code or weights(out) != expected:
            wrong.append(f"exit code {code}")
    return f"train: {count} kills, {len(wrong)} ended otherwise {wrong[:3] or ''}"


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Change, cut, double or empty some bytes."""
    at, found = draw.randrange(len(data) or 1), bytearray(data)
    kind = draw.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at // 2 :]
    for _ in range((1, 8, 64)[kind - 2]):
        if found:
            found[draw.randrange(len(found))] = draw.randrange(256)
    return bytes(found)


def mutations(folder: Path, count: int, draw: random.Random) -> str:
    codes: Counter[int] = Counter()
    wrong = []
    tables = {"image.zarr": "zarr", "model": "model", "raw/a.tif": "tif"}
    for i in range(count):
        name = draw.choice(list(tables))
        given = folder / f"mutated-{i}.{tables[name]}"
        whole = folder / name
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, given)
        chosen = draw.choice(sorted(p for p in given.rglob("*") if p.is_file())) if given.is_dir() else given
        chosen.write_bytes(mutated(chosen.read_bytes(), draw))
        image, model = (folder / "image.zarr", given) if name == "model" else (given, folder / "model")
        if name == "raw/a.tif":
            line = command("info", image)
        else:
            line = command("predict", image, "--model", model, "--out", folder / f"out-{i}.ome.zarr", *FIXED)
        try:
            ended = subprocess.run(line, capture_output=True, text=True, check=False, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            wrong.append(f"{chosen.relative_to(folder)} hangs")
            continue
        codes[ended.returncode] += 1
        if ended.returncode not in CODES or "Traceback" in ended.stderr:
            wrong.append(f"{chosen.relative_to(folder)}: {ended.returncode} {ended.stderr.splitlines()[-1:]}")
    listed = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
    return f"mutations: {count}, exit codes {listed}; {len(wrong)} ended otherwise {wrong[:5] or ''}"


def make_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4000, (64, 128, 128)).astype(np.uint16)
    zarr.create_array(folder / "image.zarr", data=data, chunks=(32, 64, 64), dimension_names=["z", "y", "x"])
    models(cascade=False)[0].save(folder / "model")
    labels = np.zeros((96, 96), np.uint8)
    labels[10:40, 10:40] = labels[50:80, 30:90] = 1
    for name, pixels in (
        ("raw", labels * 99 + rng.integers(0, 20, labels.shape).astype(np.uint8)),
        ("painted", labels),
    ):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "a.tif", pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        make_inputs(Path(name))
        for work, count in (
            (mutations, args.mutations),
            (kills_of_predict, args.kills),
            (kills_of_train, args.trainings),
        ):
            if count:
                print(work(Path(name), count, draw), flush=True)


if __name__ == "__main__":
    main()
