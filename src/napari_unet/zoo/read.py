"""Take in a package of the BioImage Model Zoo: a model folder like any other, once its own test comes out right."""

import dataclasses
import io
import math
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..arrays.stack import Stack
from ..errors import UNUSABLE, ModelError, UnsafeError, UsageError
from ..events import Progress
from ..intensities.normalise import Normalisation
from ..model import Model
from ..network import Graph, GraphConfig, UNetConfig
from ..network.graph import WEIGHT, check
from ..network.steps import Step, applied
from ..task import Task, read_task
from ..units import canonical
from .describe import KEY
from .formats import onnx
from .known import GRID, known
from .measure import SHIFTS, WHOLE, Reach, look
from .package import Package, open_package
from .translate import Gives, Side, intensities, side, steps, task_of, upscale_of

GIVES = ("auto", "labels", "image")
TOLERANCE = 1e-4  # of the largest value of the test's output: rounding of another library
# Sizes of images on which it is measured how far a network looks: the first, and the largest that is tried.
LONG = {2: (128, 1024), 3: (64, 512)}
WIDE = {
    2: 64,
    3: 16,
}  # across: narrow images cost little, and hide nothing of a network that is alike everywhere


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """What a package says, in our words."""

    package: Package
    given: Side
    gives: Side
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    normalisation: Normalisation
    pointwise: tuple[Step, ...]
    task: Task
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, package: Package, gives: Gives) -> "Described":
        """Translate a description.

        Raises
        ------
        ModelError
            Where it says what is not done here.
        """
        found = package.description
        if (len(found.inputs), len(found.outputs)) != (1, 1):
            raise ModelError(
                f"the network has {len(found.inputs)} inputs and {len(found.outputs)} outputs; one of each is run"
            )
        (one,), (other,) = found.inputs, found.outputs
        given, behind = side(one), side(other)
        if given.space != behind.space:
            raise ModelError(f"the network takes {given.space} and gives {behind.space}; both must have the same axes")
        before, after = steps(one.preprocessing, given.axes), steps(other.postprocessing, behind.axes)
        normalisation, pointwise = intensities(before, given)
        task, made = task_of(other, behind.names, after, gives)
        return cls(package, given, behind, tuple(before), tuple(after), normalisation, pointwise, task, made)


def import_model(
    package: str | os.PathLike[str], out: str | os.PathLike[str], gives: Gives = "auto", *, overwrite: bool = False
) -> Generator[Progress, None, Model]:
    """Make a model folder of a package of the BioImage Model Zoo (0.4 or 0.5), without running anything in it.

    Its weights are taken as a PyTorch state dict where the network is ours, else as ONNX. How far the network looks,
    and the grid on which it may be cut, are measured; with them it runs on stacks of any size with intensities measured
    on the whole image, tile by tile. The package's own test must come out within 1e-4.

    Parameters
    ----------
    package : path
        Folder or zip.
    out : path
        Model folder to make.
    gives : "auto", "labels" or "image"
        What its results are: labels of classes, or its output as an image. Labels where that is probabilities, if not
        said.
    overwrite : bool
        Replace the model that is there.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        Where the package does what is not done here, or its test does not come out.
    UnsafeError
        Where it needs code, other files, or would leave its folder.
    UsageError
        Where a package to read it with is not installed.
    """
    if gives not in GIVES:
        raise UsageError(f"gives is {gives!r}; choose one of {', '.join(GIVES)}")
    found = Described.of(open_package(Path(package)), gives)
    yield Progress(0, 3, "import", f"{found.package.description.name}: {found.package.description.description}")
    model, run = _own(found) or (None, None)
    if model is None or run is None:
        config, data = yield from _graph(found)
        run = Graph(config, data).run
        model = _model(found, config, {WEIGHT: np.frombuffer(data, np.uint8)})
    yield Progress(1, 3, "import", "its own test")
    difference = _tested(found, run)
    yield Progress(2, 3, "import", f"its own test comes out, within {difference:.1g}")
    return model.save(out, overwrite)


