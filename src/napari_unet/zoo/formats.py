"""The weights of a model as other programs read them: a state dict, TorchScript and ONNX."""

import dataclasses
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import ModelError, UsageError
from ..model import Model
from ..task import Restore
from . import architecture

ARCHITECTURE = "unet.py"  # the name of the network's file in a package
CLASS = "UNet"
OPSET = 17  # the oldest that has all operators of a U-Net with 3-D up-convolutions; programs of 2022 read it


def arguments(model: Model) -> dict[str, Any]:
    """Return what the class in the architecture's file takes."""
    values = dataclasses.asdict(model.unet)
    task = model.task
    kept = len(task.channels) if isinstance(task, Restore) and task.predict_std else 0
    return {key: _listed(value) for key, value in values.items()} | {"kept": kept}


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def architecture_file() -> bytes:
    """Return the source of the network, which needs torch alone."""
    return Path(architecture.__file__).read_bytes()


def standalone(model: Model) -> torch.nn.Module:
    """Return the network as the file in the package makes it, with its weights.

    Raises
    ------
    ModelError
        Where it is run step by step.
    """
    if model.task.drawn:
        raise ModelError("a model that draws samples is run step by step, which no package says; send its folder")
    net = architecture.UNet(**arguments(model))
    net.load_state_dict({key: torch.from_numpy(value) for key, value in model.weights.items()})
    return net.eval().requires_grad_(False)


def state_dict(model: Model) -> bytes:
    """Return the weights as torch saves them: tensors by name, which `weights_only` reads."""
    out = io.BytesIO()
    torch.save({key: torch.from_numpy(value) for key, value in model.weights.items()}, out)
    return out.getvalue()


def torchscript(net: torch.nn.Module, sample: torch.Tensor) -> bytes:
    """Return the network as a program of TorchScript, for inputs of any size that it takes."""
    out = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")  # that it will go some day, and that checks of shapes are not traced
        jit: Any = torch.jit
        jit.save(jit.trace(net, sample, check_trace=False), out)
    return out.getvalue()


def onnx(net: torch.nn.Module, sample: torch.Tensor, axes: str, names: tuple[str, str]) -> bytes:
    """Return the network as ONNX, for inputs of any size that it takes.

    Raises
    ------
    UsageError
        Where the package for it is not installed.
    """
    try:
        import onnx as _  # noqa: F401 - torch writes with it
    except ImportError as error:
        raise UsageError("ONNX takes a package: pip install 'napari-unet-stacks[zoo]'") from error
    free = {0: "batch"} | {2 + i: axis for i, axis in enumerate(axes)}
    return followed(net, sample, {name: free for name in names})


class Still(torch.nn.Module):
    """A program of torch.export as a module: it has no training, and refuses to be asked for it."""

    def __init__(self, program: torch.nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> "Still":
        """Stay as it is."""
        return self

    def forward(self, x: torch.Tensor) -> Any:
        """Run it."""
        return self.program(x)


def followed(net: torch.nn.Module, sample: torch.Tensor, free: Mapping[str, Mapping[int, str]]) -> bytes:
    """Return what a network does with an image as ONNX.

    Parameters
    ----------
    free : mapping
        Names of what goes in and what comes out, each with its axes that may have other sizes, and their names.
    """
    out = io.BytesIO()
    given, gives = free
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's newer way takes a further package, and gives the same graph
        torch.onnx.export(
            net,
            (sample,),
            cast("Any", out),
            dynamo=False,
            opset_version=OPSET,
            input_names=[given],
            output_names=[gives],
            dynamic_axes=free,
        )
    return out.getvalue()
