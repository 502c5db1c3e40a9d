"""What a user may choose for a prediction."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

from ..device import DEVICES, PRECISIONS
from ..errors import UsageError
from ..settings import check, setting, takes_former_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..intensities.normalise import Normalisation
    from ..model import Model
    from ..task import Task

INTENSITIES = ("percentiles", "each_time", "padding")
DRAWING = ("steps", "samples", "seed")  # of models that draw samples
LATER = (*INTENSITIES, "diameter", "region", *DRAWING, "each_sample")  # runs of before they were there had none
MOST_SEED = 2**32 - 1  # 32 bits are what the generator of the noise takes
STEPS = 8  # of a sample: each costs a pass of the network, and nearly straight ways take few (Liu et al. 2023)
OBJECT_OPTIONS = ("border_bias", "min_size", "fill_holes", "link")
PROBABILITY_TYPES = ("uint8", "float16")  # a quarter and a half of float32; the errors are 0.2 % and 0.05 %


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class PredictConfig:
    """What a user may choose for a prediction."""

    precision: str = setting("auto", "Arithmetic of the network: bf16 where the hardware has it", choices=PRECISIONS)
    device: str = setting(
        "auto", "auto, cpu, cuda or mps; of several as cuda:0,cuda:1 each takes a part", choices=DEVICES, several=True
    )
    block: tuple[int, ...] | None = setting(
        None, "Block per axis (z y x, or y x); chosen from the memory limit if not given"
    )
    memory: float = setting(2.0, "Memory for the network, in GiB", ge=0.05)
    probabilities: bool = setting(False, "Write the probability of each class too")
    probability_type: str = setting("uint8", "Probabilities as 0 to 255, or as 0 to 1", choices=PROBABILITY_TYPES)
    uncertainty: bool = setting(False, "Write the predictive entropy too; annotate then finds where labels help most")
    error: bool = setting(False, "Autoencoders: write the reconstruction error too")
    tta: bool = setting(False, "Test-time augmentation: average over mirror images, 4 times the work in 2-D, 8 in 3-D")
    name: str | None = setting(None, "Name of the result inside the store; the model's name if not given")
    overview: bool = setting(True, "Write the image beside its labels: all of it up to 1 GiB, coarser if larger")
    missing: str = setting("fill", "Missing chunks: take the fill value, or refuse", choices=("fill", "error"))
    nan: str = setting("refuse", "NaN and infinite intensities: refuse, or take 0", choices=("refuse", "fill=0"))
    percentiles: tuple[float, ...] | None = setting(
        None, "Percentiles scaled to 0 and 1, such as 1 99.8; a lower second one leaves out hot pixels"
    )
    each_time: bool = setting(False, "Measure intensities at each time point, for a series that bleaches")
    padding: float | None = setting(
        None, "Value to leave out when intensities are measured, such as the 0 around a mosaic"
    )
    resample: bool = setting(False, "Bring the image to the model's pixel size first, lazily")
    diameter: float | None = setting(
        None, "Diameter of objects in pixels of the image, which is resampled to what the model was trained on", ge=1
    )
    region: str | None = setting(None, "Run a part alone: z0:z1,y0:y1,x0:x1, in pixels; objects are found within it")
    steps: int | None = setting(None, f"Samples: steps from noise to image, {STEPS} if not given", ge=2, le=64)
    samples: int | None = setting(
        None, "Samples: how many; of several the result is their mean, and their standard deviation", ge=1, le=4096
    )
    seed: int | None = setting(
        None, "Samples: seed of the noise, 0 if not given; another one draws others", ge=0, le=MOST_SEED
    )
    each_sample: bool = setting(False, "Samples: write each of them too, beside their mean")
    ome_version: str = setting("0.5", "Version of OME-Zarr that is written", choices=("0.5", "0.4"))
    in_source: bool = setting(False, "Write labels/NAME into the source's own OME-Zarr instead of a new one")
    border_bias: float | None = setting(None, "Objects: above 0 splits more, below 0 less; the model's if not given")
    min_size: int | None = setting(None, "Objects of fewer voxels are dropped; the model's if not given", ge=0)
    fill_holes: int | None = setting(
        None, "Fill holes in objects of up to this many voxels; the model's if not given", ge=0
    )
    link: float | None = setting(
        None, "Objects keep their id over time where they overlap by at least this IoU; 0 links none", ge=0, le=1
    )
    scheduler: str | None = setting(None, "Run on the workers of a dask scheduler: tls://host:port")
    allow_tcp: bool = setting(False, "Accept a scheduler at a tcp:// address, which has no authentication")
    break_lock: bool = setting(False, "Take over from a run on another machine that is known to be gone")
    overwrite: bool = setting(False, "Replace a result of an earlier run; nothing else is ever replaced")

    def __post_init__(self) -> None:
        check(self)
        if self.scheduler is not None and not self.scheduler.startswith(("tls://", "tcp://")):
            raise UsageError(f"scheduler is {self.scheduler!r}; give an address such as tls://host:8786")
        if self.scheduler is not None and self.scheduler.startswith("tcp://") and not self.allow_tcp:
            raise UsageError(
                f"{self.scheduler}: anyone who reaches a tcp:// scheduler can run code on its workers: use tls://, or "
                "allow it with --allow-tcp on a network you trust"
            )
        if self.percentiles is not None:
            object.__setattr__(self, "percentiles", tuple(self.percentiles))
            rising = len(self.percentiles) == 2 and 0 <= self.percentiles[0] < self.percentiles[1] <= 100
            if not rising:
                raise UsageError(
                    f"percentiles are {self.percentiles}; give two that rise between 0 and 100, such as 1 99.8"
                )
        if self.padding is not None and not math.isfinite(self.padding):
            raise UsageError(f"padding is {self.padding}; give a number (NaN is taken as 0 with --nan fill=0)")
        if self.block is not None and min(self.block, default=0) < 1:
            raise UsageError(f"block is {self.block}; sizes must be at least 1")

    def normalisation(self, model: "Model") -> "Normalisation":
        """Return how a model's intensities are normalised, with the percentiles that were chosen here."""
        found = model.normalisation
        if self.percentiles is None or found.kind != "percentile":
            return found
        return dataclasses.replace(found, low=self.percentiles[0], high=self.percentiles[1])

    def check_models(self, models: "Sequence[Model]") -> None:
        """Refuse what is chosen of a result that the last model has not, or of intensities where none measures them.

        Raises
        ------
        UsageError
            Naming the setting.
        """
        self.applied(models[-1].task)
        self.check_input(models)

    def check_input(self, models: "Sequence[Model]") -> None:
        """Refuse what is chosen of intensities where no model measures them, and a diameter where none knows one.

        Raises
        ------
        UsageError
            Naming the setting.
        """
        if self.diameter is not None and models[-1].diameter is None:
            raise UsageError(
                "the model does not know how large the objects of its training were; leave diameter out, and give the "
                "image a pixel size to resample it to the model's with --resample"
            )
        self._check_drawing(models)
        kinds = {model.normalisation.kind for model in models}
        if self.percentiles is not None and "percentile" not in kinds:
            raise UsageError(f"the model takes {', '.join(kinds)} intensities, no percentiles; leave percentiles out")
        for name in ("each_time", "padding"):
            chosen = getattr(self, name)
            if chosen is not None and chosen is not False and not kinds & {"percentile", "zscore"}:
                flag = name.replace("_", "-")
                raise UsageError(
                    f"the model takes {', '.join(kinds)} intensities, nothing is measured; leave {flag} out"
                )

    def _check_drawing(self, models: "Sequence[Model]") -> None:
        """Refuse what is chosen of samples where no model draws them, and what those that do cannot have."""
        chosen = [name for name in DRAWING if getattr(self, name) is not None]
        drawing = [bool(model.task.drawn) for model in models]
        if chosen and not any(drawing):
            raise UsageError(
                f"{', '.join(chosen)}: the model draws no samples; leave it out, or train one with --task diffuse"
            )
        if self.each_sample and (self.samples or 1) == 1:
            raise UsageError("each_sample is of several samples; give --samples 2 or more, or leave it out")
        if (self.samples or 1) > 1 and not drawing[-1]:
            raise UsageError(
                f"samples is {self.samples}, but the last model draws none and takes one; leave samples out, or run "
                "the one that draws alone"
            )
        if self.resample and models[0].task.given != "image":
            raise UsageError(
                "the model makes images of the pixel size of its training, for labels of that size; leave resample "
                "out, and bring labels of another size to it first"
            )
        if any(drawing) and self.tta:
            raise UsageError("tta averages mirror images of one result, and samples differ; give --samples instead")

    def applied(self, task: "Task") -> "Task":
        """Return the task with what was chosen here.

        Raises
        ------
        UsageError
            Where something is chosen that the task has not.
        """
        if task.result == "image":
            self._check_image(task)
        if self.error and task.name != "autoencode":
            raise UsageError(f"error compares an image with itself; the model gives {task.name}: leave it out")
        chosen = {name: value for name in OBJECT_OPTIONS if (value := getattr(self, name)) is not None}
        if chosen and task.objects is None:
            raise UsageError(f"{', '.join(chosen)}: the model gives {task.name} labels; these are of objects")
        return dataclasses.replace(cast("Any", task), **chosen) if chosen else task

    def _check_image(self, task: "Task") -> None:
        """Refuse what only labels have."""
        for name in ("probabilities", "in_source", "name"):
            if getattr(self, name):
                raise UsageError(f"{name} is of labels; the model gives an image ({task.name}): leave it out")
        if self.uncertainty and task.drawn:
            if (self.samples or 1) == 1:
                raise UsageError("the standard deviation is that of several samples; give --samples 2 or more")
        elif self.uncertainty and not getattr(task, "predict_std", False):
            raise UsageError(
                "the model did not learn its uncertainty; train one with --predict-std, or leave uncertainty out"
            )

    @property
    def fill(self) -> float | None:
        """Value in place of NaN and infinity, if they are not refused."""
        return 0.0 if self.nan == "fill=0" else None
