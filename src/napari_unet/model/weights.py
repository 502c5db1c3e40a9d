"""Weights as safetensors: written with care, and believed only after every check."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch

from ..cards import SIZES, read_header
from ..errors import ModelError
from ..network import GraphConfig, KnownConfig, LearntConfig, NetworkConfig, UNet, build
from ..network.graph import WEIGHT

LISTED = 5  # names in a message: enough to see what kind of weights are wrong
MAX_WEIGHTS = 2**33  # 32 GiB of float32: some hundred times a large U-Net; no card makes us ask for more memory
Shapes = dict[str, tuple[tuple[int, ...], bool]]


def expected(config: NetworkConfig) -> Shapes:
    """Return (shape, whether floating) of each weight that the network of `config` has; nothing is allocated.

    Raises
    ------
    ModelError
        Where no network can be built from it.
    """
    if isinstance(config, GraphConfig):
        return {WEIGHT: ((config.bytes,), False)}
    found = {key: (tuple(value.shape), value.is_floating_point()) for key, value in meta(config).state_dict().items()}
    if sum(math.prod(shape) for shape, _ in found.values()) > MAX_WEIGHTS:
        raise ModelError(f"a network of {config.features} features has too many weights; the most is {MAX_WEIGHTS}")
    return found


def network_of(config: LearntConfig) -> torch.nn.Module:
    """Return a network with new weights."""
    return build(config) if isinstance(config, KnownConfig) else UNet(config)


def meta(config: LearntConfig) -> torch.nn.Module:
    """Build the network without memory for its weights.

    Raises
    ------
    ModelError
        Where the config's numbers are too large for a network.
    """
    try:
        with torch.device("meta"):
            return network_of(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)  # torch adds a trace of its own
        raise ModelError(
            f"no network can be built from these settings: {first[:200]}; give smaller ones, or get the model again"
        ) from error


def weights_of(net: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of a network's weights, as numpy arrays."""
    return {key: value.detach().cpu().numpy().copy() for key, value in net.state_dict().items()}


def check_shapes(got: Shapes, config: NetworkConfig, name: str) -> None:
    """Hold names, shapes and types of weights against the network of `config`.

    Raises
    ------
    ModelError
        Listing the first few that are missing, too many, or different.
    """
    wanted = expected(config)
    lists = {
        "missing": [key for key in wanted if key not in got],
        "not known": [key for key in got if key not in wanted],
        "of another shape or type": [
            f"{key} {got[key][0]} for {wanted[key][0]}" for key in wanted if key in got and got[key] != wanted[key]
        ],
    }
    faults = [f"{what}: {_first(keys)}" for what, keys in lists.items() if keys]
    if faults:
        raise ModelError(f"{name} does not fit its network; weights {'; '.join(faults)}")


def check_finite(weights: Mapping[str, np.ndarray], name: str) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    ModelError
        Naming the weights that have them.
    """
    wrong = [key for key, value in weights.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if wrong:
        raise ModelError(f"{name} has NaN or infinite weights: {_first(wrong)}; the training that made it failed")


def write_weights(weights: Mapping[str, np.ndarray], half: bool) -> bytes:
    """Return the bytes of a safetensors file: float32, kernels as float16 where `half`.

    What is a number a feature (biases, the statistics of a norm) is small, and may be past the range of float16.
    """
    arrays = {}
    for key in sorted(weights):
        v = weights[key]
        kind = None if v.dtype.kind != "f" else np.float16 if half and v.ndim > 1 else np.float32
        arrays[key] = np.ascontiguousarray(v, kind).reshape(v.shape)
    return safetensors.numpy.save(arrays)


def read_weights(path: Path, config: NetworkConfig, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Read a safetensors file, checked from cheap to costly: header, size, names and shapes, hash, finite.

    Parameters
    ----------
    config : NetworkConfig
        Network that the weights must fit.
    sha256 : str, optional
        Of the whole file.

    Returns
    -------
    dict of name to float32 (or int64) array

    Raises
    ------
    ModelError
        Naming the file and what is wrong with it.
    """
    damaged = f"{path} is truncated or damaged"
    remedy = "get the model again, or train it again"
    try:
        header, start = read_header(path)
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        shapes = {key: (tuple(map(int, v["shape"])), v["dtype"] not in ("I64", "U8")) for key, v in entries.items()}
        size = start + sum(math.prod(shapes[key][0]) * SIZES[v["dtype"]] for key, v in entries.items())
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror or error}; check that it is there and that you may read it"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{damaged}: its header makes no sense; {remedy}") from error
    check_shapes(shapes, config, str(path))
    if size != path.stat().st_size:
        raise ModelError(f"{damaged}: {path.stat().st_size} bytes instead of {size}; {remedy}")
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{damaged}: its sha256 is not the one in model.json; {remedy}")
    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"{damaged}: {error}; {remedy}") from error
    check_finite(weights, str(path))
    return {key: v.astype(np.float32) if v.dtype.kind == "f" else v for key, v in weights.items()}


def _first(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name[:200] for name in names[:LISTED]) + more
