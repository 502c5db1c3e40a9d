"""Images from images, sampled: noise flows into one of the images that the degraded one may have been."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cards import CONDITIONS
from ..errors import DataError
from ..network import carried, drift, repeated
from ..settings import takes_former_names
from .restore import Differences, Restore

# Of what is held out: half the steps of a run and few samples, so that an epoch is not all validation.
TRIED_STEPS, TRIED_SAMPLES = 4, 4
HALF = 2.353 * (1 + 1 / TRIED_SAMPLES) ** 0.5  # of an interval of 90 %, in deviations: Student's t of 3 degrees


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class Diffuse(Restore):
    """The velocity with which noise flows into a clean image, given the degraded one, both normalised.

    On the way from noise z at time 0 to an image x at time 1 lies t x + (1 - t) z, and the velocity there is x - z. The
    network learns it, but for `drift`, as the mean over all z and x that pass there. The way that it gives, from a z
    that is drawn, ends at an image that is as likely as it is among those that the degraded one may have been.

    Parameters
    ----------
    upscale : tuple of int
        Elements of the result for one of the image, per axis of the network; empty where they are on one grid. The
        elements of the image are repeated before the network takes it, which works on the finer grid.
    power : tuple of float
        Mean square of each channel of the image, normalised, where they are degraded ones of the result's; empty where
        they are others.
    condition : "image", "labels" or "none"
        What samples are made for; see `objects.condition`.

    References
    ----------
    Lipman et al.: Flow matching for generative modeling, ICLR 2023; Liu et al.: Flow straight and fast, ICLR 2023; for
    images Ho et al. 2020, and Saharia et al. 2021, who give the degraded image as further channels.
    """

    upscale: tuple[int, ...] = ()
    power: tuple[float, ...] = ()
    condition: str = "image"
    name: ClassVar[str] = "diffuse"

    def __post_init__(self) -> None:
        super(Diffuse, self).__post_init__()
        if self.condition not in CONDITIONS:
            raise DataError(f"condition is {self.condition!r}; choose one of {', '.join(CONDITIONS)}")

    @property
    def given(self) -> str:
        """What the network is given."""
        return self.condition

    @property
    def drawn(self) -> int:
        """Channels that begin as noise: those of the result."""
        return len(self.channels)

    @property
    def factors(self) -> tuple[int, ...]:
        """Elements of the result for one of the image, where the network does not make it finer itself."""
        return self.upscale

    def prepare(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a time and noise: what lies between noise and target, the image and the time; velocity and target."""
        images, targets = Restore.prepare(self, images, targets, generator)
        images = repeated(images, self.upscale)
        noise = torch.randn(targets.shape, generator=generator, device=generator.device).to(targets)
        first = torch.rand(1, generator=generator, device=generator.device)
        # Spread over the batch, so that no step is of early times alone.
        times = (first + torch.arange(len(images), device=first.device) / len(images)) % 1
        times = times.to(targets).reshape(-1, *(1,) * (targets.ndim - 1))
        between = times * targets + (1 - times) * noise
        velocity = targets - noise - self._told(between, images, times)
        return self._given(between, images, times), torch.cat([velocity, targets], 1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared difference of the velocities, the first channels of both."""
        return (logits[:, : self.drawn].float() - target[:, : self.drawn]).square().mean()

    def tried(self, net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return the velocity, and mean and standard deviation of a few samples, in pairs, always of the same noise."""
        image = images[:, self.drawn : -1]
        generator = torch.Generator().manual_seed(0)
        noise = torch.zeros_like(images[:, : self.drawn])
        found = []
        for sample in range(TRIED_SAMPLES):
            noise = -noise if sample % 2 else torch.randn(noise.shape, generator=generator).to(noise)
            state = noise
            for step in range(TRIED_STEPS):
                time = torch.full((len(state), *(1,) * (state.ndim - 1)), step / TRIED_STEPS).to(state)
                place, seen, length = self._carried(step, state)
                state = place * state + length * net(self._given(state, image, time)).float()
                state = state + seen * image if self.power else state
            found.append(state)
        samples = torch.stack(found)
        return torch.cat([net(images).float(), samples.mean(0), samples.std(0)], 1)

    @property
    def powers(self) -> tuple[float | None, ...]:
        """The power of the image's channel that each channel of the result is seen in, if it is."""
        return self.power or (None,) * self.drawn

    def _told(self, state: Tensor, image: Tensor, times: Tensor) -> Tensor:
        """Return what state and image tell of the velocity, which is not learnt."""
        power = torch.tensor(self.power).to(state).reshape(1, -1, *(1,) * (state.ndim - 2)) if self.power else None
        place, given = drift(times, power)
        return place * state + (given * image if self.power else 0)

    def _carried(self, step: int, like: Tensor) -> Tensor:
        """Return what `carried` does of a step, channel by channel, to be multiplied with what is (B, C, *S)."""
        ends = step / TRIED_STEPS, (step + 1) / TRIED_STEPS
        each = torch.tensor([carried(*ends, power) for power in self.powers]).to(like)
        return each.T.reshape(3, 1, -1, *(1,) * (like.ndim - 2))

    @staticmethod
    def _given(state: Tensor, image: Tensor, times: Tensor) -> Tensor:
        """Return what the network takes: the state, the image, and the time as a channel."""
        return torch.cat([state, image, times.expand(-1, 1, *state.shape[2:])], 1)

    def scores(self) -> "Means":
        """Return a new sum of scores: of the mean of samples, and of their standard deviation."""
        return Means(self)


class Means(Differences):
    """Adds up how far the means of samples are from the true intensities, and how often within what they leave open."""

    def __init__(self, task: Restore) -> None:
        super().__init__(task)
        self._held = self._places = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Take in velocity, mean and standard deviation, and the true velocity and intensities."""
        count: Any = len(self._task.channels)
        mean, apart, truth = logits[:, count : 2 * count], logits[:, 2 * count :], target[:, count:]
        super().add(mean, truth)
        self._held += int(((mean - truth).abs() <= HALF * apart).sum())
        self._places += truth.numel()

    def result(self) -> dict[str, float]:
        """Return what `Differences` does, and ``held_90``, the share of the truth in intervals of 90 %."""
        return super().result() | ({"held_90": self._held / self._places} if self._places else {})
