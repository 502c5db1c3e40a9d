"""A model of ours as the specification of bioimage.io (0.5) describes models, as plain values."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..device import versions
from ..model import Model
from ..network import UNetConfig, footprint
from ..network.steps import Step
from ..task import Restore
from ..units import canonical
from .formats import ARCHITECTURE, CLASS, OPSET, arguments
from .sample import sizes

SPEC = "0.5.4"  # older programs of the zoo read it too; nothing newer is used
KEY = "napari_unet"  # under ``config``: all that model.json says, which the specification has no words for
EPSILON = 1e-9  # beside a range of intensities, so that dividing by it is what we do
INPUT, OUTPUT = "input", "output"
# What is written in each format: name in the specification, file.
FILES = {"pytorch_state_dict": "weights.pt", "torchscript": "weights.torchscript.pt", "onnx": "weights.onnx"}
DOCUMENTATION, COVER, TEST_IN, TEST_OUT = "README.md", "cover.png", "test_input.npy", "test_output.npy"
LONGEST = 64  # letters of a name, as the specification recommends
PAPER = {
    "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
# Of objects with classes; the specification takes 128 letters.
OF_CLASSES = (
    "logits of background, inside and border, then of the classes of objects: a softmax for each of the two groups"
)
GIVES = {
    "semantic": "probability of each class",
    "instances": "probability of background, of the inside of objects, and of borders between them",
    "restore": "restored intensities",
    "super_resolve": "intensities on a finer grid",
    "autoencode": "the image again, as it passed the bottleneck",
}


def before(model: Model) -> list[Step]:
    """Return the steps that bring intensities to the range the network was trained with."""
    how, axes = model.normalisation, model.axes
    if how.kind == "percentile":
        return [Step("scale_range", {"joint": axes, "low": how.low, "high": how.high, "eps": EPSILON})]
    if how.kind == "zscore":
        return [Step("zero_mean_unit_variance", {"joint": axes, "eps": EPSILON})]
    if how.kind == "fixed":
        return [Step("fixed_zero_mean_unit_variance", {"mean": list(how.offset), "std": list(how.scale)})]
    return []


def behind(model: Model) -> list[Step]:
    """Return the steps that make probabilities or intensities of what the network gives."""
    task = model.task
    if not isinstance(task, Restore):  # no step takes the softmax of some channels, and of others by themselves
        return [Step("softmax")] if task.exclusive == task.out_channels else []
    if set(task.scale) == {1.0} and set(task.offset) == {0.0}:
        return []
    return [Step("scale_linear", {"gain": list(task.scale), "offset": list(task.offset)})]


def written(step: Step) -> dict[str, Any]:
    """Return a step as the specification writes it."""
    values = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in _said(step)}
    if any(isinstance(value, list) for key, value in values.items() if key != "axes"):
        values["axis"] = "channel"
    return {"id": step.name, "kwargs": values}


def _said(step: Step) -> list[tuple[str, Any]]:
    names = {"joint": "axes", "low": "min_percentile", "high": "max_percentile"}
    found = {names.get(key, key): list(value) if key == "joint" else value for key, value in step.values.items()}
    if step.name == "softmax":
        found["axis"] = "channel"
    return list(found.items())


def _gives(model: Model) -> str:
    """Say what the channels are that a package gives."""
    return GIVES[model.task.name] if model.task.exclusive == len(model.task.names) else OF_CLASSES


def output_names(model: Model) -> list[str]:
    """Return the name of each channel of what the package gives."""
    return [_identifier(name, f"channel_{i}") for i, name in enumerate(model.task.names)]


def describe(model: Model, people: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the description of a package.

    Parameters
    ----------
    people : mapping
        ``name``, ``authors``, ``license``, ``cite`` and ``timestamp``.
    files : mapping of name to content
        What lies in the package: the hash of each is noted.
    """
    config = model.unet
    told = {"record": {k: v for k, v in model.record.items() if k != "history"}}
    tolerance = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-3, "mismatched_elements_per_million": 10}
    return {
        "format_version": SPEC,
        "type": "model",
        "name": people["name"],
        "description": _about(model),
        "authors": [{"name": name} for name in people["authors"]],
        "cite": [*({"text": text, **_found(text)} for text in people["cite"]), PAPER],
        "license": people["license"],
        "timestamp": people["timestamp"],
        "tags": ["unet", "napari", f"{config.ndim}d", model.task.name.replace("_", "-")],
        "documentation": DOCUMENTATION,
        "covers": [COVER],
        "inputs": [
            {
                "id": INPUT,
                "axes": [{"type": "batch"}, _channels(_input_names(model)), *_spatial_in(model)],
                "test_tensor": _file(TEST_IN, files),
                "data": {"type": "float32"},
                "preprocessing": [_float32(), *map(written, before(model))],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": _gives(model),
                "axes": [{"type": "batch"}, _channels(output_names(model)), *_spatial_out(model)],
                "test_tensor": _file(TEST_OUT, files),
                "data": {"type": "float32"},
                "postprocessing": [*map(written, behind(model)), _float32()],
            }
        ],
        "weights": _weights(model, files),
        "config": {KEY: model.described() | told, "bioimageio": {"reproducibility_tolerance": [tolerance]}},
    }


