"""A result of nnU-Net v2: plans, dataset and a checkpoint, read as data; with them its preprocessing."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UNUSABLE, ModelError, UnetError
from ..files import read_plain
from ..intensities.normalise import Normalisation
from ..model import Model
from ..network import KnownConfig
from ..network.steps import Step
from ..task import Restore, Semantic, Task
from .known import known, placed
from .states import fitted_to, read_weights, tensors_of
from .translate import Gives

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")  # the first that is there
JSON_BYTES = 2**24  # of plans and dataset, which have some 100 kB
LIBRARY = "dynamic_network_architectures.architectures.unet"
FURTHEST = 3e38  # of float32, where intensities are not cut off
EPSILON = 1e-8  # nnU-Net's own: what is constant is not divided by 0
RANGES = {"RescaleTo01Normalization", "RescaleTo01"}
FIXED = {"NoNormalization": (0.0, 1.0), "RGBTo01Normalization": (0.0, 255.0)}  # offset and scale
MILLIMETRES = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a training of nnU-Net has left, read.

    Parameters
    ----------
    place : Path
        The checkpoint.
    plans, dataset, configuration : dict
        The last is the one of the plans that was trained.
    """

    place: Path
    state: Mapping[str, Any]
    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: dict[str, Any]


def is_result(path: Path) -> bool:
    """Whether a path is a result folder of nnU-Net, one of its folds, or a checkpoint in one."""
    return any((folder / PLANS).is_file() for folder in (path, path.parent, path.parent.parent))


def open_result(path: Path, state: Mapping[str, Any] | None = None) -> tuple[Result, list[str]]:
    """Read a result; return it, and what is to be said of it.

    Parameters
    ----------
    state : mapping, optional
        What the checkpoint holds, where that is read already.

    Raises
    ------
    ModelError
        Where files are missing, or are not what nnU-Net writes.
    """
    place, notes = (path, []) if path.is_file() else _checkpoint(path)
    state = read_weights(place) if state is None else state
    given: Any = state.get("init_args")
    given = given if isinstance(given, Mapping) else {}
    folder = next((f for f in (place.parent, place.parent.parent) if (f / PLANS).is_file()), None)
    plans = given.get("plans") if folder is None else read_json(folder / PLANS)
    dataset = given.get("dataset_json") if folder is None else read_json(folder / DATASET)
    if not isinstance(plans, Mapping) or not isinstance(dataset, Mapping):
        raise ModelError(f"{place} has no {PLANS} and {DATASET} of nnU-Net above it; give the result folder")
    name = str(given.get("configuration") or (folder.name.rpartition("__")[2] if folder is not None else ""))
    return Result(place, state, dict(plans), dict(dataset), _configuration(dict(plans), name)), notes


def _checkpoint(path: Path) -> tuple[Path, list[str]]:
    """Choose a checkpoint of a folder."""
    folds = [path] if any((path / name).is_file() for name in CHECKPOINTS) else sorted(path.glob("fold_*"))
    found = [(fold / name) for fold in folds for name in CHECKPOINTS if (fold / name).is_file()]
    if not found:
        raise ModelError(
            f"{path} has no fold_*/{CHECKPOINTS[0]}: it is no finished training of nnU-Net; "
            "give the folder of its trainer, which has it"
        )
    whole = [each for each in found if each.parent.name == "fold_all"]
    place = (whole or found)[0]
    others = sorted({each.parent.name for each in found} - {place.parent.name})
    if not others:
        return place, []
    return place, [f"{place.parent.name} is taken; {', '.join(others)}: give its folder, each makes a model"]


