"""Script, run as a process of its own: turn a PyTorch weight file into safetensors, tensors only, within limits.

Called as ``python -I sandbox.py SOURCE TARGET BYTES``; ends with 0, 3 (not weights) or 4 (would have run code).
"""

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

SECONDS = 120
ROOM = 2**30


def main(source: Path, target: Path, limit: int) -> int:
    """Convert `source` to `target`; tensors of at most `limit` bytes in all."""
    bound(limit)
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        return say(4, str(error).splitlines()[0])
    except (RuntimeError, EOFError, ValueError, KeyError, MemoryError) as error:
        return say(3, f"it cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    return convert(loaded, target, limit)


def convert(loaded: Any, target: Path, limit: int) -> int:
    """Write a table of tensors, or one inside the usual wrappings, to `target`."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        return say(3, f"it holds a {type(loaded).__name__}, no table of weights")
    wrong = [str(key) for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        return say(3, f"these entries are no tensors: {', '.join(wrong[:5])}")
    size = sum(value.numel() * value.element_size() for value in loaded.values())
    if size > limit:
        return say(3, f"its tensors have {size} bytes, the network at most {limit}")
    arrays = {str(key): array(value) for key, value in loaded.items()}
    target.write_bytes(safetensors.numpy.save(arrays))
    return 0


def array(value: torch.Tensor) -> np.ndarray:
    """Return a tensor as float32 or int64."""
    kind = torch.float32 if value.is_floating_point() else torch.int64
    return value.detach().to(kind).contiguous().numpy().copy()


def bound(limit: int) -> None:
    """Limit memory, processor time, files and core dumps of this process, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    used = 0
    status = Path("/proc/self/status")
    if status.exists():
        used = next(
            int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmSize")
        )
        resource.setrlimit(resource.RLIMIT_AS, (used + 4 * limit + ROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * limit + 2**20,) * 2)


def say(code: int, text: str) -> int:
    """Tell the caller why, on stderr."""
    sys.stderr.write(f"\nwhy: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
