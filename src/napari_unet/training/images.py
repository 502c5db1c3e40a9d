"""Pairs of images for restoration: degraded if the settings say so, checked and measured before training."""

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays.degrade import degraded
from ..arrays.stack import Stack
from ..errors import DataError, ModelError, UsageError
from ..grid.blocks import blocks
from ..intensities.normalise import Normalisation, Statistics, finite
from ..objects.condition import conditioned
from ..sources.position import brought_together
from ..task import Autoencode, Diffuse, Restore, SuperResolve, Task
from .config import TrainConfig
from .fingerprint import HASHED_BLOCKS, PLACES, Fingerprint, Intensities, Pair, StackFacts, blank_of

OTHER_DEPTH = 30.0  # times the spread of another: exposures differ ten times, 8 bits and 0 to 1 by 255


def factors_of(config: TrainConfig, axes: str) -> tuple[int, ...]:
    """Return the elements of the target for one of the image, per axis of `axes`."""
    factor = config.upscale or ()
    return (1,) * (len(axes) - len(factor)) + tuple(factor)


def inputs_of(pairs: Sequence[Pair], config: TrainConfig) -> list[Pair]:
    """Return the training pairs: the images blurred and downsampled if the settings say so.

    Where samples are made for labels, or for none, what is made of these is in the place of the image, and the image is
    the target.

    Raises
    ------
    DataError
        Where an image is smaller than the factors, or lies elsewhere than its target; labels that are none.
    UsageError
        Where it is not said whether volumes are taken plane by plane: borders are others then.
    """
    if config.condition != "image":
        return [_conditioned(image, other, config) for image, other in pairs]
    return [_input_of(image, target, config) for image, target in pairs]


