"""Checkpoints: the complete state of a training, written so that a kill at any time leaves a good one."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import UNUSABLE, DataError, ResourceError
from ..faults import named, persist
from ..files import remove, remove_leftovers, replace

KEPT = 2  # if the newest is damaged there is the one before


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, also after a power loss.

    Raises
    ------
    ResourceError, IncompleteError
        Where it cannot be written, for good or for the moment; the old one is untouched.
    """
    try:
        replace(path, data)
    except OSError as error:
        raise named(error) or ResourceError(
            f"cannot write {path} ({len(data)} bytes): {error.strerror or error}; "
            "the one before it is kept: make room, and resume"
        ) from error


def _packed(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors as a safetensors file."""
    try:
        return safetensors.torch.save(tensors)
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # how its Rust says that Python had no memory for the bytes
            raise MemoryError(str(error)) from error
        raise


def _check(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(dict(state))), sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read back.

    Parameters
    ----------
    state : dict
        Plain values.
    notes : tuple of str
        What the user should know: newer checkpoints that were damaged.
    """

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one kind in a folder: the tensors as safetensors, the rest and their hash as JSON.

    Parameters
    ----------
    kind : str
        First part of the file names: "checkpoint", "best".
    kept : int
        Newest that are kept.
    """

    folder: Path
    kind: str = "checkpoint"
    kept: int = KEPT

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that claim to be complete, newest first."""
        found = self.folder.glob(f"{self.kind}-*.json")
        return sorted(
            (int(p.stem.rpartition("-")[2]) for p in found if p.stem.rpartition("-")[2].isdigit()), reverse=True
        )

    def _path(self, step: int, suffix: str) -> Path:
        return self.folder / f"{self.kind}-{step:09d}{suffix}"

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove those that are older than the `kept` newest.

        Raises
        ------
        ResourceError
            Where it cannot be written; the older ones are untouched.
        """
        data = _packed({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        text = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), "state": dict(state), "check": _check(state)}
        # A checkpoint of this step from before a resume must not be claimed by the old hash while it is replaced.
        remove(self._path(step, ".json"))
        write_atomic(self._path(step, ".safetensors"), data)
        write_atomic(self._path(step, ".json"), json.dumps(text).encode())
        self.tidy()

    def drop_after(self, step: int) -> None:
        """Remove what is newer than `step`: a run that went back to it writes its own."""
        for newer in self.steps():
            if newer > step:
                remove(self._path(newer, ".json"))
        self.tidy()

    def tidy(self) -> None:
        """Remove all but the `kept` newest, and what a kill left half written."""
        kept = {self._path(s, "").name for s in self.steps()[: self.kept]}
        for path in self.folder.glob(f"{self.kind}-*"):
            if path.name.partition(".")[0] not in kept:
                remove(path)
        remove_leftovers([self.folder])

    def load(self) -> Checkpoint | None:
        """Return the newest good checkpoint, with a note for each newer one that is damaged; None if there is none.

        Raises
        ------
        DataError
            Where there are checkpoints and all are damaged.
        """
        notes: list[str] = []
        for step, found in self._read_all():
            if isinstance(found, Checkpoint):
                if notes:
                    notes.append(f"went back to step {step}")
                return dataclasses.replace(found, notes=tuple(notes))
            notes.append(found)
        if notes:
            raise DataError(f"no {self.kind} in {self.folder} is whole ({'; '.join(notes)}); start a new run")
        return None

    def _read_all(self) -> Iterator[tuple[int, Checkpoint | str]]:
        for step in self.steps():
            path = self._path(step, ".safetensors")
            try:
                text = json.loads(persist(self._path(step, ".json").read_bytes))
                data = persist(path.read_bytes)
                if hashlib.sha256(data).hexdigest() != text["sha256"]:
                    yield step, f"{path.name} is damaged: its SHA-256 differs"
                    continue
                if text.get("check", "") not in ("", _check(text["state"])):  # earlier versions wrote none
                    yield step, f"{path.name} is damaged: the SHA-256 of its state differs"
                    continue
                yield step, Checkpoint(safetensors.torch.load(data), text["state"])
            except (OSError, *UNUSABLE, safetensors.SafetensorError) as error:
                yield step, f"{path.name} cannot be read: {' '.join(str(error).split())[:300]}"
