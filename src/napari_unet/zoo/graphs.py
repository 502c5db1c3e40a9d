"""ONNX networks of packages: checked, and measured."""

import dataclasses
import math
from collections.abc import Generator, Sequence
from typing import Any

from ..errors import ModelError, UnsafeError
from ..events import Progress
from ..network import Graph, GraphConfig
from ..network.graph import check
from .confined import ENDING, converted
from .described import Described
from .known import WINDOW
from .measure import SHIFTS, WHOLE, WIDE, Reach, look
from .translate import upscale_of

# Sizes of images on which it is measured how far a network looks: the first, and the largest that is tried.
LONG = {2: (128, 1024), 3: (64, 512)}
TRUST = ", or, where you trust who made it, let its program be followed: --trust-torchscript"
FOLLOWED = "its program is followed, in a process without files and network"


SMALL = "one pass over a small image, on a larger one in "  # of networks that look at all they are given


def graph_of(found: Described, trust: bool = False) -> Generator[Progress, None, tuple[GraphConfig, bytes]]:
    """Return the ONNX network of a package, measured.

    Raises
    ------
    ModelError, UnsafeError
        Where there is none, or it is not run.
    """
    described = found.package.description.weights.onnx
    program = _program(found)
    if described is None and program is not None and trust:
        yield Progress(0, 3, "import", FOLLOWED)
        _, data = converted(found.package.file(program), _request(found), str(found.package.path))
    elif described is None:
        kinds = [k for k, v in found.package.description.weights if v is not None]
        raise UnsafeError(
            f"{found.package.path} has its weights as {', '.join(kinds)}: programs, or for code of their author, which "
            f"is not run; get the package with ONNX weights{TRUST if program is not None else ''}"
        )
    elif getattr(described, "external_data", None) is not None:
        raise UnsafeError(f"{found.package.path} keeps weights of its ONNX file in another one; save them within it")
    else:
        data = found.package.file(described)
    config = yield from measured(found, data, described is None)
    return config, data


def _program(found: Described) -> Any:
    """Return the entry of the program that a package has its weights in: TorchScript, or what torch.export saves."""
    weights = found.package.description.weights
    if weights.torchscript is not None:
        return weights.torchscript
    state = weights.pytorch_state_dict
    return state if state is not None and str(state.source).lower().endswith(ENDING) else None


def measured(found: Described, data: bytes, apart: bool = False) -> Generator[Progress, None, GraphConfig]:
    """Return how an ONNX network is run: checked, and measured.

    Parameters
    ----------
    apart : bool
        Whether it takes one image at a time, whatever its axes say.

    Raises
    ------
    ModelError, UnsafeError
        Where it is not run.
    """
    operators = check(data)
    draft = _draft(found, len(data), apart)
    graph = Graph(draft, data)
    yield Progress(0, 3, "import", "how far the network looks")
    whole = sorted({name for name in operators if name in WHOLE})
    reach = Reach((None,) * draft.ndim, (1,) * draft.ndim) if whole else _measured(graph, draft)
    config = _placed(found, draft, reach, whole)
    if config.tile_exact:
        halo, stride = sizes_of(config.halo), sizes_of(config.stride)
        how = f"{halo} elements to either side, on a grid of {stride}: exact tile by tile"
    if config.window:
        small = SMALL if all(config.step) else ""
        how = (
            f"at all it is given ({config.whole}), so it runs in {small}windows of {sizes_of(config.window)} at fixed "
            "places: alike for all tiles"
        )
    yield Progress(0, 3, "import", f"the network looks {how}")
    return config


def _request(found: Described) -> dict[str, Any]:
    """Return the shape of an image that a network takes, and which of its axes may have other sizes."""
    shape, free, least = [], [], WIDE[len(found.given.space)]
    for place, letter in enumerate(found.given.axes):
        if letter in "bc":
            shape.append(1 if letter == "b" else len(found.given.names))
            continue
        size, step = _size(found.given.of(letter).size)
        shape.append(size + math.ceil(max(least - size, 0) / step) * step if step else size)
        free += [place] if step else []
    letters = [found.given.axes[place] for place in free]
    return {"shape": shape, "free": {"in": free, "out": [found.gives.axes.index(letter) for letter in letters]}}


def _draft(found: Described, count: int, apart: bool) -> GraphConfig:
    """Return the network as the package describes it, before it was measured."""
    space = found.given.space
    sizes = [_size(found.given.of(letter).size) for letter in space]
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
        apart=apart or found.given.apart or "b" not in found.given.axes,
        before=found.pointwise,
        after=found.steps,
    )


def _size(size: Any) -> tuple[int, int]:
    """Return the least size and the step to larger ones, 0 where there is one size."""
    if isinstance(size, int):
        return size, 0
    if hasattr(size, "min"):
        return int(size.min), int(size.step)
    raise ModelError(
        f"the network takes a size that depends on another axis ({size}), which is not done; "
        "get one of free or fixed sizes"
    )


def _measured(graph: Graph, draft: GraphConfig) -> Reach:
    """Measure along each axis, on images as small as will do."""
    found: list[tuple[int | None, int]] = []
    for axis in range(draft.ndim):
        size, most = LONG[draft.ndim]
        while True:
            wanted = [size if i == axis else WIDE[draft.ndim] for i in range(draft.ndim)]
            shape = tuple(draft.size(n, i) for i, n in enumerate(wanted))
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
    window = tuple(draft.size(WINDOW[draft.ndim], axis) for axis in range(draft.ndim)) if why else ()
    return dataclasses.replace(draft, stride=tuple(stride), halo=tuple(halo), whole=why, window=window)


def sizes_of(values: Sequence[int]) -> str:
    """Return sizes as they are read, such as "64 x 64"."""
    return " x ".join(map(str, values))
