"""Random kills and mutated inputs, counted: ``python benchmarks/campaign.py --kills 200 --mutations 2000``.

Each kill (SIGKILL) comes at a random time of the command, which is run again to its end; every file of the result, or
the weights of the model, are held against those of a run that nobody disturbed. Kills that come after the end are
drawn again, and counted apart. Each mutation is a model, a store, a TIFF, a result or a stopped training with bytes
changed, cut or doubled, given to the command: it must end with one of its exit codes and no traceback; where it ends
well with a changed model, or calls a changed result whole, the pixels must be those of what was not changed.

Commands are forked from a process that has imported what they need, so that a kill falls into their work, and each may
take so much memory only. With ``--log`` every trial is a line of a file, and the same command goes on where it was
stopped; ``--minutes`` stops it.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
import zarr
from kills import files
from memory import models

from napari_unet.cli import main as command

CODES = {0, 2, 3, 4, 5, 6, 7}
LONGEST = 120.0  # seconds that a command on inputs of this size may take: longer is counted as hanging
MOST_DATA = 4 * 2**30  # bytes that a command may take, of which it needs a tenth; the shell's own limit is another one
LOOK = 0.002  # seconds between two looks at how long a command has worked: short beside the second that it takes
FIXED = ("--device", "cpu")
SMALL = ("--depth", 1, "--base-features", 4, "--patch", 32, 32, "--batch", 2, *FIXED)
os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other cost more than they bring on images of this size
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "__main__",
        *("torch", "torch._dynamo", "torch.utils._device", "imagecodecs", "scipy.ndimage", "tifffile.zarr"),
        *("typer", "typer._adapters", "typer._click.decorators", "pydantic.type_adapter", "zoneinfo"),
        *(f"napari_unet.{n}" for n in ("cli.progress", "inference.predict", "training.fit")),
    ]
)


def shell(words: list[str], said: Path) -> None:
    """Do a command, in a process of its own; what it says goes to a file, and what it took to another."""
    with said.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
    sys.argv = ["napari-unet", *words]
    try:
        command()
    finally:
        took = resource.getrusage(resource.RUSAGE_SELF)
        told = {"seconds": took.ru_utime + took.ru_stime, "mib": took.ru_maxrss / 2**10}
        used(said).write_text(json.dumps(told))


def used(said: Path) -> Path:
    return said.with_name(f"{said.name}.used")


def started(said: Path, *words: object) -> multiprocessing.process.BaseProcess:
    used(said).unlink(missing_ok=True)
    process = _forks.Process(target=shell, args=([str(word) for word in words], said))
    process.start()
    return process


def ended(process: multiprocessing.process.BaseProcess, seconds: float = LONGEST) -> int | None:
    """Wait for a command so long at most, then kill it: None; return its exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def ended_after(process: multiprocessing.process.BaseProcess, seconds: float) -> int | None:
    """Kill a command when it has worked so long, as the processor counts: None; return its exit code."""
    with contextlib.suppress(psutil.Error):
        looked = psutil.Process(process.pid)
        while process.exitcode is None and sum(looked.cpu_times()[:2]) < seconds:
            time.sleep(LOOK)
    return ended(process, 0)


