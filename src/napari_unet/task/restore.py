"""Images from images: what is blurred, noisy or coarse becomes sharp, clean and fine."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..arrays.resample import as_type
from ..errors import DataError, ModelError
from ..metrics.objects import Intensity
from ..settings import takes_former_names
from .base import Task
from .blind import blind_spots
from .losses import Scores
from .similarity import similarity

LOSSES = ("l1", "l2", "ssim")
TYPES = ("float32", "float16", "uint8", "uint16", "int16", "uint32", "int32")  # that OME-Zarr and its readers share
SSIM_SHARE = 0.84  # Zhao et al. 2017: the mix of similarity and absolute difference
LARGEST_LOG_VARIANCE = 7.0  # to either side: a standard deviation of exp(3.5) = 33


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class Restore(Task):
    """Intensities in the target's own units; normalised as (intensity - offset) / scale while they are learnt.

    Parameters
    ----------
    channels : tuple of str
        Name of each channel of the target.
    offset, scale : tuple of float, one per channel
    loss_name : "l1", "l2" or "ssim"
        Mean absolute difference, mean squared difference, or 0.84 (1 - SSIM) + 0.16 l1.
    blind : bool
        Whether the target is the noisy image itself: learnt at voxels that the network cannot see (blind spots).
    noise : tuple of float
        Standard deviation of the noise put on the image while it is learnt, a channel of it, in normalised units.
    predict_std : bool
        Whether the network gives the standard deviation of each intensity too.
    calibration : float
        Factor on the standard deviation, such that it is right on what was held out.
    dtype_name : str
        Element type of the result; integers are rounded and kept in their range.

    Raises
    ------
    DataError
        Where the lists do not fit each other, or a value is out of range.

    References
    ----------
    Krull et al.: Noise2Void, CVPR 2019, for the blind spots; Zhao et al. 2017 for the mix with SSIM; Seitzer et al.,
    ICLR 2022, for the loss with a standard deviation.
    """

    channels: tuple[str, ...] = ("intensity",)
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    loss_name: str = "l2"
    blind: bool = False
    noise: tuple[float, ...] = ()
    predict_std: bool = False
    calibration: float = 1.0
    dtype_name: str = "float32"
    name: ClassVar[str] = "restore"
    learns_from: ClassVar[Literal["labels", "image"]] = "image"
    result: ClassVar[Literal["labels", "image"]] = "image"
    score: ClassVar[str] = "psnr"

    def __post_init__(self) -> None:
        if not self.channels or not len(self.channels) == len(self.offset) == len(self.scale):
            raise DataError(
                f"channels {self.channels}, offset {self.offset} and scale {self.scale} do not fit; "
                "give one of each a channel"
            )
        if not np.isfinite([*self.offset, *self.scale, self.calibration]).all() or min(self.scale) <= 0:
            raise DataError(f"offset {self.offset} and scale {self.scale} must be finite, the scale above 0")
        for name, allowed in (("loss_name", LOSSES), ("dtype_name", TYPES)):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if (self.blind or self.predict_std) and self.loss_name == "ssim":
            raise DataError("ssim compares neighbourhoods: it takes neither blind nor predict_std; choose l2")
        if any(not 0 <= n < math.inf for n in self.noise):
            raise DataError(f"noise is {self.noise}; it must be 0 or above")

    @property
    def out_channels(self) -> int:
        """Channels of the target, and as many standard deviations."""
        return len(self.channels) * (1 + self.predict_std)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each channel."""
        return self.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the result."""
        return np.dtype(self.dtype_name)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Normalise (C, *S) target intensities: float32 of that shape."""
        if len(labels) != len(self.channels):
            raise DataError(f"the target has {len(labels)} channels; {len(self.channels)} are learnt: {self.channels}")
        shape = (-1, *(1,) * (labels.ndim - 1))
        normalised = (labels.astype(np.float64) - np.reshape(self.offset, shape)) / np.reshape(self.scale, shape)
        return normalised.astype(np.float32)

    def prepare(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Put noise on the images; hide blind spots, whose places are a channel more of the targets."""
        if any(self.noise):
            draws = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
            images = images + draws * torch.tensor(self.noise).reshape(-1, *(1,) * (images.ndim - 2)).to(images)
        if self.blind:
            images, hidden = blind_spots(images, generator)
            targets = torch.cat([targets, hidden.to(targets)], 1)
        return images, targets

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of (B, K, *S) output against (B, C, *S) targets, or (B, C + 1, *S) with blind spots."""
        logits, count = logits.float(), len(self.channels)
        truth, weight = target[:, :count], target[:, count:] if self.blind else None
        found = logits[:, :count]
        if self.predict_std:
            each = self._likelihood(found, logits[:, count:], truth)
        elif self.loss_name == "l2":
            each = (found - truth).square()
        else:
            each = (found - truth).abs()
        if weight is not None:
            return (each * weight).sum() / (weight.sum() * count).clamp_min(1)
        if self.loss_name == "ssim":
            return SSIM_SHARE * (1 - similarity(found, truth)) + (1 - SSIM_SHARE) * each.mean()
        return each.mean()

    @staticmethod
    def _likelihood(found: Tensor, log_variance: Tensor, truth: Tensor) -> Tensor:
        """Return the negative log-likelihood of a normal distribution, weighted by its own variance."""
        log_variance = log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
        likelihood = 0.5 * ((found - truth).square() * torch.exp(-log_variance) + log_variance)
        return likelihood * torch.exp(0.5 * log_variance).detach()

    def decode(self, logits: Tensor) -> np.ndarray:
        """Turn (K, *S) output into (C, *S) intensities in their own units and element type.

        Raises
        ------
        ModelError
            Where one is NaN or infinite.
        """
        found = logits[: len(self.channels)].float()
        if not bool(torch.isfinite(found).all()):
            raise ModelError("the network gave NaN or infinite values; compute in fp32, or repair the image")
        own = self._of_channels(self.scale, found) * found.cpu().double().numpy() + self._of_channels(
            self.offset, found
        )
        if self.dtype == np.float16:
            own = own.clip(-float(np.finfo(np.float16).max), float(np.finfo(np.float16).max))
        return as_type(own, self.dtype)

    def predicted_std(self, logits: Tensor) -> np.ndarray:
        """Turn (K, *S) output into the standard deviation of each intensity, (C, *S) float32, in its own units."""
        log_variance = logits[len(self.channels) :].float().clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)
        sd = torch.exp(0.5 * log_variance).cpu().double().numpy()
        return (self.calibration * self._of_channels(self.scale, log_variance) * sd).astype(np.float32)

    @staticmethod
    def _of_channels(values: tuple[float, ...], like: Tensor) -> np.ndarray:
        return np.reshape(values, (-1, *(1,) * (like.ndim - 1)))

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Return the normalised intensities, (C, *S) float32: there are no classes."""
        return np.asarray(logits[: len(self.channels)].float().cpu().numpy())

    def scores(self) -> "Differences":
        """Return a new sum of scores: peak signal-to-noise ratio."""
        return Differences(self)

    def attributes(self) -> dict[str, Any]:
        """Return nothing: what is shown of an image is measured."""
        return {}


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class SuperResolve(Restore):
    """Intensities on a finer grid: the network's output has its factor of elements per axis."""

    name: ClassVar[str] = "super_resolve"


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class Autoencode(Restore):
    """The image itself, through a network without skips: what passes the bottleneck describes it."""

    name: ClassVar[str] = "autoencode"


