"""Augmentation in batch, 2-D and 3-D: one resampling for all geometry, and every random number from one generator."""

import dataclasses
import math
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..settings import check, setting
from .config import TrainConfig

EQUAL = 1.01  # pixel sizes nearer than this are one size, rounded
ISOTROPIC = 1.5  # beyond it a rotation out of the plane smears planes that are far apart
CONTROL_POINTS = 3  # per axis: Ronneberger et al. 2015, section 3.1
# Fields that `strength` multiplies; shares and switches stay.
STRENGTHS = ("rotation", "scale", "elastic", "gamma", "contrast", "brightness", "noise", "blur")


@dataclasses.dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How training patches are varied; strengths are maxima, or standard deviations (sd)."""

    flip: bool = setting(True, "mirror along each axis, half of the time")
    turn: bool = setting(True, "turn by right angles in planes of equal pixel size")
    deform: float = setting(0.5, "share of patches that are rotated, scaled and deformed", ge=0, le=1)
    rotation: float = setting(30.0, "rotation in degrees", ge=0, le=180)
    scale: float = setting(0.2, "scaling: 0.2 is from 1/1.2 to 1.2", ge=0, le=1)
    elastic: float = setting(4.0, "elastic displacement: sd in pixels of the finest axis", ge=0, le=100)
    intensity: float = setting(0.3, "share of patches for each change of intensity", ge=0, le=1)
    gamma: float = setting(0.3, "gamma: 0.3 is from 1/1.3 to 1.3", ge=0, le=3)
    contrast: float = setting(0.25, "contrast: 0.25 is from 1/1.25 to 1.25", ge=0, le=3)
    brightness: float = setting(0.2, "brightness, in standard deviations of the patch", ge=0, le=3)
    noise: float = setting(0.2, "noise, in standard deviations of the patch", ge=0, le=3)
    blur: float = setting(1.0, "blur: sigma in pixels of the finest axis", ge=0, le=10)
    strength: float = setting(1.0, "factor on all of these strengths; shares stay", ge=0, le=3)

    def __post_init__(self) -> None:
        check(self)

    def strengthened(self) -> Self:
        """Return the config of strength 1 with the factor in its strengths, none beyond its limit."""
        values = {name: getattr(self, name) * self.strength for name in STRENGTHS}
        limits = {field.name: field.metadata["le"] for field in dataclasses.fields(self)}
        return dataclasses.replace(self, strength=1.0, **{name: min(v, limits[name]) for name, v in values.items()})

    @classmethod
    def none(cls) -> Self:
        """Return the config that leaves patches as they are."""
        return cls(flip=False, turn=False, deform=0.0, intensity=0.0)

    @classmethod
    def ronneberger2015(cls) -> Self:
        """Return the paper's: rotation, elastic deformation (3x3 grid, sd 10 pixels), grey value variations."""
        return cls(deform=1.0, rotation=180.0, scale=0.0, elastic=10.0, noise=0.0, blur=0.0)


