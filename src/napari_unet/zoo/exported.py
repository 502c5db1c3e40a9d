"""A network that torch.export saved, alone in a file: a program, followed once, confined, on the user's word."""

import dataclasses
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UNUSABLE, ModelError, UnetError, UnsafeError
from ..events import Progress
from ..model import Model
from ..network.graph import WEIGHT, session
from .confined import converted, is_exported
from .described import Described
from .graphs import FOLLOWED, TRUST, measured
from .package import Package
from .plain import intensities_of, task_of
from .states import read_file
from .translate import Gives, Side

WORDS = {"intensities", "classes", "channels", "pixel_size", "unit"}  # what a description may say


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes that are taken along an axis: the least, and the step to larger ones."""

    min: int
    step: int


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """An axis of what a network takes or gives."""

    id: str
    size: int | Sizes
    scale: float = 1.0
    halo: int = 0


def model_of_program(
    path: Path, description: Mapping[str, Any] | None, gives: Gives, trust: bool
) -> Generator[Progress, None, Model]:
    """Make a model of a file of torch.export.

    Parameters
    ----------
    description : mapping, optional
        What it does not say: ``intensities``, such as "zscore"; ``classes``; ``channels``; ``pixel_size``; ``unit``.
    trust : bool
        Whether its program may be followed.

    Raises
    ------
    UnsafeError
        Where it may not, or this machine cannot confine a process.
    ModelError
        Where it is no such file, or its network does what is not done here.
    """
    told, name = dict(description or {}), str(path)
    if set(told) - WORDS:
        raise ModelError(f"{path} is described by {', '.join(sorted(WORDS))}; not by {', '.join(set(told) - WORDS)}")
    program = read_file(path)
    if not is_exported(program):
        raise ModelError(f"{path} is not what torch.export saves; get it again")
    if not trust:
        raise UnsafeError(f"{path} is a program of torch.export, which is not run; get it as ONNX{TRUST}")
    yield Progress(0, 1, "import", FOLLOWED)
    sizes, data = converted(program, {}, name)
    try:
        found, notes = _described(path, told, gives, sizes, data)
    except UnetError:
        raise
    except UNUSABLE as error:
        raise ModelError(
            f"{path} or its description is not understood: {str(error)[:200]}; get the model as ONNX"
        ) from error
    config = yield from measured(found, data, apart=True)
    for note in (*notes, "there is no test in it: compare its results with those of the program it is from"):
        yield Progress(0, 1, "import", note)
    scale = tuple(map(float, told.get("pixel_size") or ()))
    place = scale, (str(told["unit"]),) * config.ndim if "unit" in told else ()
    record = {"name": path.stem, "about": f"program of {path.name}", "imported from": path.name}
    names = tuple(map(str, told.get("channels") or ()))
    weights = {WEIGHT: np.frombuffer(data, np.uint8)}
    return Model(config, weights, found.task, found.normalisation, found.given.space, *place, names, record=record)


def _described(
    path: Path, told: Mapping[str, Any], gives: Gives, sizes: list[tuple[int, int]], data: bytes
) -> tuple[Described, list[str]]:
    """Say in the words of a package what a program takes and gives; and what was taken where nothing says it."""
    ndim = len(sizes) - 2
    if ndim not in (2, 3) or sizes[1][1]:
        raise ModelError(f"{path} takes arrays of {len(sizes)} axes; networks of (batch, channel, *space) are run")
    space, channels = "zyx"[-ndim:], sizes[1][0]
    least = [1, channels, *(n for n, _ in sizes[2:])]
    run = session(data)
    (out,) = run.run(None, {run.get_inputs()[0].name: np.zeros(least, np.float32)})
    ratios = [a / b for a, b in zip(out.shape[2:], least[2:], strict=True)]
    given, behind = [], []
    for letter, (size, step), ratio in zip(space, sizes[2:], ratios, strict=True):
        given.append(Axis(letter, Sizes(size, step) if step else size))
        behind.append(Axis(letter, round(size * ratio) if not step else Sizes(0, 0), scale=1 / ratio))
    names = tuple(map(str, told.get("channels") or ())) or ("",) * channels
    if len(names) != channels:
        raise ModelError(f"{path} takes {channels} channels, {len(names)} are described; name each of them")
    notes: list[str] = []
    normalisation = intensities_of(told, notes)
    task, after = task_of(told, out.shape[1], gives)
    takes = Side("bc" + space, names, tuple(given), True)
    makes = Side("bc" + space, ("",) * out.shape[1], tuple(behind), True)
    return Described(Package(path, None), takes, makes, (), (), normalisation, (), task, after), notes