class Differences(Scores):
    """Adds up how far predicted intensities are from the true ones."""

    def __init__(self, task: Restore) -> None:
        self._task, self._sums = task, Intensity()
        self._relative, self._count = 0.0, 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take in (B, K, *S) output and targets; with blind spots these only."""
        count = len(self._task.channels)
        logits, target = logits.detach().float().cpu(), target.float().cpu()
        seen = (target[:, count:] > 0).expand(-1, count, *target.shape[2:]) if self._task.blind else ...
        found, truth = logits[:, :count][seen], target[:, :count][seen]
        self._sums += Intensity.of(truth.numpy(), found.numpy())
        if self._task.predict_std:
            log_variance = logits[:, count:].clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)[seen]
            self._relative += float(((found - truth).square() * torch.exp(-log_variance)).double().sum())
            self._count += truth.numel()

    def result(self) -> dict[str, float]:
        """Return ``psnr``, ``nrmse`` and ``mae``; the last in normalised units."""
        if not self._sums.n:
            return {"psnr": 0.0, "nrmse": 0.0, "mae": 0.0}
        return {k: float(np.clip(v, -1e6, 1e6)) for k, v in self._sums.scores().items()}

    def settings(self) -> dict[str, Any]:
        """Return the factor with which the standard deviation is right."""
        if not self._count or not self._task.predict_std:
            return {}
        return {"calibration": max(math.sqrt(self._relative / self._count), 1e-6)}
