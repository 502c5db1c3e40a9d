"""Weights alone: which network they are of, by their names and shapes, and what is taken where they do not say it."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UNUSABLE, ModelError, UnetError
from ..intensities.normalise import KINDS, Normalisation
from ..model import Model
from ..network import KnownConfig
from ..network.steps import Step
from ..task import Restore, Semantic, Task
from ..task.losses import BACKGROUND
from .known import known, placed
from .states import fitted_to, tensors_of, unwrapped
from .translate import Gives

NNUNET, MONAI = "dynamic_network_architectures.architectures.unet", "monai.networks.nets"
# What a description of weights may say.
WORDS = {"network", "arguments", "intensities", "classes", "channels", "pixel_size", "unit"}
Shapes = dict[str, tuple[int, ...]]


def model_of_weights(
    state: Mapping[str, Any], path: Path, description: Mapping[str, Any] | None, gives: Gives
) -> tuple[Model, list[str]]:
    """Return a model of weights, and what was taken where nothing says it.

    Parameters
    ----------
    state : mapping
        What their file holds.
    description : mapping, optional
        What they do not say: ``network``, such as "monai.networks.nets.UNet", and its ``arguments``; ``intensities``,
        such as "zscore", or "percentile" with ``low`` and ``high``; ``classes``; ``channels``; ``pixel_size``;
        ``unit``.

    Raises
    ------
    ModelError
        Where the network is not one that is known, or the weights are not its.
    """
    told, name = dict(description or {}), str(path)
    if set(told) - WORDS:
        raise ModelError(f"a network is described by {', '.join(sorted(WORDS))}; not by {', '.join(set(told) - WORDS)}")
    tensors, notes = tensors_of(state, name), []
    try:
        if "network" in told:
            library, _, kind = str(told["network"]).rpartition(".")
            config = known(library, kind, dict(told.get("arguments") or {}))
            if config is None:
                raise ModelError(
                    f"{told['network']} is not known; known are PlainConvUNet and ResidualEncoderUNet of "
                    f"{NNUNET}, UNet and BasicUNet of {MONAI}"
                )
        else:
            config, taken = inferred(unwrapped(tensors, list(READERS)), name)
            notes.append(f"{config.network}, by the names of its weights; taken, as they do not say it: {taken}")
        weights = fitted_to(config, tensors, name)
        normalisation = intensities_of(told, notes)
        task, after = task_of(told, config.out_channels, gives)
        head = config.out_channels if task.out_channels != config.out_channels else 0
        config = dataclasses.replace(placed(config), out_channels=task.out_channels, head=head, after=after)
        scale = tuple(map(float, told.get("pixel_size") or ()))
        place = scale, (str(told["unit"]),) * config.ndim if "unit" in told else ()
        record = {"name": path.stem, "about": f"weights of {path.name}", "imported from": path.name}
        axes, channels = "zyx"[-config.ndim :], tuple(map(str, told.get("channels") or ()))
        return Model(config, weights, task, normalisation, axes, *place, channels, record=record), notes
    except UnetError:
        raise
    except UNUSABLE as error:
        raise ModelError(
            f"{name} or its description is not understood: {str(error)[:200]}; get the model as ONNX"
        ) from error


def intensities_of(told: Mapping[str, Any], notes: list[str]) -> Normalisation:
    """Return how intensities are normalised, with a note where nothing says it."""
    given = told.get("intensities")
    if given is None:
        notes.append(
            f"intensities are brought to mean 0 and deviation 1, as nothing says it; known are {', '.join(KINDS)}"
        )
        return Normalisation("zscore")
    return Normalisation(given) if isinstance(given, str) else Normalisation(**given)


def task_of(told: Mapping[str, Any], count: int, gives: Gives) -> tuple[Task, tuple[Step, ...]]:
    """Choose what a model gives: one channel above 0 is foreground, several are classes."""
    names = tuple(map(str, told.get("classes") or ()))
    if gives == "image":
        names = names or tuple(f"channel_{i}" for i in range(count))
        return Restore(names, (0.0,) * count, (1.0,) * count), ()
    if count == 1:
        return Semantic((0, 1), (BACKGROUND, names[-1] if names else "foreground")), (Step("two_classes"),)
    return Semantic(tuple(range(count)), names or (BACKGROUND, *(f"class_{i}" for i in range(1, count)))), ()


def inferred(tensors: Mapping[str, np.ndarray], name: str) -> tuple[KnownConfig, str]:
    """Return the network that weights are of, by their names and shapes, and what was taken beside.

    Raises
    ------
    ModelError
        Where they are of none that is known.
    """
    shapes: Shapes = {key: value.shape for key, value in tensors.items()}
    for sign, reader in READERS.items():
        if sign in shapes:
            kind, words, taken = reader(shapes)
            config = known(*kind, words)
            if config is not None:
                return config, taken
    raise ModelError(
        f"the weights in {name} begin with {next(iter(shapes))}, as no network that is known here; where it is one of "
        "nnU-Net or MONAI say which, and its arguments, with --network FILE.json"
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many places a pattern with one number has: one more than the largest."""
    found = [int(match[1]) for key in shapes if (match := re.match(pattern, key))]
    return max(found, default=-1) + 1


def _norm(shapes: Shapes, of: str, running: str) -> Any:
    """Return the norm that the names of its weights tell: which has running figures is a batch norm."""
    if running in shapes:
        return "batch"
    return ("instance", {"affine": of in shapes})