def _input_of(image: Stack, target: Stack, config: TrainConfig) -> Pair:
    axes = image.axes.replace("c", "")
    if target is not image and config.upscale is None:
        image, target = brought_together(image, target)
    factors, shape = factors_of(config, axes), image.values_along(axes, "shape")
    coarser = max(factors) > 1 and target.axes.replace("c", "") == axes and target.values_along(axes, "shape") == shape
    if coarser:
        whole = {a: slice(0, n // f * f) for a, n, f in zip(axes, shape, factors, strict=True)}
        if any(not part.stop for part in whole.values()):
            raise DataError(
                f"{image.name} with shape {image.shape} is smaller than upscale {config.upscale}; leave it out"
            )
        image, target = image.select(**whole), target.select(**whole)
    if coarser or config.blur:
        image = degraded(image, config.blur, tuple(config.upscale or ()) if coarser else ())
    return image, target


def _conditioned(image: Stack, other: Stack, config: TrainConfig) -> Pair:
    if "z" in image.axes and config.ndim is None:
        raise UsageError(
            f"{image.name} has the axes {image.axes}: say with ndim 2 that planes are learnt each for itself, or with "
            "ndim 3 that volumes are; objects have other borders in each"
        )
    if other is not image:
        image, other = brought_together(image, other)
    return conditioned(other, config.condition, config.ndim or 2), image


def image_fingerprint(
    pairs: Sequence[Pair], config: TrainConfig, training: Fingerprint | None = None
) -> Generator[tuple[int, int], None, Fingerprint]:
    """Check pairs of images and measure them.

    Parameters
    ----------
    pairs : sequence of (image, target)
        As `inputs_of` gives them.
    training : Fingerprint, optional
        Fingerprint of the training data, if `pairs` are validation data: its intensities are used.

    Yields
    ------
    (done, total) images

    Raises
    ------
    DataError
        Image and target that do not fit; NaN, infinite or constant intensities.
    """
    if not pairs:
        raise DataError("there is no image; give at least one")
    for image, target in pairs:
        _check_pair(image, target, factors_of(config, image.axes.replace("c", "")))
        if (image.size("c"), target.size("c")) != (pairs[0][0].size("c"), pairs[0][1].size("c")):
            raise DataError(f"{image.name} has other channels than {pairs[0][0].name}; all need the same")
    measured: list[tuple[Statistics, Statistics]] = []
    digests = []
    for number, pair in enumerate(pairs):
        given = _statistics(pair[0]) if config.condition == "image" else _as_it_is(pair[0])
        measured.append((given, _statistics(pair[1])))
        digests.append(_digest(pair))
        yield number + 1, len(pairs)
    blank = blank_of(pairs, [all((*image.scale, *target.scale)) for image, target in measured])
    kept = [i for i in range(len(pairs)) if i not in blank]
    pairs, measured, digests = [pairs[i] for i in kept], [measured[i] for i in kept], [digests[i] for i in kept]
    _check_once(pairs, digests)
    found = training.intensities if training is not None else None
    if found is None:
        image, target = pairs[0]
        names = target.channel_names or tuple(f"channel {i}" for i in range(target.size("c")))
        names = names if target.size("c") > 1 or target.channel_names else ("intensity",)
        images, targets = zip(*measured, strict=True)
        found = Intensities(_pooled(images), _pooled(targets), tuple(map(str, names)))
    stacks = [
        _facts(image, number, found.image, digest)
        for number, ((image, _), digest) in enumerate(zip(pairs, digests, strict=True))
    ]
    notes = tuple(_depths(pairs, measured)) if training is None else ()
    return Fingerprint(tuple(stacks), intensities=found, blank=blank, notes=notes)


def _depths(pairs: Sequence[Pair], measured: Sequence[tuple[Statistics, Statistics]]) -> Iterator[str]:
    """Say that images are on scales far apart: one range is kept for all, in which the dark ones vanish."""
    for side, kind in enumerate(("images", "targets")):
        spreads = [max(each[side].scale) for each in measured]
        low, high = int(np.argmin(spreads)), int(np.argmax(spreads))
        if spreads[high] > OTHER_DEPTH * spreads[low]:
            yield (
                f"the {kind} are on different scales: the standard deviation of {pairs[low][side].name} is "
                f"{spreads[low]:.3g}, that of {pairs[high][side].name} {spreads[high]:.3g}; one range is kept: "
                "bring them to one scale (another bit depth, or divided by a maximum?)"
            )


def _check_pair(image: Stack, target: Stack, factors: tuple[int, ...]) -> None:
    axes = image.axes.replace("c", "")
    wanted = tuple(n * f for n, f in zip(image.values_along(axes, "shape"), factors, strict=True))
    if target.axes.replace("c", "") != axes or target.values_along(axes, "shape") != wanted:
        raise DataError(
            f"{image.name} and its target {target.name} do not fit: image {image.axes} {image.shape}, target "
            f"{target.axes} {target.shape}; the target needs {axes} {wanted}"
        )
    for stack in (image, target):
        if stack.dtype.kind not in "biuf":
            raise DataError(f"{stack.name} has {stack.dtype} intensities; convert them to real numbers")


def _check_once(pairs: Sequence[Pair], digests: Sequence[str]) -> None:
    """Refuse a pair of which each pixel is that of another one, as far as all blocks were looked at.

    Raises
    ------
    DataError
        Naming both.
    """
    seen: dict[str, str] = {}
    for pair, digest in zip(pairs, digests, strict=True):
        name = pair[0].name
        if digest in seen and all(len(list(blocks(s.shape, s.chunks))) <= HASHED_BLOCKS for s in pair):
            raise DataError(
                f"{name} is the same image as {seen[digest]}, with the same target; give it once, or what is held out "
                "is learnt from too"
            )
        seen[digest] = name


def _statistics(stack: Stack) -> Statistics:
    return Normalisation("zscore").measure(stack)


def _as_it_is(stack: Stack) -> Statistics:
    """Return those of what is between 0 and 1 already."""
    return Statistics((0.0,) * stack.size("c"), (1.0,) * stack.size("c"))


def _pooled(parts: Sequence[Statistics]) -> Statistics:
    """Return mean and standard deviation over all images, each counting the same."""
    means, sds = (np.array([getattr(p, name) for p in parts]) for name in ("offset", "scale"))
    mean = means.mean(0)
    std = np.sqrt((sds**2 + (means - mean) ** 2).mean(0))
    return Statistics(tuple(map(float, mean)), tuple(map(float, std)))


def _digest(pair: Pair) -> str:
    """Return the SHA-256 of a sample of blocks of both images."""
    found = hashlib.sha256()
    for stack in pair:
        boxes = list(blocks(stack.shape, stack.chunks))
        for box in boxes[:: math.ceil(len(boxes) / HASHED_BLOCKS)]:
            found.update(finite(stack.read(box), stack, box).tobytes())
    return found.hexdigest()


def make_restoration(
    found: Intensities, config: TrainConfig, init: Task | None, normalisation: Normalisation
) -> Restore:
    """Return the task for pairs of images; intensities as in the task to start from.

    Raises
    ------
    ModelError
        Where the target has other channels than the task to start from.
    """
    kind = {kind.name: kind for kind in (Restore, SuperResolve, Autoencode, Diffuse)}[config.task]
    values: dict[str, Any] = {
        "channels": found.channels,
        "offset": found.target.offset,
        "scale": found.target.scale,
    }
    if isinstance(init, Restore):
        if init.given != config.condition:
            raise ModelError(
                f"the model to start from makes images for the condition {init.given}, not {config.condition}; give "
                "its condition, or train anew"
            )
        if len(init.channels) != len(found.channels):
            raise ModelError(
                f"the targets have {len(found.channels)} channels, the model to start from gives {len(init.channels)}; "
                "give as many, or train anew"
            )
        values = {name: getattr(init, name) for name in values}
    noise = tuple(config.noise / s for s in normalisation.scale) if config.noise else ()
    about: dict[str, Any] = {}
    if kind is Diffuse:
        about = {"condition": config.condition}
        about["power"] = _power(found, init, normalisation, noise) if config.condition == "image" else ()
    about |= {"loss_name": config.loss, "blind": config.blind, "predict_std": config.predict_std}
    return kind(**values, **about, noise=noise, dtype_name=config.result_type)


def _power(
    found: Intensities, init: Task | None, normalisation: Normalisation, noise: tuple[float, ...]
) -> tuple[float, ...]:
    """Return the mean square of each channel of the images, where targets have as many."""
    if isinstance(init, Diffuse):
        return init.power
    channels = len(found.channels)
    if len(normalisation.scale) != channels:
        return ()
    return tuple(1 + n**2 for n in noise or (0.0,) * channels)


def _facts(image: Stack, number: int, statistics: Statistics, digest: str) -> StackFacts:
    """Return what is known of an image; its places are drawn evenly, of one class that all of it is."""
    shape = image.values_along(image.axes.replace("c", ""), "shape")
    rng = np.random.default_rng([number, PLACES])
    places = np.stack([rng.integers(n, size=PLACES) for n in shape], 1).astype(np.int64)
    fields = {name: getattr(image, name) for name in ("name", "axes", "shape", "scale", "units")}
    return StackFacts(
        **fields,
        dtype=str(image.dtype),
        counts={0: math.prod(shape)},
        places={0: places},
        statistics=statistics,
        digest=digest,
    )
