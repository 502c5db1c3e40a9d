"""State dicts: read as tensors alone, whatever lies beside them, and fitted to the names of a network that is known."""

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from ..errors import ModelError, UnsafeError
from ..files import read_plain
from ..model.weights import expected
from ..network import KnownConfig
from .package import MOST

# Where programs keep the weights in a checkpoint, the first that is there: nnU-Net, Lightning, MONAI, and others.
KEPT = ("network_weights", "state_dict", "model_state_dict", "model", "net", "network", "weights")
# What wrappers of networks write before the names of weights; several may be there.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "_model.")
# Parts of names of weights that nnU-Net writes again under another name, or that served its training alone.
BESIDE = (".all_modules.", "decoder.encoder.", "decoder.seg_layers.")
MOST_WRAPPED = 4  # of which one holds the other
# Numbers of numpy that checkpoints hold beside their tensors, such as the losses of a training: read as nothing.
NUMPY = (
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray", "_codecs.encode",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float32", "Float64", "Int32", "Int64", "Bool", "Str", "Object")),
)  # fmt: skip

NAMED = re.compile(r"GLOBAL (\S+)")  # a class that a file wants to be made, as torch names it


def read_weights(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds, as `read_state`.

    Raises
    ------
    ModelError, UnsafeError
        Where it cannot be read, or holds more.
    """
    return read_state(read_file(path), str(path))


def read_file(path: Path) -> bytes:
    """Return the bytes of a file of weights or of a program.

    Raises
    ------
    ModelError
        Where it cannot be read, or is larger than any.
    """
    try:
        return read_plain(path, MOST)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; "
            "check that it is there and that you may read it"
        ) from error


class Nothing:
    """What stands in for a number of numpy: whatever it is made from is forgotten."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_state(data: bytes, name: str) -> dict[str, Any]:
    """Return what a file of weights holds: tensors, numbers, texts, lists and tables.

    Nothing of it is run: what is no tensor and no plain value is refused, and numbers of numpy are left out.

    Raises
    ------
    UnsafeError
        Where it holds more than that.
    ModelError
        Where it is no file of weights.
    """
    if data[:1] == b"\x80" or data[:2] == b"PK":
        found = _unpacked(data, name)
    else:
        try:
            found = {k: torch.from_numpy(v.copy()) for k, v in safetensors.numpy.load(data).items()}
        except (safetensors.SafetensorError, ValueError, TypeError) as error:
            raise ModelError(
                f"{name} is no file of weights: neither PyTorch's nor safetensors'; get it again"
            ) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{name} holds a {type(found).__name__}, not weights by their names; save its state_dict")
    return {str(key): value for key, value in found.items()}


def _unpacked(data: bytes, name: str) -> Any:
    """Return what PyTorch saved."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.rpartition("/")[2] == "constants.pkl" for member in archive.namelist()):
            raise UnsafeError(
                f"{name} is a program of TorchScript, which is not run; get the state dict of the network, or ONNX"
            )
    try:
        stand_ins: Any = [(_stand_in(), path) for path in NUMPY]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        found = NAMED.search(str(error))  # the rest of what torch says is how to run it all the same
        what = f" ({found[1][:100]})" if found else ""
        raise UnsafeError(
            f"{name} holds more than tensors and plain values{what}, or is damaged; it is not read, as that could run "
            "code: save the network's state_dict, or get it again"
        ) from error


def _stand_in() -> type:
    """Return a class of its own: one is known by one name only."""
    return type("Nothing", (Nothing,), {})


def tensors_of(found: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Return the weights in what a file holds, under its own or a usual name.

    Raises
    ------
    ModelError
        Where there are none.
    """
    for key in KEPT:
        if isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors or len(tensors) != len(found):
        raise ModelError(
            f"{name} holds no weights by their names, alone or under {', '.join(KEPT)}; save the network's state dict"
        )
    return {key: _array(value) for key, value in tensors.items()}


def _array(value: torch.Tensor) -> np.ndarray:
    value = value.detach()
    return np.asarray((value.float() if value.is_floating_point() else value).cpu().numpy())


def fitted_to(config: KnownConfig, tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the weights of a network under its own names; what is there twice, or for a training, is left out.

    Raises
    ------
    ModelError
        Where names or shapes are others.
    """
    wanted = expected(config)
    best: dict[str, np.ndarray] = {}
    for prefix in _prefixes(tensors):
        found = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        counted = {key: value for key, value in found.items() if key in wanted}
        best = max(best, counted, key=len)
        if len(counted) == len(wanted):
            break
    counts = {key: np.zeros((), np.int64) for key in wanted if key.endswith("num_batches_tracked")}
    best = counts | best
    more = next((key for key in found if key not in wanted and not any(part in key for part in BESIDE)), None)
    if more is not None and len(best) == len(wanted):
        raise ModelError(
            f"the weights in {name} do not fit {config.network} with these settings: "
            f"it has no {more[:200]}, they have; give the settings it was made with"
        )
    missing = [key for key in wanted if key not in best]
    wrong = [
        f"{key} {best[key].shape} for {wanted[key][0]}"
        for key in wanted
        if key in best and best[key].shape != wanted[key][0]
    ]
    if missing or wrong:
        raise ModelError(
            f"the weights in {name} do not fit {config.network} with these settings: "
            f"{f'missing {missing[0]} and {len(missing) - 1} more' if missing else wrong[0]}; "
            "give the settings it was made with"
        )
    return best


def unwrapped(tensors: Mapping[str, np.ndarray], sign: Sequence[str]) -> dict[str, np.ndarray]:
    """Return weights without what wrappers write before their names: the first way in which one of `sign` is there."""
    for prefix in _prefixes(tensors):
        if any(prefix + each in tensors for each in sign):
            return {key.removeprefix(prefix): value for key, value in tensors.items()}
    return dict(tensors)


def _prefixes(tensors: Mapping[str, Any]) -> Iterator[str]:
    """Yield what may stand before all names, the shortest first."""
    prefix = ""
    yield prefix
    for _ in range(MOST_WRAPPED):
        step = next((each for each in PREFIXES if all(key.startswith(prefix + each) for key in tensors)), None)
        if step is None:
            return
        prefix += step
        yield prefix
