"""Which device, which precision and which packages a run uses."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def too_old(distribution: str, *names: str) -> list[str]:
    """Say which installed packages are older than a distribution declares, those of its extra ``all`` among them.

    Parameters
    ----------
    distribution : str
        Whose declarations count.
    *names : str
        The packages to look at; all if none is given.
    """
    from packaging.requirements import Requirement  # not at the top: settings name devices

    found = []
    for needed in map(Requirement, importlib.metadata.requires(distribution) or ()):
        if (names and needed.name not in names) or not (
            needed.marker is None or needed.marker.evaluate({"extra": "all"})
        ):
            continue
        version = versions(needed.name)[needed.name]
        if version[0].isdigit() and not needed.specifier.contains(version, prereleases=True):
            found.append(f"{needed.name} is {version}, wanted is {needed.specifier}")
    return found


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device of that name, of several with commas between the first; auto takes the fastest that is there.

    Where it is CUDA, cuDNN computes float32 as float32 from then on, not in tf32, and the same way each time: otherwise
    results would depend on how the work is cut up, and weights on the run.

    Raises
    ------
    UsageError
        Where one of them is not on this machine.
    """
    first, *_ = [_device(each) for each in name.split(",")]
    return first


def _device(name: str) -> "torch.device":
    import torch  # not at the top: settings name devices where torch is not loaded

    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    name = next(kind for kind, here in count.items() if here) if name == "auto" else name
    kind, _, number = name.partition(":")
    if not (number or "0").isdecimal() or int(number or 0) >= count.get(kind, 0):
        here = ", ".join(kind for kind, there in count.items() if there)
        raise UsageError(f"device {name!r} is not on this machine; choose auto or one of {here}")
    if kind == "cuda":
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    return torch.device(name)


def choose_precision(name: str, device: "torch.device") -> "torch.dtype":
    """Return float32 or bfloat16; auto is bfloat16 where the hardware computes in it."""
    import torch

    if name not in PRECISIONS:
        raise UsageError(f"precision is {name!r}; choose one of {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def computes_bfloat16(device: "torch.device") -> bool:
    """Whether the device has instructions for bfloat16."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16")) and onednn_takes_bfloat16()
    return False


def onednn_takes_bfloat16() -> bool:
    """Whether oneDNN takes bfloat16: not on processors with AVX2 alone, nor where ONEDNN_MAX_CPU_ISA leaves no more."""
    import torch

    operators: Any = torch.ops.mkldnn
    return not hasattr(operators, "_is_mkldnn_bf16_supported") or bool(operators._is_mkldnn_bf16_supported())