def removed(out: Path) -> None:
    """Remove a result or a model, and the folder of its training beside it."""
    for path in out.parent.glob(f"{out.stem}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def undisturbed(said: Path, out: Path, *words: object) -> float:
    """Make a result twice, as the first of its kind opens more files; return how long the second worked."""
    for _ in range(2):
        removed(out)
        if ended(started(said, *words)) != 0:
            raise SystemExit(f"the command without kills did not end well: {said.read_text()}")
    return float(json.loads(used(said).read_text())["seconds"])


class Trials:
    """Trials of one kind: each is drawn by its number, so that a log of those that are done is gone on with.

    Parameters
    ----------
    folder : Path
        Holds the inputs.
    seed : int
    count : int
        How many are wanted.
    """

    name = ""

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self.folder, self.said, self.seed, self.count = folder, folder / "said", seed, count
        self.done: list[dict[str, Any]] = []

    def run(self, log: Path | None, deadline: float) -> str:
        """Do those that the log does not have; return them all in a line."""
        lines = log.read_text().splitlines() if log is not None and log.exists() else []
        kept = [line for line in map(json.loads, lines) if (line["what"], line["seed"]) == (self.name, self.seed)]
        self.done = [line for line in kept if line["number"] < self.count]
        left = sorted(set(range(self.count)) - {line["number"] for line in self.done})
        if left:
            self.prepare()
        for number in left:
            if time.monotonic() > deadline:
                break
            found = self.trial(number, random.Random(f"{self.seed} {self.name} {number}"))
            self.done.append({"what": self.name, "seed": self.seed, "number": number, **found})
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps(self.done[-1]) + "\n")
        return f"{self.counted()}, {len(self.wrong)} ended otherwise {self.wrong[:9] or ''}"

    @property
    def wrong(self) -> list[str]:
        return [line["wrong"] for line in self.done if line["wrong"]]

    def prepare(self) -> None:
        """Make what each trial is held against."""

    def trial(self, number: int, draw: random.Random) -> dict[str, Any]:
        """Do one: what was wrong with it, in words, and figures."""
        raise NotImplementedError

    def counted(self) -> str:
        """Return what was done, in words."""
        raise NotImplementedError


class Kills(Trials):
    """A command that is killed, and run again."""

    def prepare(self) -> None:
        whole = self.folder / f"whole{self.suffix}"
        self._longest = undisturbed(self.said, whole, *self.line(whole))
        self._whole = self.kept(whole)

    def trial(self, number: int, draw: random.Random) -> dict[str, Any]:
        out, late = self.folder / f"kill-{number}{self.suffix}", 0
        while ended_after(started(self.said, *self.line(out)), draw.uniform(0, self._longest)) is not None:
            removed(out)
            late += 1
        code = next((code for line in self.again(out) if not (code := ended(started(self.said, *line)))), 1)
        same = code == 0 and self.kept(out) == self._whole
        wrong = "" if same else f"{number}: {self.said.read_text(errors='replace')[-300:]}"
        removed(out)
        return {"wrong": wrong, "late": late}

    def counted(self) -> str:
        late = sum(line["late"] for line in self.done)
        return f"{self.name}: {len(self.done)} kills ({late} more came after the end)"

    suffix = ""

    def line(self, out: Path) -> tuple[object, ...]:
        raise NotImplementedError

    def again(self, out: Path) -> Sequence[tuple[object, ...]]:
        """Return the commands one of which goes on with what was killed."""
        return [self.line(out)]

    def kept(self, out: Path) -> object:
        """Return what must be the same."""
        raise NotImplementedError


class KillsOfPredict(Kills):
    name, suffix = "predict", ".ome.zarr"

    def line(self, out: Path) -> tuple[object, ...]:
        return predict(self.folder, self.folder / "image.zarr", out)

    def again(self, out: Path) -> Sequence[tuple[object, ...]]:
        # Killed after its end was noted and before it had said so, the first is refused: the result is there.
        return [self.line(out), ("verify", out)]

    def kept(self, out: Path) -> object:
        return files(out)


