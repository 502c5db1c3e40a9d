"""Take in models of others, packages or weights: model folders like any other, once their own test comes out right."""

import dataclasses
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ..errors import UNUSABLE, ModelError, UsageError
from ..events import Progress
from ..model import Model
from ..network import Graph, Known, KnownConfig, UNetConfig
from ..network.graph import WEIGHT
from .confined import ENDING
from .described import Described, Run, model_of, tested
from .exported import model_of_program
from .graphs import SMALL, graph_of, sizes_of
from .known import known, placed
from .nnunet import DATASET, PLANS, is_result, model_of_result, open_result, read_json
from .package import open_package
from .plain import model_of_weights
from .states import fitted_to, read_state, read_weights, tensors_of
from .translate import Gives

GIVES = ("auto", "labels", "image")
STATES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # files of weights alone


def import_model(
    package: str | os.PathLike[str],
    out: str | os.PathLike[str],
    gives: Gives = "auto",
    network: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    trust_torchscript: bool = False,
    overwrite: bool = False,
) -> Generator[Progress, None, Model]:
    """Make a model folder of a package of the BioImage Model Zoo, or of weights, without running anything in it.

    Its weights are taken as a PyTorch state dict where the network is ours, or one of nnU-Net or MONAI, else as ONNX.
    How far the network looks, and the grid on which it may be cut, are computed or measured; with them it runs on
    stacks of any size with intensities measured on the whole image, tile by tile. A package's own test must come out
    within 1e-4.

    Parameters
    ----------
    package : path
        Folder or zip of a package (0.4 or 0.5); result folder of nnU-Net, or one of its folds; file of weights or .pt2.
    out : path
        Model folder to make.
    gives : "auto", "labels" or "image"
        What its results are: labels of classes, or its output as an image. Labels where that is probabilities, if not
        said.
    network : mapping, or path of a JSON file, optional
        What a file of weights does not say: "network", such as "monai.networks.nets.UNet", and its "arguments";
        "intensities", such as "zscore"; "classes"; "channels"; "pixel_size"; "unit". Without it the network is told by
        the names and shapes of its weights, where they tell it.
    trust_torchscript : bool
        Let a program, where a package has no other weights or of a file (.pt2), become an ONNX graph: it is followed
        once, in a process that Linux confines to computing, without files, network and other processes.
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
    path = Path(package).expanduser()
    path = path.parent if path.name in (PLANS, DATASET) and path.is_file() else path
    if is_result(path) or path.suffix.lower() in (*STATES, ENDING):
        taken = yield from _of_weights(path, gives, _description(network), trust_torchscript)
        return taken.save(out, overwrite)
    if network is not None:
        raise UsageError(f"{path} is a package, which says itself what its network is; leave the network out")
    found = Described.of(open_package(path), gives)
    yield Progress(0, 3, "import", f"{found.package.description.name}: {found.package.description.description}")
    model, run = _own(found) or _known(found) or (None, None)
    if model is None or run is None:
        config, data = yield from graph_of(found, trust_torchscript)
        run = Graph(config, data).run
        model = model_of(found, config, {WEIGHT: np.frombuffer(data, np.uint8)})
    elif isinstance(model.config, KnownConfig):
        yield Progress(0, 3, "import", about(model.config))
    yield Progress(1, 3, "import", "its own test")
    difference = tested(found, run)
    yield Progress(2, 3, "import", f"its own test comes out, within {difference:.1g}")
    return model.save(out, overwrite)


def _description(network: Mapping[str, Any] | str | os.PathLike[str] | None) -> Mapping[str, Any] | None:
    """Return what is said of a network, read where it is a file."""
    if network is None or isinstance(network, Mapping):
        return network
    found = read_json(Path(network))
    if not isinstance(found, dict):
        raise UsageError(f'{network} describes no network; write {{"network": NAME, "arguments": {{...}}}}')
    return found


def _of_weights(
    path: Path, gives: Gives, network: Mapping[str, Any] | None, trust: bool
) -> Generator[Progress, None, Model]:
    """Make a model of a result of nnU-Net, or of weights alone; what these should give is not known, and not tried."""
    if path.suffix.lower() == ENDING:
        return (yield from model_of_program(path, network, gives, trust))
    yield Progress(0, 1, "import", f"the weights in {path}")
    state = read_weights(path) if path.is_file() else None
    if state is None or is_result(path) or "init_args" in state:
        result, notes = open_result(path, state)
        model, more = model_of_result(result, gives)
    else:
        notes, (model, more) = [], model_of_weights(state, path, network, gives)
    yield Progress(0, 1, "import", about(cast("KnownConfig", model.config)))
    for note in (*notes, *more, "there is no test in it: compare its results with those of the program it is from"):
        yield Progress(0, 1, "import", note)
    return model


def _own(found: Described) -> tuple[Model, Run] | None:
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
    name = str(found.package.path)
    model = model_of(found, config, tensors_of(read_state(found.package.file(weights), name), name))
    net, kept = model.network(), architecture.kwargs["kept"]

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(x)).numpy())[:, : kept or None]

    return model, run


def _known(found: Described) -> tuple[Model, Run] | None:
    """Return the model where the network is one of another library that is known, and the function that runs it.

    Raises
    ------
    UnsafeError, ModelError
        Where the weights are more than tensors, or do not fit.
    """
    weights = found.package.description.weights.pytorch_state_dict
    architecture = getattr(weights, "architecture", None)
    library, name = (str(getattr(architecture, part, "")) for part in ("import_from", "callable"))
    config = known(library, name, getattr(architecture, "kwargs", {}))
    if config is None:
        return None
    axes = "bc" + found.given.space
    if (found.given.axes, found.gives.axes) != (axes, axes):
        raise ModelError(
            f"a network of {library} takes the axes {axes!r}, not {found.given.axes!r}; get the model as ONNX"
        )
    if config.ndim != len(found.given.space) or config.in_channels != len(found.given.names):
        raise ModelError(
            f"{name} takes {config.in_channels} channels and {config.ndim} axes, the package describes "
            f"{len(found.given.names)} and {len(found.given.space)}; get the package again"
        )
    place = str(found.package.path)
    read = fitted_to(config, tensors_of(read_state(found.package.file(weights), place), place), place)
    net, outputs = Known(config, read), found.task.out_channels

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(x)).numpy())

    head = config.out_channels if config.out_channels != outputs else 0
    config = dataclasses.replace(
        placed(config), out_channels=outputs, head=head, before=found.pointwise, after=found.steps
    )
    return model_of(found, config, read), run


def about(config: KnownConfig) -> str:
    """Say how far a network looks, and what makes its results alike however an image is cut."""
    if config.window:
        how = (
            f"windows of {sizes_of(config.window)} that overlap by half and are weighed, as nnU-Net runs it"
            if config.blended
            else f"{SMALL}windows of {sizes_of(config.window)} at fixed places"
        )
        return (
            f"{config.network}: its norm takes statistics of what it is given, so it runs in {how}: alike for all tiles"
        )
    return (
        f"{config.network}: looks {sizes_of(config.halo)} elements to either side, on a grid of "
        f"{sizes_of(config.stride)}: exact tile by tile"
    )
