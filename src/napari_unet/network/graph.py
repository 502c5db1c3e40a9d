"""A network of others: an ONNX graph, how it is fed, how far it looks; run window by window where its size is fixed."""

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError, UnsafeError, UsageError
from ..grid.tiles import scaled
from .steps import Step, WithSteps, applied

WEIGHT = "graph"  # the one weight that a model of this kind has: the bytes of its file
MOST = 2**31  # bytes: what a file of this format can have
WIDTH = 64  # features that are taken to be held at once, per element: a graph does not say
STANDARD = ("", "ai.onnx")  # sets of operators that every runtime has; others are programs
KINDS = (np.float32,)  # elements of input and output


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig(WithSteps):
    """What an imported network is.

    Parameters
    ----------
    ndim, in_channels, out_channels : int
        The last as a task sees them, behind all steps.
    bytes : int
        Size of the graph's file.
    inner, outer : str
        Axes of what the graph takes and gives, as in "bcyx"; without "b" or "c" where it has none.
    stride, halo : tuple of int
        Grid on which it may be cut, and how far it looks, a multiple of that.
    least, step : tuple of int
        Sizes that it takes: the least, and the step to larger ones; 0 where there is no larger one.
    upscale : tuple of int
        Elements of the output for one of the input; empty where they are on one grid.
    apart : bool
        Whether it takes one image at a time.
    whole : str
        What makes it look at all of what it is given, so that results depend on its size; empty where nothing does.
    window : tuple of int
        Size of the windows in which such a network is run, at fixed places of the whole image, so that results do not
        depend on the tiles. Empty where nothing does that, and of models of earlier versions.
    before, after : tuple of Step
        What is done with normalised intensities before the graph, and with its output: point by point.

    Raises
    ------
    ModelError
        Where the numbers do not fit each other.
    """

    kind: ClassVar[str] = "onnx"
    blended: ClassVar[bool] = False
    residual: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    ndim: int
    in_channels: int
    out_channels: int
    bytes: int
    inner: str
    outer: str
    stride: tuple[int, ...]
    halo: tuple[int, ...]
    least: tuple[int, ...]
    step: tuple[int, ...]
    upscale: tuple[int, ...] = ()
    apart: bool = False
    whole: str = ""
    window: tuple[int, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        lists = (self.stride, self.halo, self.least, self.step, self.upscale or self.stride)
        if self.ndim not in (2, 3) or any(len(each) != self.ndim for each in lists):
            raise ModelError(f"an imported network has {self.ndim} axes, and {lists} for them; get the model again")
        fine = 0 < self.bytes < MOST and min(self.in_channels, self.out_channels, *self.stride, *self.least) > 0
        if not fine or min(*self.halo, *self.step) < 0:
            raise ModelError("an imported network has sizes that cannot be; get the model again")
        if any(h % s for h, s in zip(self.halo, self.stride, strict=True)):
            raise ModelError(f"a halo of {self.halo} does not lie on the grid of {self.stride}; get the model again")
        if self.window and (len(self.window) != self.ndim or min(self.window) < 1 or min(self.core) < 1):
            raise ModelError(
                f"an imported network runs in windows of {self.window}, which cannot be; get the model again"
            )
        space = "zyx"[-self.ndim :]
        for axes in (self.inner, self.outer):
            if sorted(axes) != sorted(set(axes)) or set(axes) - set("bc") != set(space):
                raise ModelError(f"an imported network has the axes {axes!r}; {space!r} with b and c are known")

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the output for one of the input, per axis."""
        return self.upscale or (1,) * self.ndim

    @property
    def base_features(self) -> int:
        """Features that are held for each element, as memory is estimated."""
        return WIDTH

    @property
    def tile_exact(self) -> bool:
        """Whether the result can be independent of the tiling."""
        return not self.whole or bool(self.window)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; of a model without windows those that it had before there were any."""
        values: dict[str, Any] = WithSteps.to_json(self)
        return {name: value for name, value in values.items() if name != "window" or value}

    def size(self, n: int, axis: int) -> int:
        """Return the size in which `n` elements are run: the least that it takes and holds them, or its only one."""
        least, step = self.least[axis], self.step[axis]
        return least + math.ceil(max(n - least, 0) / step) * step if step else least


class Graph:
    """An imported network, called as ours are: (B, C, *S) -> (B, K, *S)."""

    def __init__(self, config: GraphConfig, data: bytes) -> None:
        self.config, self._session = config, session(data)
        self._name = self._session.get_inputs()[0].name

    def __call__(self, x: Tensor) -> Tensor:
        """Run it; the same for every size that is a multiple of its stride."""
        values = applied(self.config.before, x.float().cpu().numpy(), "bc" + "zyx"[-self.config.ndim :])
        found = np.concatenate([self.covered(each) for each in self._batches(values)])
        return torch.from_numpy(found).to(x.device)

    def _batches(self, x: np.ndarray) -> list[np.ndarray]:
        return [x[i : i + 1] for i in range(len(x))] if self.config.apart else [x]

    def covered(self, x: np.ndarray) -> np.ndarray:
        """Run windows of sizes that the graph takes, which overlap by the halo, and put their cores together."""
        config, shape = self.config, x.shape[2:]
        sizes = [config.size(n, axis) for axis, n in enumerate(shape)]
        cuts = [self._cuts(n, size, axis) for axis, (n, size) in enumerate(zip(shape, sizes, strict=True))]
        ends = [each[-1][0] + size for each, size in zip(cuts, sizes, strict=True)]
        padding = [(0, end - n) for end, n in zip(ends, shape, strict=True)]
        x = np.pad(x, [(0, 0), (0, 0), *padding], mode="reflect" if min(shape) > 1 else "edge")
        out: Any = None
        for window in itertools.product(*cuts):
            read = tuple(slice(start, start + size) for (start, _, _), size in zip(window, sizes, strict=True))
            found = self.run(np.ascontiguousarray(x[:, :, *read]))
            found = applied(config.after, found, "bc" + "zyx"[-config.ndim :])
            if out is None:
                full = tuple(n * f for n, f in zip(shape, config.factors, strict=True))
                out = np.empty((*found.shape[:2], *full), np.float32)
            core = scaled([slice(low, high) for _, low, high in window], config.factors)
            within = scaled([slice(low - start, high - start) for start, low, high in window], config.factors)
            out[:, :, *core] = found[:, :, *within]
        return np.asarray(out)

    def _cuts(self, n: int, size: int, axis: int) -> list[tuple[int, int, int]]:
        """Return where windows of `size` begin on `n` elements, and the core that each writes: (start, low, high)."""
        if n <= size:
            return [(0, 0, n)]
        stride, halo = self.config.stride[axis], self.config.halo[axis]
        room = (size - 2 * halo) // stride * stride
        last = math.ceil((n - size) / stride) * stride
        if room < stride:
            raise ModelError(
                f"the network takes {size} elements and looks {halo} to either side: nothing is left of a window; "
                "get one that takes a larger size"
            )
        starts = [*range(0, last, room), last]
        edges = [start + halo for start in starts[1:]]
        return list(zip(starts, [0, *edges], [*edges, n], strict=True))

    def run(self, x: np.ndarray) -> np.ndarray:
        """Run the graph itself on (B, C, *S) float32: (B, K, *S).

        Raises
        ------
        ModelError
            Where it fails, or gives another number of axes than it says.
        """
        config = self.config
        canonical = "bc" + "zyx"[-config.ndim :]
        given = np.transpose(x, [canonical.index(a) for a in config.inner] + _left(canonical, config.inner))
        given = given.reshape(given.shape[: len(config.inner)])
        try:
            found = self._session.run(None, {self._name: np.ascontiguousarray(given)})[0]
        except Exception as error:
            raise ModelError(
                f"the network of the model fails on {x.shape}: {str(error)[:300]}; get the model again"
            ) from error
        if found.ndim != len(config.outer) or found.dtype.type not in KINDS:
            raise ModelError(
                f"the network gives {found.dtype} of the shape {found.shape}, not {config.outer}; get the model again"
            )
        missing = [a for a in canonical if a not in config.outer]
        found = found.reshape(*found.shape, *(1,) * len(missing))
        order = config.outer + "".join(missing)
        return np.ascontiguousarray(np.transpose(found, [order.index(a) for a in canonical]))


def _left(canonical: str, axes: str) -> list[int]:
    """Return the places of the axes that a graph does not have: they are 1 long."""
    return [canonical.index(a) for a in canonical if a not in axes]


def session(data: bytes) -> Any:
    """Return a graph made ready to run, after it was checked.

    Raises
    ------
    UsageError
        Where the packages for it are not installed.
    UnsafeError
        Where it asks for operators of others, or for other files.
    ModelError
        Where it is damaged, or has more than one input or output.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("an ONNX model takes a package: pip install 'napari-unet-stacks[onnx]'") from error
    check(data)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: warnings are of shapes that were fixed and are now any
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        found = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"the ONNX file cannot be made ready: {str(error)[:300]}; "
            "export it for an older opset, or renew onnxruntime"
        ) from error
    counts = len(found.get_inputs()), len(found.get_outputs())
    if counts != (1, 1) or found.get_inputs()[0].type != "tensor(float)":
        raise ModelError(f"the ONNX file has {counts[0]} inputs and {counts[1]} outputs; one of float32 each is taken")
    return found


def check(data: bytes) -> list[str]:
    """Refuse a graph with operators of others or data in other files; return the names of its operators.

    Raises
    ------
    UnsafeError, ModelError
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UsageError("an ONNX model takes a package: pip install 'napari-unet-stacks[onnx]'") from error
    try:
        found = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelError(f"the ONNX file is damaged: {error}; get it again") from error
    own = {function.domain for function in found.functions}
    names: list[str] = []
    pending: list[Any] = [found.graph, *found.functions]
    while pending:
        part = pending.pop()
        for node in part.node:
            if node.domain not in STANDARD and node.domain not in own:
                raise UnsafeError(
                    f"the ONNX file asks for {node.domain}.{node.op_type}, no standard operator; "
                    "export it with standard operators alone"
                )
            names.append(node.op_type)
            for attribute in node.attribute:
                pending += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
                _refuse_outside([attribute.t, *attribute.tensors])
        if isinstance(part, onnx.GraphProto):
            _refuse_outside([*part.initializer, *(each.values for each in part.sparse_initializer)])
    return names


def _refuse_outside(tensors: list[Any]) -> None:
    for tensor in tensors:
        if tensor.data_location or tensor.external_data:
            raise UnsafeError("the ONNX file keeps weights in other files: refused; save it in one")