def read_json(path: Path) -> Any:
    """Return what a file of JSON holds.

    Raises
    ------
    ModelError
        Where it holds none, or more than is read.
    """
    try:
        return json.loads(read_plain(path, JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read: {str(error)[:200]}; check that it is there and that you may read it"
        ) from error


def _configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration of the plans with what it inherits."""
    all_of: Any = plans.get("configurations") or {}
    found: dict[str, Any] = {}
    for _ in all_of:
        each = all_of.get(name)
        if not isinstance(each, Mapping):
            raise ModelError(f"the plans have no configuration {name!r}; they have {', '.join(map(str, all_of))}")
        found = {**each, **found}
        name = str(each.get("inherits_from", ""))
        if not name:
            return found
    raise ModelError(
        "the plans have a configuration that inherits from itself, or none; copy the result's folder again"
    )


def model_of_result(result: Result, gives: Gives) -> tuple[Model, list[str]]:
    """Return the model, and what is to be said of it.

    Raises
    ------
    ModelError
        Where it does what is not done here.
    """
    place = str(result.place)
    try:
        names = _labels(result.dataset)
        channels = _channels(result.dataset)
        config = _network(result, len(channels), len(names))
        order = _order(result.plans, config.ndim)
        normalisation, before, notes = _intensities(result, channels)
        patch, spacing = (_sized(result.configuration[k], config.ndim) for k in ("patch_size", "spacing"))
        weights = fitted_to(config, tensors_of(result.state, place), place)
    except UnetError:
        raise
    except UNUSABLE as error:
        said = f"{type(error).__name__} {str(error)[:200]}"
        raise ModelError(f"the plans of {place} are not understood: {said}; get the model as ONNX") from error
    places = (0, 1, *(2 + i for i in order))
    weights = {k: np.ascontiguousarray(np.transpose(v, places)) if v.ndim > 2 else v for k, v in weights.items()}
    settings = config.settings | {
        part: [[level[i] for i in order] for level in config.settings[part]] for part in ("kernels", "strides")
    }
    task, after = _task(names, gives)
    config = dataclasses.replace(config, settings=settings)
    config = dataclasses.replace(
        placed(config, [int(patch[i]) for i in order], blended=True),
        before=before,
        after=after,
        out_channels=task.out_channels,
    )
    scale = tuple(float(spacing[i]) for i in order)
    unit = "millimeter" if str(result.plans.get("image_reader_writer")) in MILLIMETRES else None
    notes.append(f"learnt at a pixel size of {' x '.join(f'{s:g}' for s in scale)}: --resample brings images to it")
    record = {
        "name": str(result.dataset.get("name") or result.plans.get("dataset_name") or "nnU-Net"),
        "about": f"{result.state.get('trainer_name', 'nnU-Net')}, {result.place.parent.name}",
        "licence": str(result.dataset.get("licence") or result.dataset.get("license") or "not said"),
        "cite": "Isensee et al., nnU-Net, Nature Methods 18, 2021",
        "imported from": f"{result.place.parent.parent.name}/{result.place.parent.name}",
    }
    several = channels if len(channels) > 1 else ()
    axes = "zyx"[-config.ndim :]
    return Model(
        config, weights, task, normalisation, axes, scale, (unit,) * config.ndim, several, record=record
    ), notes


def _labels(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the name of each class."""
    labels = {str(name): value for name, value in dataset["labels"].items() if name != "ignore"}
    if any(isinstance(value, list) for value in labels.values()):
        raise ModelError("the network gives regions that overlap, which are no classes; such networks are not run here")
    found = sorted((int(value), name) for name, value in labels.items())
    if [value for value, _ in found] != list(range(len(found))):
        raise ModelError(f"the labels of the dataset are {labels}; whole numbers from 0 without a gap are known")
    return tuple(name for _, name in found)


def _channels(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    given = dataset.get("channel_names") or dataset["modality"]
    found = [str(name) for _, name in sorted(given.items(), key=lambda item: int(item[0]))]
    return tuple(name if found.count(name) == 1 else f"{name} {i}" for i, name in enumerate(found))


def _network(result: Result, channels: int, classes: int) -> KnownConfig:
    """Return the network of a configuration, in the words of newer and of older plans."""
    given = result.configuration
    if given.get("previous_stage"):
        raise ModelError("the network is the second of a cascade and takes the first one's result; it is not run here")
    if "architecture" in given:
        name, words = str(given["architecture"]["network_class_name"]), dict(given["architecture"]["arch_kwargs"])
    else:
        name, words = str(given["UNet_class_name"]), _older(given)
    ends = {"input_channels": channels, "num_classes": classes}
    config = known(LIBRARY, name.rpartition(".")[2], words | ends)
    if config is None:
        raise ModelError(f"the network is a {name}; PlainConvUNet and ResidualEncoderUNet of nnU-Net are known")
    return config


def _older(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that nnU-Net made of plans before 2.3."""
    kernels, strides = given["conv_kernel_sizes"], given["pool_op_kernel_sizes"]
    ndim, base, most = len(kernels[0]), int(given["UNet_base_num_features"]), int(given["unet_max_num_features"])
    counted = "n_conv_per_stage" if given["UNet_class_name"] == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "features_per_stage": [min(base * 2**i, most) for i in range(len(strides))],
        "conv_op": f"torch.nn.Conv{ndim}d",
        "kernel_sizes": kernels,
        "strides": strides,
        counted: given["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {},
    }


def _order(plans: Mapping[str, Any], ndim: int) -> tuple[int, ...]:
    """Return which axis of the network each of ours is: nnU-Net may put the coarsest first."""
    forward = [int(i) for i in plans.get("transpose_forward") or range(3)]
    if ndim == 2 and forward[0] != 0:
        raise ModelError("the network has learnt from planes across y or x; planes of y and x are run here")
    forward = forward if ndim == 3 else [i - 1 for i in forward[1:]]
    return tuple(int(i) for i in np.argsort(forward))


def _sized(values: Any, ndim: int) -> list[float]:
    return [float(v) for v in values][-ndim:]


def _intensities(result: Result, channels: tuple[str, ...]) -> tuple[Normalisation, tuple[Step, ...], list[str]]:
    """Return what is done with intensities: by the whole image, or by the numbers of the dataset."""
    schemes = list(map(str, result.configuration["normalization_schemes"]))[: len(channels)]
    masked = any(result.configuration.get("use_mask_for_norm") or ())
    if set(schemes) == {"ZScoreNormalization"}:
        notes = ["it was normalised without the 0 around what is shown: --padding 0 leaves that out"] if masked else []
        return Normalisation("zscore"), (), notes
    if set(schemes) <= RANGES:
        return Normalisation("percentile", 0.0, 100.0), (), []
    if not set(schemes) <= {*FIXED, "CTNormalization"}:
        raise ModelError(
            f"intensities are normalised by {', '.join(schemes)}, which is not done here; get the model as ONNX"
        )
    parts = []
    for i, scheme in enumerate(schemes):
        offset, scale, low, high = *FIXED.get(scheme, (0.0, 1.0)), -FURTHEST, FURTHEST
        if scheme == "CTNormalization":
            seen = result.plans["foreground_intensities_properties_per_channel"][str(i)]
            offset, scale = float(seen["mean"]), max(float(seen["std"]), EPSILON)
            low, high = ((float(seen[k]) - offset) / scale for k in ("percentile_00_5", "percentile_99_5"))
        parts.append((offset, scale, low, high))
    offsets, scales, lows, highs = zip(*parts, strict=True)
    cut = (Step("clip", {"low": list(lows), "high": list(highs)}),) if "CTNormalization" in schemes else ()
    return Normalisation("fixed", offset=offsets, scale=scales), cut, []


def _task(names: tuple[str, ...], gives: Gives) -> tuple[Task, tuple[Step, ...]]:
    if gives == "image":
        return Restore(names, (0.0,) * len(names), (1.0,) * len(names)), (Step("softmax"),)
    return Semantic(tuple(range(len(names))), names), ()
