"""Networks of other libraries, by the names and settings that these give them, in our words."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ModelError
from ..network import KnownConfig, halo_of, windowed
from ..network.layers import ACTS, NORMS

# Windows of networks whose norm measures: elements per axis, as 3-D networks of MONAI's zoo are run in 96 at a time.
WINDOW = {2: 256, 3: 96}
BASIC = (32, 32, 64, 128, 256, 32)  # features of a BasicUNet per level, and of its last block
SLOPE = 0.1  # of a BasicUNet's leaky units, where its settings say nothing
# Arguments that change nothing of what a trained network computes.
IDLE = {"dropout", "dropout_op", "dropout_op_kwargs", "deep_supervision", "inplace", "n_stages", "momentum"}
FAULTS = (TypeError, ValueError, KeyError, IndexError, AttributeError)
Words = dict[str, Any]


def known(library: str, name: str, given: Mapping[str, Any]) -> KnownConfig | None:
    """Return a network by the name that a library gives it; None where it is not one that is known.

    Parameters
    ----------
    library : str
        Module that has it, such as "monai.networks.nets".
    given : mapping
        Its arguments.

    Raises
    ------
    ModelError
        Where its settings are not understood.
    """
    reader = READERS.get((library.partition(".")[0], name.lower().replace("_", "")))
    if reader is None:
        return None
    left = {key: value for key, value in given.items() if key not in IDLE}
    try:
        found = reader(left)
    except FAULTS as error:
        raise ModelError(
            f"a {name} with {dict(given)} is not understood: {str(error)[:200]}; get the model as ONNX"
        ) from error
    if left:
        raise ModelError(f"a {name} with {', '.join(sorted(map(str, left)))} is not known; get the model as ONNX")
    return found


def placed(config: KnownConfig, window: Sequence[int] = (), blended: bool = False) -> KnownConfig:
    """Return a network with how far it looks, and the windows it is run in where its norm takes statistics of them.

    Parameters
    ----------
    window : sequence of int, optional
        Sizes it has learnt from; a usual size otherwise.
    blended : bool
        Whether its windows overlap and are weighed, as nnU-Net runs its networks.
    """
    sizes = tuple(window) or (WINDOW[config.ndim],) * config.ndim
    return windowed(dataclasses.replace(config, halo=halo_of(config)), sizes, blended)


def _basic(given: Words) -> KnownConfig:
    ndim, features = int(given.pop("spatial_dims", 3)), list(map(int, given.pop("features", BASIC)))
    if given.pop("upsample", "deconv") != "deconv" or len(features) != len(BASIC):
        raise ValueError(f"up-sampling by deconv and {len(BASIC)} numbers of features are known")
    settings = {
        "features": features,
        "kernels": [[3] * ndim],
        "strides": [[2] * ndim] * 4,
        "pool": "max",
        "bias": bool(given.pop("bias", True)),
        "norm": _norm(given.pop("norm", ("instance", {"affine": True}))),
        "act": _act(given.pop("act", ("leakyrelu", {"negative_slope": SLOPE}))),
        "order": "NA",
    }
    return _config("MONAI BasicUNet", ndim, (given.pop("in_channels", 1), given.pop("out_channels", 2)), settings)


def _unet(given: Words) -> KnownConfig:
    ndim, features = int(given.pop("spatial_dims")), list(map(int, given.pop("channels")))
    strides = [_per_axis(s, ndim) for s in given.pop("strides")][: len(features) - 1]
    if len(strides) != len(features) - 1 or len(features) < 2:
        raise ValueError(f"{len(features)} channels and {len(strides)} strides")
    settings: Words = {
        "features": features,
        "kernels": [_per_axis(given.pop("kernel_size", 3), ndim)],
        "up_kernels": [_per_axis(given.pop("up_kernel_size", 3), ndim)],
        "strides": strides,
        "units": int(given.pop("num_res_units", 0)),
        "bias": bool(given.pop("bias", True)),
        "norm": _norm(given.pop("norm", "instance")),
        "act": _act(given.pop("act", "prelu")),
        "order": "".join(letter for letter in given.pop("adn_ordering", "NDA").upper() if letter != "D"),
    }
    if sorted(settings["order"]) != ["A", "N"]:
        raise ValueError(f"the order {settings['order']!r}; norm and activation, once each, are known")
    return _config("MONAI UNet", ndim, (given.pop("in_channels"), given.pop("out_channels")), settings)


def _plain(given: Words) -> KnownConfig:
    return _nnunet(given, "n_conv_per_stage", residual=False)


def _residual(given: Words) -> KnownConfig:
    block = str(given.pop("block", "BasicBlockD")).rpartition(".")[2].removesuffix("'>")
    between = given.pop("bottleneck_channels", None)
    if block not in ("BasicBlockD", "BottleneckD"):
        raise ValueError(f"the block {block}")
    count, stem = len(given["kernel_sizes"]), given.pop("stem_channels", None)
    given["between"] = _per_stage(between, count) if block == "BottleneckD" else []
    given["stem"] = None if stem is None else int(stem)
    return _nnunet(given, "n_blocks_per_stage", residual=True)


def _nnunet(given: Words, counted: str, *, residual: bool) -> KnownConfig:
    kernels = given.pop("kernel_sizes")
    count, ndim = len(kernels), {"Conv2d": 2, "Conv3d": 3}[_last(given.pop("conv_op"))]
    strides = [_per_axis(s, ndim) for s in given.pop("strides")]
    if set(strides[0]) != {1} or len(strides) != count:
        raise ValueError(f"strides {strides}; the first level of {count} has none")
    settings = {
        "features": _per_stage(given.pop("features_per_stage"), count),
        "kernels": [_per_axis(k, ndim) for k in kernels],
        "strides": strides,
        "convs": _per_stage(given.pop(counted), count),
        "decoder_convs": _per_stage(given.pop("n_conv_per_stage_decoder"), count - 1),
        "bias": bool(given.pop("conv_bias", False)),
        "norm": _norm(_of_torch(given.pop("norm_op", None), given.pop("norm_op_kwargs", None))),
        "act": _act(_of_torch(given.pop("nonlin", None), given.pop("nonlin_kwargs", None))),
        "act_first": bool(given.pop("nonlin_first", False)),
        "residual": residual,
        "between": given.pop("between", []),
        "stem": given.pop("stem", None),
    }
    return _config("nnU-Net", ndim, (given.pop("input_channels"), given.pop("num_classes")), settings)


def _config(network: str, ndim: int, channels: tuple[Any, Any], settings: Words) -> KnownConfig:
    return KnownConfig(
        network=network, ndim=ndim, in_channels=int(channels[0]), out_channels=int(channels[1]), settings=settings
    )


def _per_axis(value: Any, ndim: int) -> list[int]:
    return [int(n) for n in value] if isinstance(value, list | tuple) else [int(value)] * ndim


def _per_stage(value: Any, count: int) -> list[int]:
    found = [int(n) for n in value] if isinstance(value, list | tuple) else [int(value)] * count
    if len(found) != count:
        raise ValueError(f"{found} for {count} levels")
    return found


def _last(name: Any) -> str:
    """Return the name of a class, without the module that has it."""
    return str(name).rpartition(".")[2].removesuffix("'>")


def _of_torch(name: Any, values: Any) -> Any:
    """Return a layer of PyTorch, by the class and the arguments that nnU-Net's plans say, as MONAI would."""
    return None if name is None else (_last(name).lower().removesuffix("2d").removesuffix("3d"), dict(values or {}))


def _layer(given: Any) -> tuple[str, Words]:
    """Return the name and the arguments of a layer: a name, or a name with arguments."""
    name, values = (given, {}) if isinstance(given, str) else ("none", {}) if given is None else given
    return str(name).lower(), {key: value for key, value in dict(values).items() if key not in IDLE}


def _norm(given: Any) -> list[Any]:
    name, values = _layer(given)
    name = {"instancenorm": "instance", "batchnorm": "batch", "groupnorm": "group"}.get(name, name)
    if name not in NORMS or set(values) - set(NORMS[name]):
        raise ValueError(f"the norm {name} with {values}")
    return [name, values]


def _act(given: Any) -> list[Any]:
    name, values = _layer(given)
    if name not in ACTS:
        raise ValueError(f"the activation {name}")
    return [name, values]


READERS: dict[tuple[str, str], Callable[[Words], KnownConfig]] = {
    ("monai", "basicunet"): _basic,
    ("monai", "unet"): _unet,
    ("dynamic_network_architectures", "plainconvunet"): _plain,
    ("dynamic_network_architectures", "residualencoderunet"): _residual,
}