class KillsOfTrain(Kills):
    name, suffix = "train", ".model"

    def line(self, out: Path) -> tuple[object, ...]:
        return (*train(self.folder), "--steps", 30, "--out", out)

    def again(self, out: Path) -> Sequence[tuple[object, ...]]:
        # Killed before there was anything to go on with, else the second is refused too.
        return [(*self.line(out), "--resume"), self.line(out)]

    def kept(self, out: Path) -> object:
        found = sorted(out.glob("*.safetensors"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()


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


class Mutations(Trials):
    """An input with other bytes."""

    name = "mutations"

    def prepare(self) -> None:
        folder = self.folder
        for line in (
            predict(folder, folder / "small.zarr", folder / "result"),
            (*train(folder), "--steps", 3, "--out", folder / "stopped.model"),
        ):
            if ended(started(self.said, *line)) != 0:
                raise SystemExit(f"{line[0]} without mutations did not end well: {self.said.read_text()}")
        shutil.rmtree(folder / "stopped.model")
        self._whole = pixels(folder / "result")

    def lines(self, name: str, given: Path, out: Path) -> Sequence[tuple[object, ...]]:
        """Return the commands that are tried on what was mutated."""
        if name == "model":
            return [("info", given), predict(self.folder, self.folder / "small.zarr", out, given)]
        if name == "result":
            return [("verify", given), predict(self.folder, self.folder / "small.zarr", given)]
        if name == "stopped.model.training":
            return [("finish", given.with_suffix(""))]
        return [("info", given), predict(self.folder, given, out)]

    def trial(self, number: int, draw: random.Random) -> dict[str, Any]:
        name = draw.choice(list(GIVEN))
        whole, given, out = self.folder / name, self.folder / f"given{GIVEN[name]}", self.folder / "out"
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, given)
        chosen = draw.choice(sorted(p for p in given.rglob("*") if p.is_file())) if given.is_dir() else given
        chosen.write_bytes(mutated(chosen.read_bytes(), draw))
        codes, took, wrong = [], [], ""
        for line in self.lines(name, given, out):
            code = ended(started(self.said, *line))
            text = self.said.read_text(errors="replace")
            codes.append(code)
            took.append(json.loads(used(self.said).read_text()) if used(self.said).exists() else {})
            changed = name in ("model", "result") and line[0] in ("predict", "verify")
            if code not in CODES or "Traceback" in text:
                wrong = f"{number}: {line[0]}, {chosen.relative_to(self.folder)}: {code} {text[-400:]}"
            elif code == 0 and changed and pixels(given if name == "result" else out) != self._whole:
                wrong = f"{number}: {line[0]}, {chosen.relative_to(self.folder)}: other pixels, and nothing is said"
        removed(given)
        removed(out)
        most = {key: max((each.get(key, 0.0) for each in took), default=0.0) for key in ("seconds", "mib")}
        return {"wrong": wrong, "of": name, "codes": codes, **most}

    def counted(self) -> str:
        codes = Counter(-1 if code is None else code for line in self.done for code in line["codes"])
        listed = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
        most = {key: max((line[key] for line in self.done), default=0.0) for key in ("seconds", "mib")}
        worst = f"at most {most['seconds']:.1f} s of processor and {most['mib']:.0f} MiB"
        return f"mutations: {len(self.done)}, exit codes {listed}, {worst}"


# What is mutated, and how the copy that is given to a command is called.
GIVEN = {
    "small.zarr": ".zarr",
    "model": "",
    "stack.tif": ".tif",
    "series.ome.tif": ".ome.tif",
    "result": ".out",
    "stopped.model.training": ".model.training",
}


def pixels(result: Path) -> str:
    """Hash the labels of a result, as they are read."""
    found: Any = zarr.open_array(result / "labels/semantic/0", mode="r")
    return hashlib.sha256(np.ascontiguousarray(found[...]).tobytes()).hexdigest()


def train(folder: Path) -> tuple[object, ...]:
    return ("train", "--images", folder / "raw", "--labels", folder / "painted", *SMALL)


def predict(folder: Path, image: Path, out: Path, model: Path | None = None) -> tuple[object, ...]:
    options = ("--axes", "zyx", "--precision", "fp32", "--block", 16, 32, 32, *FIXED)
    return ("predict", image, "--model", model or folder / "model", "--out", out, *options)


def make_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4000, (32, 64, 64)).astype(np.uint16)
    zarr.create_array(folder / "image.zarr", data=data, chunks=(16, 32, 32), dimension_names=["z", "y", "x"])
    small, names = data[:16, :32, :32], ["z", "y", "x"]
    zarr.create_array(folder / "small.zarr", data=small, chunks=(8, 16, 16), dimension_names=names)
    tifffile.imwrite(folder / "stack.tif", small, compression="zlib", predictor=True)
    tifffile.imwrite(folder / "series.ome.tif", small, bigtiff=True, tile=(16, 16), metadata={"axes": "ZYX"})
    models("one")[0].save(folder / "model")
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
    parser.add_argument("--log", type=Path, help="a line a trial; those that are there are not done again")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial after so long")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    kinds: list[tuple[Callable[..., Trials], int]] = [
        (Mutations, args.mutations),
        (KillsOfPredict, args.kills),
        (KillsOfTrain, args.trainings),
    ]
    with tempfile.TemporaryDirectory() as name:
        make_inputs(Path(name))
        for kind, count in kinds:
            if count:
                print(kind(Path(name), args.seed, count).run(args.log, deadline), flush=True)


if __name__ == "__main__":
    main()
