"""Losses and validation scores of class logits: in float32, never NaN, blind where nothing is annotated."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError

IGNORE = -1  # no class has it: unlabelled voxels
SMOOTH = 1e-5  # keeps the quotient finite where a class is absent, and changes no other by more than that
BYTE = 2**8  # classes whose indices are one byte each
TINY = 1e-12  # keeps the mean of nothing at 0 instead of NaN
BACKGROUND = "background"


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None, voxel: Tensor | None = None) -> Tensor:
    """Weighted mean of -log p of the true class.

    Parameters
    ----------
    logits : (B, K, *S) tensor of any floating type
    target : (B, *S) int64 tensor
        Class index, ``IGNORE`` where not annotated.
    weights : (K,) tensor, optional
        Weight per class.
    voxel : (B, *S) tensor, optional
        Weight per voxel, times that of its class.

    Returns
    -------
    scalar float32 tensor; 0, with a gradient of 0, where nothing is annotated.
    """
    logits = logits.float()
    factor = _voxel_weights(target, _on(weights, logits))
    factor = factor if voxel is None else factor * voxel
    entropy = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    return (entropy * factor).sum() / factor.sum().clamp_min(TINY)


def focal(logits: Tensor, target: Tensor, weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that turns from what is already right to what is still wrong.

    Parameters
    ----------
    logits, target, weights
        As for `cross_entropy`.
    gamma : float, at least 1
        0 would be the cross-entropy.

    References
    ----------
    Lin et al.: Focal loss for dense object detection, ICCV 2017.
    """
    logits = logits.float()
    weights = _on(weights, logits)
    entropy = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    voxel = _voxel_weights(target, weights)
    wrong = -torch.expm1(-entropy)
    return (voxel * wrong.pow(gamma) * entropy).sum() / voxel.sum().clamp_min(TINY)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, the mean over the classes that are annotated in the batch, all its images taken together.

    Parameters
    ----------
    logits, target
        As for `cross_entropy`.

    References
    ----------
    Milletari et al.: V-Net, 3DV 2016; Drozdzal et al. 2016 for taking the batch together.
    """
    axes = [0, *range(2, logits.ndim)]
    valid = (target != IGNORE).unsqueeze(1)
    probabilities = logits.float().softmax(1) * valid
    truth = torch.zeros_like(probabilities).scatter_(1, target.clamp_min(0).unsqueeze(1), valid.float())
    size = truth.sum(axes)
    overlap = (probabilities * truth).sum(axes)
    score = (2 * overlap + SMOOTH) / (probabilities.sum(axes) + size + SMOOTH)
    present = (size > 0).float()
    return ((1 - score) * present).sum() / present.sum().clamp_min(1)


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits.device, torch.float32)


def _voxel_weights(target: Tensor, weights: Tensor | None) -> Tensor:
    """(B, *S) float32: the weight of each element's class, 0 where not annotated."""
    valid = (target != IGNORE).float()
    return valid if weights is None else valid * weights[target.clamp_min(0)]


def likeliest(logits: Tensor) -> Tensor:
    """Return the index of the largest of (K, *S) logits, (*S) uint8 or, of more than 256, int16, the first of equals.

    Raises
    ------
    ModelError
        Where one is NaN or infinite.
    """
    best, found = logits[0], torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for index in range(1, len(logits)):
        above = logits[index] > best
        if index == 1:
            found = above.view(torch.uint8) if len(logits) <= BYTE else above.to(torch.int16)
        else:
            found.masked_fill_(above, index)
        best = torch.maximum(best, logits[index]) if index < len(logits) - 1 else best
    # A sum costs less than looking at each; it may overflow where all are finite.
    if not bool(torch.isfinite(logits.sum())) and not bool(torch.isfinite(logits.amax(0)).all()):
        raise ModelError("the network gave NaN or infinite values; compute in fp32, or repair the image")
    return found


class Scores(abc.ABC):
    """Adds up what a validation pass sees, then gives its scores."""

    @abc.abstractmethod
    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take in a batch: network output and targets, as `Task.loss` takes them."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """Return the scores, all finite, `Task.score` among them."""

    def settings(self) -> dict[str, Any]:
        """Return fields of the task that are best set as this pass has shown; none by default."""
        return {}


class Confusion(Scores):
    """Counts of true against predicted classes, and the Dice they give.

    Parameters
    ----------
    names : tuple of str
        One per class.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.counts = np.zeros((len(names), len(names)), dtype=np.int64)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take in (B, K, *S) logits and class indices, (B, *S) or the first of (B, C, *S), ``IGNORE`` left out."""
        classes = len(self.names)
        target = target[:, 0] if target.ndim == logits.ndim else target
        guess = likeliest(logits.detach().transpose(0, 1)).long()
        valid = target != IGNORE
        pairs = target[valid] * classes + guess[valid]
        self.counts += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu().numpy()

    def result(self) -> dict[str, float]:
        """Return ``dice``, the mean without the background, and ``dice_<name>`` for each class that was seen.

        A class that the truth does not hold is left out of the mean, which one false voxel of it would halve.
        ``dice`` is 0, which says nothing, where the truth holds no class but the background.
        """
        truth = self.counts.sum(1)
        sizes = self.counts.sum(0) + truth
        each = {name: float(2 * self.counts[i, i] / sizes[i]) for i, name in enumerate(self.names) if sizes[i]}
        objects = [each[name] for i, name in enumerate(self.names) if truth[i] and name != BACKGROUND]
        mean = sum(objects) / len(objects) if objects else 0.0
        return {"dice": mean, **{f"dice_{name}": score for name, score in each.items()}}
