"""Random kills and mutated inputs, counted: ``python benchmarks/campaign.py --kills 200 --mutations 2000``.

Each kill (SIGKILL) comes at a random time of the command, which is run again to its end; every file of the result, or
the weights of the model, are held against those of a run that nobody disturbed. Kills that come after the end are
drawn again, and counted apart. Each mutation is a model, a store or a TIFF with bytes changed, cut or doubled, given to
the command: it must end with one of its exit codes, and no traceback.

Commands are forked from a process that has imported what they need, so that a kill falls into their work.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile
import zarr
from kills import files, same
from memory import models

from napari_unet.cli import main as command

CODES = {0, 2, 3, 4, 5, 6, 7}
LONGEST = 120.0  # seconds that a command on inputs of this size may take: longer is counted as hanging
FIXED = ("--device", "cpu")
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "__main__",
        "torch",
        "imagecodecs",
        "typer",
        "napari_unet.cli.progress",
        "napari_unet.inference.predict",
        "napari_unet.training.fit",
    ]
)


def shell(words: list[str], said: Path) -> None:
    """Do a command, in a process of its own; what it says goes to a file."""
    with said.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["napari-unet", *words]
    command()


def started(said: Path, *words: object) -> multiprocessing.process.BaseProcess:
    process = _forks.Process(target=shell, args=([str(word) for word in words], said))
    process.start()
    return process


def ended(process: multiprocessing.process.BaseProcess, seconds: float) -> int | None:
    """Wait for a command so long at most, then kill it: None; return its exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def removed(out: Path) -> None:
    """Remove a result or a model, and the folder of its training beside it."""
    for path in out.parent.glob(f"{out.stem}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def undisturbed(said: Path, out: Path, *words: object) -> float:
    """Make a result twice, as the first of its kind opens more files; return how long the second took."""
    for _ in range(2):
        removed(out)
        began = time.monotonic()
        if ended(started(said, *words), LONGEST) != 0:
            raise SystemExit(f"the command without kills did not end well: {said.read_text()}")
    return time.monotonic() - began


def killed(draw: random.Random, longest: float, out: Path, *words: object) -> int:
    """Kill a command at a random time; say how often it ended before."""
    late = 0
    while ended(started(Path(os.devnull), *words), draw.uniform(0, longest)) is not None:
        removed(out)
        late += 1
    return late


def kills_of_predict(folder: Path, count: int, draw: random.Random) -> str:
    whole, said = folder / "whole.ome.zarr", folder / "said"
    longest = undisturbed(said, whole, *predict(folder, folder / "image.zarr", whole))
    expected, late, wrong = files(whole), 0, []
    for i in range(count):
        out = folder / f"kill-{i}.ome.zarr"
        line = predict(folder, folder / "image.zarr", out)
        late += killed(draw, longest, out, *line)
        code = ended(started(said, *line), LONGEST)
        found = same(files(out), expected)
        if code != 0 or ", 0 differ" not in found:
            wrong.append(f"exit code {code}, {found}, {said.read_text()[-300:]}")
        removed(out)
    return counted("predict", count, late, wrong)


def counted(what: str, count: int, late: int, wrong: list[str]) -> str:
    return f"{what}: {count} kills ({late} more came after the end), {len(wrong)} ended otherwise {wrong[:3] or ''}"


def weights(model: Path) -> str:
    found = sorted(model.glob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()


def kills_of_train(folder: Path, count: int, draw: random.Random) -> str:
    small = ("--steps", 30, "--depth", 1, "--base-features", 4, "--patch", 32, 32, "--batch", 2, *FIXED)
    data, said = ("train", "--images", folder / "raw", "--labels", folder / "painted", *small, "--out"), folder / "said"
    whole = folder / "whole.model"
    longest = undisturbed(said, whole, *data, whole)
    expected, late, wrong = weights(whole), 0, []
    for i in range(count):
        out = folder / f"kill-{i}.model"
        late += killed(draw, longest, out, *data, out)
        code = ended(started(said, *data, out, "--resume"), LONGEST)
        if code:  # killed before there was anything to go on with, else this is refused too
            code = ended(started(said, *data, out), LONGEST)
        if code != 0 or weights(out) != expected:
            wrong.append(f"exit code {code}, weights {weights(out)[:8]}, {expected[:8]}: {said.read_text()[-300:]}")
        removed(out)
    return counted("train", count, late, wrong)


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
    suffixes = {"image.zarr": ".zarr", "model": "", "stack.tif": ".tif", "series.ome.tif": ".ome.tif", "result": ".out"}
    ended(started(folder / "said", *predict(folder, folder / "image.zarr", folder / "result")), LONGEST)
    for i in range(count):
        name = draw.choice(list(suffixes))
        whole, given, out, said = folder / name, folder / f"given{suffixes[name]}", folder / "out", folder / "said"
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, given)
        chosen = draw.choice(sorted(p for p in given.rglob("*") if p.is_file())) if given.is_dir() else given
        chosen.write_bytes(mutated(chosen.read_bytes(), draw))
        lines = {
            "model": (("info", given), predict(folder, folder / "image.zarr", out, given)),
            "result": (("verify", given), predict(folder, folder / "image.zarr", given)),
        }.get(name, (("info", given), predict(folder, given, out)))
        for line in lines:
            code = ended(started(said, *line), LONGEST)
            codes[-1 if code is None else code] += 1
            text = said.read_text(errors="replace")
            if code not in CODES or "Traceback" in text:
                wrong.append(f"{i}: {line[0]}, {chosen.relative_to(folder)}: {code} {text[-400:]}")
        removed(given)
        removed(out)
    listed = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
    return f"mutations: {count}, exit codes {listed}; {len(wrong)} ended otherwise {wrong[:9] or ''}"


def predict(folder: Path, image: Path, out: Path, model: Path | None = None) -> tuple[object, ...]:
    options = ("--axes", "zyx", "--precision", "fp32", "--block", 16, 32, 32, *FIXED)
    return ("predict", image, "--model", model or folder / "model", "--out", out, *options)


def make_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4000, (32, 64, 64)).astype(np.uint16)
    zarr.create_array(folder / "image.zarr", data=data, chunks=(16, 32, 32), dimension_names=["z", "y", "x"])
    tifffile.imwrite(folder / "stack.tif", data[:16], compression="zlib", predictor=True)
    tifffile.imwrite(folder / "series.ome.tif", data[:16], bigtiff=True, tile=(32, 32), metadata={"axes": "ZYX"})
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