def _weights(model: Model, files: Mapping[str, bytes]) -> dict[str, Any]:
    version = versions("torch")["torch"].partition("+")[0]
    extra: dict[str, dict[str, Any]] = {
        "pytorch_state_dict": {
            "pytorch_version": version,
            "architecture": _file(ARCHITECTURE, files) | {"callable": CLASS, "kwargs": arguments(model)},
        },
        "torchscript": {"pytorch_version": version, "parent": "pytorch_state_dict"},
        "onnx": {"opset_version": OPSET, "parent": "pytorch_state_dict"},
    }
    return {kind: _file(name, files) | extra[kind] for kind, name in FILES.items() if name in files}


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _float32() -> dict[str, Any]:
    return {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}


def _channels(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "channel", "channel_names": list(names)}


def _input_names(model: Model) -> list[str]:
    named = model.channel_names or ("",) * model.config.in_channels
    return [_identifier(name, f"channel_{i}") for i, name in enumerate(named)]


def _spatial_in(model: Model) -> list[dict[str, Any]]:
    found = []
    for i, (least, step) in enumerate(sizes(footprint(model.config))):
        found.append(_axis(model, i, model.scale[i]) | {"size": {"min": least, "step": step}})
    return found


def _spatial_out(model: Model) -> list[dict[str, Any]]:
    foot, factors = footprint(model.config), model.config.factors
    found = []
    for i, (halo, margin) in enumerate(zip(foot.halo, foot.margin, strict=True)):
        size: dict[str, Any] = {"tensor_id": INPUT, "axis_id": model.axes[i], "offset": -2 * margin}
        axis = _axis(model, i, model.scale[i] / factors[i]) | {"size": size}
        found.append(axis | ({"halo": halo * factors[i]} if halo else {}))
    return found


def _axis(model: Model, i: int, scale: float) -> dict[str, Any]:
    unit = canonical(model.units[i])
    return {"type": "space", "id": model.axes[i], "scale": scale} | ({"unit": unit} if unit else {})


def _identifier(name: str, otherwise: str) -> str:
    """Return a name as the specification takes it: letters, digits and underscores."""
    found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return found if found and not found[0].isdigit() else f"{otherwise}_{found}".strip("_")


def _found(text: str) -> dict[str, str]:
    """Return the DOI or the address that a citation names."""
    doi = re.search(r"\b10\.\d{4,9}/\S+", text)
    url = re.search(r"https?://\S+", text)
    return {"doi": doi[0].rstrip(".,;)")} if doi else {"url": url[0]} if url else {}


def _about(model: Model) -> str:
    about = str(model.record.get("about") or f"{model.config.ndim}-D U-Net: {_gives(model)}")
    return about[:500]


def full_name(name: str) -> str:
    """Return a name that the specification takes: its letters only, not too short, not too long."""
    found = re.sub(r"[^\w+() -]+", "-", name, flags=re.ASCII).strip("-") or "model"
    return found[:LONGEST] if len(found) >= 5 else f"U-Net {found}"


def documentation(model: Model, name: str, config: UNetConfig) -> str:
    """Return the text that goes with a package."""
    foot, record = footprint(config), model.record
    halo = " x ".join(map(str, foot.halo if config.padding == "same" else foot.margin))
    exact = (
        f"Each pixel of its output depends on at most {halo} pixels to either side, so that tiles with a halo of that "
        "size, cut on the grid of the stride "
        f"({' x '.join(map(str, foot.stride))}), give what the network gives on the whole image, once intensities are "
        "measured on the whole image and not on each tile."
        if config.tile_exact
        else "Its norm takes statistics from what it sees: results depend on the tiles that an image is cut into."
    )
    lines = [f"# {name}", _about(model) + ".", f"It gives: {_gives(model)}.", exact]
    lines += [f"{key.capitalize()}: {record[key]}." for key in ("data", "learnt from", "note") if record.get(key)]
    if model.diameter:
        lines += [f"Objects it has learnt from are {model.diameter:.3g} pixels across at the pixel size it names."]
    if model.task.objects is not None:
        lines += [
            "Objects are made of these channels by napari-unet-stacks, with the settings that the description has "
            f"under `config: {KEY}`; other programs may take connected parts of `inside` and grow them."
        ]
    scores = record.get("scores")
    lines += ["## Validation"]
    if isinstance(scores, dict) and scores:
        lines += ["On images held out from training:"]
        lines += ["\n".join(f"- {k}: {v:.4g}" for k, v in scores.items() if isinstance(v, int | float))]
    else:
        lines += ["No scores are recorded. Compare its results with labels of your own before you rely on them."]
    return "\n\n".join(lines) + "\n"
