"""What is installed, what this machine has, and how fast it is: the first thing to look at where something fails."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np

from . import DISTRIBUTION
from .arrays.stack import Stack
from .cards import SHIPPED
from .device import choose_device, choose_precision, too_old, versions
from .events import Progress, wait
from .inference.predict import predict
from .limits import memory
from .model import load_model
from .sources.formats.table import FORMATS

PACKAGES = ("torch", "numpy", "scipy", "zarr", "tifffile", "dask", "napari", "magicgui", "npe2")
BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")  # of Qt, in the order in which napari's windows look for one
# A shipped model and what it runs on first, in voxels: some tenths of a second on two cores.
MEASURED = {"nuclei-2d": (256, 256), "nuclei-3d": (16, 64, 64)}
SECONDS = 3.0  # about what the longest run of each takes
GROWTH = 2  # along each axis, from run to run
SHORTEST = 1e-3  # seconds: a difference of times is no less, whatever else went on
GIGAVOXEL = 10**9  # what a light sheet leaves in a minute: a size that everybody can compare with
LITTLE_MEMORY = 2 * 2**30  # a run keeps to 1 GiB beside torch and its libraries


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Parameters
    ----------
    rows : tuple of (str, str)
        Names and what holds for them, to be shown one below the other.
    problems : tuple of str
        What is wrong, each with its remedy.
    """

    rows: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def doctor(speed: bool = True) -> Generator[Progress, None, Diagnosis]:
    """Look at the installation and the machine, and measure how fast shipped models run here.

    Parameters
    ----------
    speed : bool
        Measure: about ten seconds more, in a folder of its own among temporary files that is removed again.

    Yields
    ------
    Progress
        For each model that is measured.

    Returns
    -------
    Diagnosis
        What was found.
    """
    rows = [*_system(), *versions(*PACKAGES).items()]
    problems = [*_faults_of_window(), *_faults_of_device()]
    problems += [f"{fault}: pip install -U '{DISTRIBUTION}[all]'" for fault in too_old(DISTRIBUTION)]
    rows.append(("formats", _formats()))
    if speed:
        for number, (name, shape) in enumerate(MEASURED.items()):
            yield Progress(number, len(MEASURED), "measure", f"{name} on noise")
            rows.append((name, _told(*_speed(name, shape))))
        yield Progress(len(MEASURED), len(MEASURED), "measure")
    if memory() < LITTLE_MEMORY:
        problems.append(f"only {_gib(memory())} of memory: give --memory, and close other programs")
    return Diagnosis(tuple(rows), tuple(problems))


def _system() -> list[tuple[str, str]]:
    device = choose_device()
    precision = "bfloat16" if str(choose_precision("auto", device)).endswith("bfloat16") else "float32"
    temporary = tempfile.gettempdir()
    return [
        (DISTRIBUTION, f"{importlib.metadata.version(DISTRIBUTION)} in {Path(__file__).parent}"),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("device", f"{device.type}, computes in {precision} ({_device_name(device.type)})"),
        ("memory", f"{_gib(memory())} that this process may use"),
        ("temporary files", f"{_gib(shutil.disk_usage(temporary).free)} free in {temporary}"),
    ]


def _device_name(kind: str) -> str:
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.processor() or platform.machine()}, {cores} cores, {torch.get_num_threads()} threads"


def _faults_of_window() -> list[str]:
    """Say what keeps the plugin out of napari, where napari is installed."""
    if importlib.util.find_spec("napari") is None:
        return []
    problems = []
    if not any(importlib.util.find_spec(name) for name in BINDINGS):
        problems.append("napari is there without Qt, so that no window opens: pip install 'napari[all]'")
    if not any(e.name == DISTRIBUTION for e in importlib.metadata.entry_points(group="napari.manifest")):
        problems.append(f"napari does not find this plugin: pip install --force-reinstall --no-deps {DISTRIBUTION}")
    return problems


def _faults_of_device() -> list[str]:
    import torch

    if torch.version.cuda is not None and not torch.cuda.is_available() and Path("/proc/driver/nvidia").exists():
        return [
            f"there is an NVIDIA driver, but torch {torch.__version__} finds no GPU: renew the driver, or install the "
            "torch that is built for its version of CUDA"
        ]
    return []


def _formats() -> str:
    """Say which files open, and what the others need."""
    kinds = {kind.name: kind for kind in FORMATS.values()}.values()
    there = [kind.name for kind in kinds if not kind.package or importlib.util.find_spec(kind.package)]
    missing = sorted({kind.extra for kind in kinds if kind.name not in there})
    opened = ", ".join(["OME-Zarr", "TIFF", "PNG", "JPEG", *there])
    return f"{opened}; not installed: '{DISTRIBUTION}[{','.join(missing)}]'" if missing else opened


def _speed(name: str, shape: tuple[int, ...]) -> tuple[int, float]:
    """Return voxels and seconds by which a run of a shipped model on noise is longer than a smaller one.

    Runs go from memory to an OME-Zarr. What each takes to begin and to end is in both, and not in the difference.
    """
    model = load_model(SHIPPED / name)
    growth = GROWTH ** len(shape)
    sizes, times = [0], [0.0]
    with tempfile.TemporaryDirectory(prefix="napari-unet-") as folder:
        while len(sizes) < 3 or growth * times[-1] < 2 * SECONDS:
            data = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
            began = time.perf_counter()
            out = Path(folder) / f"{len(sizes)}.ome.zarr"
            wait(predict(Stack(data=data, axes="zyx"[-len(shape) :]), model, out))
            sizes.append(data.size)
            times.append(time.perf_counter() - began)
            shape = tuple(GROWTH * n for n in shape)
    return sizes[-1] - sizes[-2], max(times[-1] - times[-2], SHORTEST)


def _told(voxels: int, seconds: float) -> str:
    whole = GIGAVOXEL / voxels * seconds
    unit, size = ("hours", 3600) if whole > 2 * 3600 else ("minutes", 60)
    return f"{voxels / seconds / 1e6:.2g} million voxels a second; 1 gigavoxel takes {whole / size:.2g} {unit}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