def augment(
    images: Tensor, targets: Tensor, generator: torch.Generator, config: AugmentConfig, spacing: tuple[float, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Vary a batch; images and targets move together, what comes from outside a patch is mirrored.

    Parameters
    ----------
    images : (B, C, *S) float32 tensor, normalised
    targets : (B, *S) or (B, C', *S) tensor
        Of a multiple of S where nothing is deformed.
        Integer ones (class indices) take the nearest element, floating ones are interpolated.
    generator : torch.Generator
        The only source of randomness.
    spacing : tuple of float
        Pixel size per axis of S; all equal where not given.

    Returns
    -------
    (images, targets), of the same shapes and types; the inputs are left as they are.

    Raises
    ------
    UsageError
        Where shapes and spacing do not fit.
    """
    shape = tuple(images.shape[2:])
    spacing = spacing or (1.0,) * len(shape)
    finer = any(t % n for t, n in zip(targets.shape[-len(shape) :], shape, strict=True))
    moved = config.deform and tuple(targets.shape[-len(shape) :]) != shape
    if finer or moved or len(targets) != len(images) or len(spacing) != len(shape):
        raise UsageError(
            f"images {tuple(images.shape)}, targets {tuple(targets.shape)} and {len(spacing)} pixel sizes do not fit; "
            "give each image a target of its size, and a pixel size for each axis"
        )
    config = config.strengthened()
    images, targets = images.clone(), targets.clone()
    for index in range(len(images)):
        image, target = _turn(images[index], targets[index], generator, config, spacing)
        if _rand(generator) < config.deform:
            grid = _grid(shape, generator, config, spacing).to(images.device)
            image, target = _sample(image, grid), _sample_target(target, grid, shape)
        images[index], targets[index] = _vary(image, generator, config, spacing), target
    return images, targets


def displacement(shape: tuple[int, ...], sd: float, generator: torch.Generator) -> Tensor:
    """Draw a smooth random displacement: a coarse grid of normal vectors, interpolated by cubics per axis.

    Parameters
    ----------
    sd : float
        Standard deviation at the grid's points, of which there are 3 per axis, at the borders and the centre.

    Returns
    -------
    (D, *shape) float32 tensor, in pixels

    References
    ----------
    Ronneberger et al. 2015, section 3.1; Keys 1981 for the cubic.
    """
    size = (len(shape), *(CONTROL_POINTS,) * len(shape))
    field = torch.randn(size, generator=generator, device=generator.device) * sd
    for axis, n in enumerate(shape):
        field = _along(field, _cubic(n, CONTROL_POINTS).to(field), axis + 1)
    return field


def _turn(
    image: Tensor, target: Tensor, generator: torch.Generator, config: AugmentConfig, spacing: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Mirror and turn (C, *S) and its target exactly."""
    ndim = len(spacing)
    shape = image.shape[1:]
    flips = [axis - ndim for axis in range(ndim) if _rand(generator) < 0.5 * config.flip]
    image, target = image.flip(flips), target.flip(flips)
    for first in range(ndim):
        for second in range(first + 1, ndim):
            swap = _rand(generator) < 0.5 * config.turn
            square = shape[first] == shape[second] and target.shape[first - ndim] == target.shape[second - ndim]
            if swap and square and _ratio(spacing[first], spacing[second]) < EQUAL:
                plane = (first - ndim, second - ndim)
                image, target = torch.rot90(image, 1, plane), torch.rot90(target, 1, plane)
    return image, target


def _grid(
    shape: tuple[int, ...], generator: torch.Generator, config: AugmentConfig, spacing: tuple[float, ...]
) -> Tensor:
    """Draw where each element comes from: (1, *S, D) as `grid_sample` takes it, mirrored at the borders."""
    ndim = len(shape)
    steps = torch.tensor(spacing) / min(spacing)
    factor = (1 + config.scale) ** _uniform(generator)
    matrix = _rotation(shape, generator, config.rotation, spacing) * factor
    matrix = matrix * steps[None, :] / steps[:, None]
    centred = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    shift = torch.zeros((ndim,) + (1,) * ndim)
    if config.elastic:
        shift = displacement(shape, config.elastic, generator).cpu()
    grid = torch.empty((1, *shape, ndim))
    for axis in range(ndim):
        place = shift[axis] / steps[axis]
        for other in range(ndim):
            line = (centred[other] * matrix[axis, other]).reshape([-1 if i == other else 1 for i in range(ndim)])
            place = place + line
        grid[0, ..., ndim - 1 - axis] = place.mul_(2 / shape[axis])
    # Mirrored once at each border by hand: three times as fast as padding_mode="reflection".
    return grid.add_(1).abs_().neg_().add_(2).abs_().neg_().add_(1)


def _rotation(shape: tuple[int, ...], generator: torch.Generator, degrees: float, spacing: tuple[float, ...]) -> Tensor:
    """Draw a rotation in physical space; out of the plane only where pixels are about isotropic, less if thin."""
    ndim = len(shape)
    matrix = torch.eye(ndim)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    for first in range(ndim):
        for second in range(first + 1, ndim):
            angle = math.radians(degrees) * _uniform(generator)
            if first < ndim - 2:
                thin = min(extent[first], extent[second]) / max(extent[first], extent[second])
                angle *= thin * (_ratio(spacing[first], spacing[second]) < ISOTROPIC)
            turn = torch.eye(ndim)
            turn[first, first] = turn[second, second] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = matrix @ turn
    return matrix


def _sample(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """(C, *S) at the places of the grid."""
    return functional.grid_sample(image[None], grid, mode=mode, padding_mode="border", align_corners=False)[0]


def _sample_target(target: Tensor, grid: Tensor, shape: tuple[int, ...]) -> Tensor:
    channels = target.reshape(-1, *shape)
    if target.is_floating_point():
        return _sample(channels, grid).reshape(target.shape)
    return _sample(channels.float(), grid, "nearest").reshape(target.shape).to(target.dtype)


def _vary(image: Tensor, generator: torch.Generator, config: AugmentConfig, spacing: tuple[float, ...]) -> Tensor:
    """Change the intensities of (C, *S): blur, gamma, contrast, brightness, noise, each in a share of the patches."""
    drawn = torch.rand(5, generator=generator, device=generator.device).tolist()
    blur, gamma, contrast, brightness, noise = (share < config.intensity for share in drawn)
    axes = tuple(range(1, image.ndim))
    if blur and config.blur:
        image = _blur(image, _rand(generator) * config.blur, spacing)
    if gamma and config.gamma:
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        extent = (high - low).clamp_min(1e-6)
        image = ((image - low) / extent).pow((1 + config.gamma) ** _uniform(generator)) * extent + low
    if contrast and config.contrast:
        mean = image.mean(axes, keepdim=True)
        image = (image - mean) * (1 + config.contrast) ** _uniform(generator) + mean
    if brightness and config.brightness:
        image = image + _std(image) * config.brightness * _uniform(generator)
    if noise and config.noise:
        draws = torch.randn(image.shape, generator=generator, device=generator.device).to(image.device)
        image = image + draws * (_std(image) * config.noise * _rand(generator))
    return image


def _std(image: Tensor) -> Tensor:
    """Return the standard deviation per channel of (C, *S)."""
    return image.std(tuple(range(1, image.ndim)), correction=0, keepdim=True)


def _blur(image: Tensor, sigma: float, spacing: tuple[float, ...]) -> Tensor:
    """Gaussian of `sigma` pixels of the finest axis, mirrored at the borders."""
    for axis, step in enumerate(spacing):
        width = sigma * min(spacing) / step
        if width > 0.1:
            image = _along(image, _gaussian(image.shape[axis + 1], width).to(image.device), axis + 1)
    return image


def _along(data: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Apply an (n, m) matrix along an axis of size m."""
    moved = torch.tensordot(matrix, data, dims=([1], [axis]))
    return moved.movedim(0, axis)


def _gaussian(n: int, sigma: float) -> Tensor:
    """(n, n) matrix that blurs a line of n elements, mirrored at its ends."""
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    source = torch.arange(n)[:, None] + torch.arange(-radius, radius + 1)[None]
    source = source.remainder(2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    return torch.zeros(n, n).scatter_add_(1, source, (weights / weights.sum()).expand(n, -1).contiguous())


def _cubic(n: int, points: int) -> Tensor:
    """(n, points) matrix of cubic interpolation from points at the ends and between, those beyond repeated."""
    place = torch.linspace(0, points - 1, n) if n > 1 else torch.full((1,), (points - 1) / 2)
    index = torch.arange(-2, points + 2)
    x = (place[:, None] - index[None]).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros(())))
    source = index.clamp(0, points - 1).expand(n, -1)
    return torch.zeros(n, points).scatter_add_(1, source, weights)


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _rand(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, device=generator.device))


def _uniform(generator: torch.Generator) -> float:
    """From -1 to 1."""
    return 2 * _rand(generator) - 1


def augmentation(config: TrainConfig) -> AugmentConfig:
    """Return the preset's augmentation at the given strength."""
    if not config.augment:
        return AugmentConfig.none()
    if config.learns_images:  # what would change intensities, or smooth them, would change what is to be learnt
        return AugmentConfig(flip=config.flips, turn=config.flips, deform=0.0, intensity=0.0)
    full = AugmentConfig.ronneberger2015() if config.preset == "ronneberger2015" else AugmentConfig()
    full = dataclasses.replace(full, flip=config.flips, turn=config.flips, strength=config.augment)
    return full.strengthened()