def _own(found: Described) -> tuple[Model, Callable[[np.ndarray], np.ndarray]] | None:
    """Return the model where the network is a U-Net of this package, and the function that runs it; else None.

    Raises
    ------
    UnsafeError
        Where the weights are more than tensors.
    ModelError
        Where they do not fit.
    """
    weights = found.package.description.weights.pytorch_state_dict
    architecture = getattr(weights, "architecture", None)
    if architecture is None or not hasattr(architecture, "source"):
        return None
    try:
        named = {field.name for field in dataclasses.fields(UNetConfig)}
        config = UNetConfig.from_json({k: v for k, v in architecture.kwargs.items() if k in named})
        if set(architecture.kwargs) - named != {"kept"}:
            return None
    except UNUSABLE:
        return None
    model = _model(found, config, _tensors(found.package.file(weights)))
    net, kept = model.network(), architecture.kwargs["kept"]

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(x)).numpy())[:, : kept or None]

    return model, run


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict."""
    try:
        read = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {str(key): value.detach().numpy() for key, value in read.items()}
    except Exception as error:
        raise UnsafeError(
            f"the weights are more than tensors, or damaged; they are not read: {str(error)[:200]}"
        ) from error


def _model(found: Described, config: UNetConfig | GraphConfig, weights: dict[str, np.ndarray]) -> Model:
    """Return the model; one that was written by this package is as it was."""
    about: Any = found.package.description
    kept: Any = (getattr(about.config, "model_extra", None) or {}).get(KEY)
    record = _record(found)
    if isinstance(config, UNetConfig) and isinstance(kept, dict):
        try:
            rest: dict[str, Any] = {key: tuple(kept[key]) for key in ("scale", "units", "channel_names")}
            rest |= {"diameter": kept.get("diameter"), "shrink": tuple(kept.get("shrink", ()))}
            parts = read_task(kept["task"]), Normalisation.from_json(kept["normalisation"]), str(kept["axes"])
            return Model(config, weights, *parts, record=record | dict(kept["record"]), **rest)
        except UNUSABLE as error:
            raise ModelError(f"{found.package.path} has settings under {KEY} that cannot be used: {error}") from error
    axes = [found.given.of(letter) for letter in found.given.space]
    names = found.given.names if all(found.given.names) and len(set(found.given.names)) > 1 else ()
    scale, units = tuple(float(a.scale) for a in axes), tuple(canonical(a.unit) for a in axes)
    return Model(
        config, weights, found.task, found.normalisation, found.given.space, scale, units, names, record=record
    )


def _record(found: Described) -> dict[str, Any]:
    """Return what is known of where a model comes from."""
    about = found.package.description
    made = ", ".join(str(a.name) for a in about.authors)
    cite = "; ".join(str(c.text) for c in about.cite)
    return {
        "name": str(about.name),
        "about": str(about.description),
        "authors": made,
        "cite": cite,
        "licence": str(about.license or "not said"),
        "imported from": found.package.path.name,
    }


def _graph(found: Described) -> Generator[Progress, None, tuple[GraphConfig, bytes]]:
    """Return the ONNX network of a package, measured.

    Raises
    ------
    ModelError, UnsafeError
        Where there is none, or it is not run.
    """
    described = found.package.description.weights.onnx
    data = _converted(found) if described is None else found.package.file(described)
    if data is None:
        kinds = [k for k, v in found.package.description.weights if v is not None]
        raise UnsafeError(
            f"{found.package.path} has its weights as {', '.join(kinds)}: programs, or for code of their author, which "
            "is not run; get the package with ONNX weights, or have it converted by bioimageio.core"
        )
    if getattr(described, "external_data", None) is not None:
        raise UnsafeError(f"{found.package.path} keeps weights of its ONNX file in another one: refused")
    operators = check(data)
    draft = _draft(found, len(data), 1 if described is not None else GRID)
    graph = Graph(draft, data)
    yield Progress(0, 3, "import", "how far the network looks")
    whole = sorted({name for name in operators if name in WHOLE})
    reach = Reach((None,) * draft.ndim, (1,) * draft.ndim) if whole else _measured(graph, draft)
    config = _placed(found, draft, reach, whole)
    if config.tile_exact:
        how = f"{_sizes(config.halo)} elements to either side, on a grid of {_sizes(config.stride)}: exact tile by tile"
    else:
        how = f"at all it is given ({config.whole}): not exact, its results depend on the tiles"
    yield Progress(0, 3, "import", f"the network looks {how}")
    return config, data


def _converted(found: Described) -> bytes | None:
    """Return the ONNX graph of a network of another library that is known, with the package's weights; else None.

    Raises
    ------
    UnsafeError, ModelError
        Where the weights are more than tensors, or do not fit.
    """
    weights = found.package.description.weights.pytorch_state_dict
    architecture = getattr(weights, "architecture", None)
    library, name = (str(getattr(architecture, part, "")) for part in ("import_from", "callable"))
    net = known(library, name, getattr(architecture, "kwargs", {}))
    if net is None:
        return None
    space = found.given.space
    if found.given.axes != "bc" + space or found.gives.axes != "bc" + space:
        raise ModelError(f"a network of {library} takes the axes {'bc' + space!r}, not {found.given.axes!r}")
    tensors = {k: torch.from_numpy(v) for k, v in _tensors(found.package.file(weights)).items()}
    try:
        net.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ModelError(f"the weights do not fit {name}: {' '.join(str(error).split())[:300]}") from error
    return onnx(net, torch.zeros(1, len(found.given.names), *(2 * GRID,) * len(space)), space, ("input", "output"))


def _draft(found: Described, count: int, grid: int) -> GraphConfig:
    """Return the network as the package describes it, before it was measured; sizes are multiples of `grid`."""
    space = found.given.space
    sizes = [_size(found.given.of(letter).size) for letter in space]
    if grid > 1:
        sizes = [(math.ceil(least / grid) * grid, math.lcm(max(step, 1), grid)) for least, step in sizes]
    return GraphConfig(
        ndim=len(space),
        in_channels=len(found.given.names),
        out_channels=found.task.out_channels,
        bytes=count,
        inner=found.given.axes,
        outer=found.gives.axes,
        stride=(1,) * len(space),
        halo=(0,) * len(space),
        least=tuple(least for least, _ in sizes),
        step=tuple(step for _, step in sizes),
        upscale=upscale_of(found.given, found.gives),
        apart=found.given.apart or "b" not in found.given.axes,
        before=found.pointwise,
        after=found.steps,
    )


def _size(size: Any) -> tuple[int, int]:
    """Return the least size and the step to larger ones, 0 where there is one size."""
    if isinstance(size, int):
        return size, 0
    if hasattr(size, "min"):
        return int(size.min), int(size.step)
    raise ModelError(f"the network takes a size that depends on another axis ({size}), which is not done here")


def _measured(graph: Graph, draft: GraphConfig) -> Reach:
    """Measure along each axis, on images as small as will do."""
    found: list[tuple[int | None, int]] = []
    for axis in range(draft.ndim):
        size, most = LONG[draft.ndim]
        while True:
            wanted = [size if i == axis else WIDE[draft.ndim] for i in range(draft.ndim)]
            shape = tuple(graph.size(n, i) for i, n in enumerate(wanted))
            radius, stride = look(graph.run, (1, draft.in_channels, *shape), axis, draft.factors[axis])
            near = radius is not None and 2 * radius + SHIFTS[-1] <= shape[axis]  # a shift is seen beside the ends
            if near or size >= most or not draft.step[axis]:
                break
            size *= 2
        found.append((radius, stride))
        if radius is None:  # what looks at all of one axis does so along the others
            return Reach((None,) * draft.ndim, (1,) * draft.ndim)
    return Reach(tuple(r for r, _ in found), tuple(s for _, s in found))


def _placed(found: Described, draft: GraphConfig, reach: Reach, whole: list[str]) -> GraphConfig:
    """Return the network with its grid and its halo."""
    why = f"it has {', '.join(whole)}" if whole else ""
    stride, halo = [], []
    for i, letter in enumerate(found.given.space):
        least, step, radius = draft.least[i], draft.step[i], reach.radius[i]
        grid = math.lcm(max(step, 1), reach.stride[i])
        said = math.ceil(getattr(found.gives.of(letter), "halo", 0) / draft.factors[i])
        far = math.ceil(max(said, radius or 0) / grid) * grid
        if radius is None and not why:
            why = "it looks further than was tried"
        if not step and 2 * far + grid > least:
            why = why or f"windows of {least} have no room for a halo of {far}"
            far = least // 4 // grid * grid
        stride.append(grid)
        halo.append(far)
    return dataclasses.replace(draft, stride=tuple(stride), halo=tuple(halo), whole=why)


def _sizes(values: tuple[int, ...]) -> str:
    return " x ".join(map(str, values))


def _tested(found: Described, run: Callable[[np.ndarray], np.ndarray]) -> float:
    """Run the package's test through our own normalisation; return the difference as a part of the largest value.

    Raises
    ------
    ModelError
        Where there is no test, or it does not come out.
    """
    (one,), (other,) = found.package.description.inputs, found.package.description.outputs
    if one.test_tensor is None or other.test_tensor is None:
        raise ModelError(f"{found.package.path} has no test: what its network should give is not known")
    given = _canonical(found.package.array(one.test_tensor), found.given)
    wanted = _canonical(found.package.array(other.test_tensor), found.gives)
    axes = "c" + found.given.space
    statistics = [found.normalisation.measure(Stack(each, axes)) for each in given]
    prepared = np.stack([s.apply(each) for s, each in zip(statistics, given, strict=True)])
    bc = "bc" + found.given.space
    got = np.concatenate([run(each[None]) for each in applied(found.pointwise, prepared, bc)])
    got = applied(found.after, got, bc)
    if got.shape != wanted.shape:
        raise ModelError(f"the test of {found.package.path} gives the shape {got.shape}, not {wanted.shape}")
    most = max(float(np.abs(wanted).max()), 1e-6)
    difference = float(np.abs(got - wanted).max()) / most
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the test of {found.package.path} does not come out: the output differs by {difference:.2g} of its "
            f"largest value, {TOLERANCE:g} is allowed; it is not imported"
        )
    return difference


def _canonical(data: np.ndarray, axes: Side) -> np.ndarray:
    """Bring an array to (batch, channel, *space) float32."""
    if data.ndim != len(axes.axes) or data.dtype.kind not in "fiub":
        raise ModelError(f"an array of the test is {data.dtype} of {data.ndim} axes; {axes.axes} are described")
    order = axes.axes + "".join(a for a in "bc" if a not in axes.axes)
    data = data.reshape(*data.shape, *(1,) * (len(order) - data.ndim))
    return np.ascontiguousarray(np.transpose(data, [order.index(a) for a in "bc" + axes.space]), np.float32)