def _nnunet(shapes: Shapes) -> tuple[tuple[str, str], dict[str, Any], str]:
    residual = "encoder.stem.convs.0.conv.weight" in shapes
    inside = "encoder.stages.{}.blocks.{}.conv1" if residual else "encoder.stages.{}.0.convs.{}"
    levels = _count(shapes, r"encoder\.stages\.(\d+)\.")
    part = r"blocks" if residual else r"0\.convs"
    counts = [_count(shapes, rf"encoder\.stages\.{i}\.{part}\.(\d+)\.") for i in range(levels)]
    kernels = [shapes[f"{inside.format(i, 0)}.conv.weight"][2:] for i in range(levels)]
    ups = [shapes[f"decoder.transpconvs.{i}.weight"] for i in range(levels - 1)]
    last = "conv3" if "encoder.stages.0.blocks.0.conv3.conv.weight" in shapes else "conv2"
    ends = [f"encoder.stages.{i}.blocks.0.{last}" if residual else inside.format(i, 0) for i in range(levels)]
    first = "encoder.stem.convs.0" if residual else inside.format(0, 0)
    bottleneck = residual and last == "conv3"
    if bottleneck:
        kernels = [shapes[f"encoder.stages.{i}.blocks.0.conv2.conv.weight"][2:] for i in range(levels)]
    ndim = len(kernels[0])
    norm = _norm(shapes, f"{first}.norm.weight", f"{first}.norm.running_mean")
    words: dict[str, Any] = {
        "input_channels": shapes[f"{first}.conv.weight"][1],
        "num_classes": shapes[f"decoder.seg_layers.{levels - 2}.weight"][0],
        "features_per_stage": [shapes[f"{end}.conv.weight"][0] for end in ends],
        "conv_op": f"Conv{ndim}d",
        "kernel_sizes": [list(k) for k in kernels],
        "strides": [[1] * ndim, *(list(up[2:]) for up in reversed(ups))],
        "n_blocks_per_stage" if residual else "n_conv_per_stage": counts,
        "n_conv_per_stage_decoder": [
            _count(shapes, rf"decoder\.stages\.{i}\.convs\.(\d+)\.") for i in range(levels - 1)
        ],
        "conv_bias": f"{first}.conv.bias" in shapes,
        "norm_op": f"BatchNorm{ndim}d" if norm == "batch" else f"InstanceNorm{ndim}d",
        "norm_op_kwargs": {} if norm == "batch" else norm[1],
        "nonlin": "LeakyReLU",
    }
    if residual:
        words["stem_channels"] = shapes[f"{first}.conv.weight"][0]
    if bottleneck:
        between = [shapes[f"encoder.stages.{i}.blocks.0.conv1.conv.weight"][0] for i in range(levels)]
        words |= {"block": "BottleneckD", "bottleneck_channels": between}
    taken = "leaky units" if norm == "batch" else "instance norm and leaky units"
    return (NNUNET, "ResidualEncoderUNet" if residual else "PlainConvUNet"), words, taken


def _basic(shapes: Shapes) -> tuple[tuple[str, str], dict[str, Any], str]:
    unit = "conv_0.conv_0.adn"
    norm = _norm(shapes, f"{unit}.N.weight", f"{unit}.N.running_mean")
    features = [shapes["conv_0.conv_0.conv.weight"][0]]
    features += [shapes[f"down_{i}.convs.conv_0.conv.weight"][0] for i in range(1, 5)]
    words = {
        "spatial_dims": len(shapes["final_conv.weight"]) - 2,
        "in_channels": shapes["conv_0.conv_0.conv.weight"][1],
        "out_channels": shapes["final_conv.weight"][0],
        "features": [*features, shapes["final_conv.weight"][1]],
        "bias": "conv_0.conv_0.conv.bias" in shapes,
        "norm": norm,
    }
    words |= {"act": "prelu"} if f"{unit}.A.weight" in shapes else {}
    taken = [] if norm == "batch" else ["instance norm"]
    return (MONAI, "BasicUNet"), words, " and ".join(taken + ([] if "act" in words else ["leaky units of 0.1"]))


def _unet(shapes: Shapes) -> tuple[tuple[str, str], dict[str, Any], str]:
    units = _count(shapes, r"model\.0\.conv\.unit(\d+)\.")
    inner = ".conv.unit0" if units else ""
    levels, place = [], "model"
    while f"{place}.0{inner}.conv.weight" in shapes:
        levels.append(f"{place}.0{inner}")
        place += ".1.submodule"
    levels.append(f"{place}{inner}")
    up = "model.2.0.conv.weight" if units else "model.2.conv.weight"
    first = shapes["model.0.conv.unit0.conv.weight" if units else "model.0.conv.weight"]
    norm = _norm(shapes, f"{levels[0]}.adn.N.weight", f"{levels[0]}.adn.N.running_mean")
    words = {
        "spatial_dims": len(first) - 2,
        "in_channels": first[1],
        "out_channels": shapes[up][1],
        "channels": [shapes[f"{level}.conv.weight"][0] for level in levels],
        "strides": [2] * (len(levels) - 1),
        "kernel_size": list(first[2:]),
        "up_kernel_size": list(shapes[up][2:]),
        "num_res_units": units,
        "bias": f"{levels[0]}.conv.bias" in shapes,
        "norm": norm,
        "act": "prelu" if f"{levels[0]}.adn.A.weight" in shapes else "relu",
    }
    taken = ["strides of 2"] + ([] if norm == "batch" else ["instance norm"])
    return (MONAI, "UNet"), words, " and ".join(taken + (["ReLU"] if words["act"] == "relu" else []))


READERS = {
    "encoder.stages.0.0.convs.0.conv.weight": _nnunet,
    "encoder.stem.convs.0.conv.weight": _nnunet,
    "conv_0.conv_0.conv.weight": _basic,
    "model.0.conv.weight": _unet,
    "model.0.conv.unit0.conv.weight": _unet,
}
