"""What a user may choose for a training."""

import dataclasses
from typing import Any

from ..cards import CONDITIONS
from ..device import DEVICES, PRECISIONS
from ..errors import UsageError
from ..settings import check, setting, takes_former_names, to_keys

TASKS = ("semantic", "instances", "restore", "super_resolve", "autoencode", "diffuse")
IMAGE_TASKS = TASKS[2:]  # whose targets are images
UPSCALED = ("super_resolve", "diffuse")  # whose targets may be finer
PRESETS = ("default", "ronneberger2015")
BORDER_WEIGHT = 10.0  # Ronneberger et al. 2015, section 3
MINUTES = 15.0  # what most sets of benchmarks/RESULTS.md reach their score in
LOSSES = ("l2", "l1", "ssim")
TYPES = ("float32", "float16", "uint8", "uint16", "int16", "uint32", "int32")
# Settings that mean nothing where images are the targets.
OF_LABELS = ("sparse", "binary", "number_objects", "above", "background", "class_names", "border_weight", "balance")
# Settings that mean nothing where labels are the targets.
OF_OBJECTS = ("number_objects", "diameter", "working_pixel_size")
OF_IMAGES = ("loss", "blind", "predict_std", "upscale", "blur", "noise", "condition", "result_type")
# What may change when a run is resumed: it does not change what is learnt.
RUN_FIELDS = ("minutes", "steps", "learning_rate", "patience", "precision", "device", "memory", "break_lock", "resume")


@takes_former_names
@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """What a user may choose for a training; the plan is made from the data and from this."""

    task: str = setting(
        "semantic",
        "What is learnt: classes (semantic), objects (instances), or images: restored, upscaled, sampled",
        choices=TASKS,
    )
    minutes: float | None = setting(None, f"Minutes of wall time; {MINUTES:g} if steps are not given either", ge=0.02)
    steps: int | None = setting(None, "Number of optimiser steps; the same seed then gives the same weights", ge=1)
    seed: int = setting(0, "Random seed: initial weights, patches, augmentation and held-out data", ge=0)
    sparse: bool = setting(False, "Sparse labels: 0 is unlabelled and not learnt from")
    binary: bool = setting(False, "Take every label above 0 as one class")
    number_objects: bool = setting(False, "Objects: take each connected piece of a mask as an object of its own")
    above: int = setting(0, "With binary or number_objects: values above this are foreground", ge=0)
    background: int | None = setting(None, "With sparse labels: the label value of background", ge=1)
    class_names: tuple[str, ...] | None = setting(
        None, "Name of each class, in the order of label values; or VALUE=NAME of some"
    )
    ndim: int | None = setting(None, "Dimensions of the network; chosen from the data if not given", ge=2, le=3)
    preset: str = setting("default", "default, or the network and training of the 2015 paper", choices=PRESETS)
    patch: tuple[int, ...] | None = setting(None, "Patch per axis (z y x, or y x); chosen from the data if not given")
    batch: int | None = setting(None, "Patches per step; chosen from patch and memory if not given", ge=1)
    depth: int | None = setting(None, "Number of pooling steps; chosen from patch and objects if not given", ge=0, le=8)
    base_features: int | None = setting(
        None, "Channels of the first level; chosen from device and time if not given", ge=1
    )
    max_features: int | None = setting(
        None, "Channels of the deepest levels at most; chosen with the preset if not given", ge=1
    )
    skips: bool = setting(True, "Skip connections; without them the network is a plain encoder-decoder")
    learning_rate: float | None = setting(None, "Highest learning rate; the preset's if not given", ge=0)
    augment: float = setting(1.0, "Strength of augmentation; 0 is none", ge=0, le=3)
    flips: bool = setting(True, "Augment with flips and right-angle turns; off where direction matters")
    balance: float = setting(0.5, "Share of patches that are centred on a class, each class equally often", ge=0, le=1)
    border_weight: float | None = setting(
        None,
        "Loss weight of the gaps between close objects; 10 for objects and for the preset of 2015, else 0",
        ge=0,
        le=100,
    )
    diameter: float | None = setting(
        None, "Objects: their diameter in pixels of the images; measured from the labels if not given", ge=1
    )
    working_pixel_size: float | None = setting(
        None,
        "Objects: working pixel size, in pixels of the images; chosen from the diameter if not given",
        ge=0.1,
        le=64,
    )
    loss: str = setting("l2", "Images: squared difference, absolute difference, or SSIM", choices=LOSSES)
    blind: bool = setting(False, "Images: learn to denoise from the noisy images alone (Noise2Void)")
    predict_std: bool = setting(False, "Images: predict the standard deviation of each intensity too")
    upscale: tuple[int, ...] | None = setting(None, "Upscaling factor per axis (z y x, or y x): 2 2 doubles both")
    blur: float = setting(0.0, "Images: Gaussian blur of the input, sigma in its pixels", ge=0, le=50)
    noise: float = setting(
        0.0, "Images: Gaussian noise added to the input, standard deviation in its intensities", ge=0
    )
    condition: str = setting(
        "image", "Samples: what they are made for: an image, labels of objects, or none", choices=CONDITIONS
    )
    result_type: str = setting("float32", "Images: data type of results", choices=TYPES)
    patience: int | None = setting(None, "Stop after this many epochs without a better validation score", ge=1)
    precision: str = setting("auto", "Arithmetic of the network: bf16 where the hardware has it", choices=PRECISIONS)
    device: str = setting("auto", "Where the network is trained", choices=DEVICES)
    memory: float | None = setting(None, "Memory for network and data, in GiB; from the machine if not given", ge=0.05)
    licence: str | None = setting(None, "Licence of the model, for its card")
    break_lock: bool = setting(False, "Break the lock of a run on another machine that is known to have ended")
    resume: bool = setting(False, "Resume a run that was stopped; more steps or minutes extend a finished one")

    def __post_init__(self) -> None:
        check(self)
        self._check_sizes()
        if self.background is not None and not self.sparse:
            raise UsageError(
                f"background is label {self.background}, but 0 is background unless labels are sparse; "
                "leave it out, or give sparse"
            )

        if self.above and not (self.binary or self.number_objects):
            raise UsageError(f"above is {self.above}, which needs binary or number_objects; give one of them")
        self._check_objects()
        self._check_images()

    def _check_objects(self) -> None:
        """Refuse settings of objects with another task, and of classes with objects."""
        if self.task != "instances":
            for name in OF_OBJECTS:
                if getattr(self, name):
                    raise UsageError(f"{name} is for objects; choose the task instances, or leave it out")
            return
        for name in ("binary", "class_names"):
            if getattr(self, name):
                raise UsageError(f"{name} is for classes, not for objects; leave it out, or choose the task semantic")
        if self.sparse and self.background is None:
            raise UsageError(
                "sparse labels of objects need a label for background: paint some, and give its value as background"
            )

    def _check_sizes(self) -> None:
        """Refuse a patch and channels that no network has."""
        if self.patch is not None and (len(self.patch) not in (2, 3) or min(self.patch) < 1):
            raise UsageError(f"patch is {self.patch}; give 2 or 3 sizes of at least 1, one per axis")
        if self.patch is not None and self.ndim is not None and len(self.patch) != self.ndim:
            raise UsageError(f"patch is {self.patch} for a {self.ndim}-D network; give {self.ndim} sizes")
        if self.max_features is not None and (self.base_features or 1) > self.max_features:
            raise UsageError(
                f"max_features is {self.max_features}, base_features {self.base_features}; the first level cannot "
                "have more channels than the deepest may"
            )

    def _check_images(self) -> None:
        """Refuse settings of images with labels, and of labels with images."""
        learns_images = self.task in IMAGE_TASKS
        wrong = OF_LABELS if learns_images else OF_IMAGES
        for field in dataclasses.fields(self):
            if field.name in wrong and getattr(self, field.name) != field.default:
                kind = "labels, not for images" if learns_images else "images, not for labels"
                raise UsageError(f"{field.name} is for {kind}; leave it out, or choose another task than {self.task}")
        if (self.upscale is not None) != (self.task == "super_resolve") and self.task not in UPSCALED[1:]:
            raise UsageError("the task super_resolve needs upscale, diffuse may have it, and no other task takes it")
        self._check_samples()
        if self.task == "autoencode" and (self.blind or self.blur or self.noise):
            raise UsageError("the task autoencode learns the unchanged image: leave blind, blur and noise out")
        if self.blind and (self.blur or self.noise or self.task != "restore"):
            raise UsageError(
                "blind learns from the noisy images themselves: choose the task restore, without blur and noise"
            )

    def _check_samples(self) -> None:
        """Refuse what a model that draws samples cannot have, and what no other may have."""
        if self.condition != "image" and (self.task != "diffuse" or self.upscale or self.blur or self.noise):
            raise UsageError(
                f"condition is {self.condition}: the task diffuse alone makes images for labels or for none, and there "
                "is no image to upscale, blur or put noise on; leave it out, or these"
            )
        if self.task == "diffuse" and (self.blind or self.predict_std or self.loss != "l2"):
            raise UsageError(
                "the task diffuse learns a velocity from pairs, and samples tell how sure it is: leave loss, blind and "
                "predict_std out"
            )
        if self.task == "diffuse" and self.preset != "default":
            raise UsageError(f"the preset {self.preset} is a network for labels; leave it out for the task diffuse")

    @property
    def learns_images(self) -> bool:
        """Whether the target is an image instead of labels."""
        return self.task in IMAGE_TASKS

    @property
    def reads_labels(self) -> bool:
        """Whether pairs are of an image and its labels, as targets or as the condition of samples."""
        return not self.learns_images or self.condition == "labels"

    @property
    def budget(self) -> float | None:
        """Minutes of the run, or None where steps alone bound it."""
        if self.minutes is None and self.steps is None:
            return MINUTES
        return self.minutes

    @property
    def w0(self) -> float:
        """Weight of what lies between close objects: w0 of the 2015 paper."""
        if self.border_weight is not None:
            return self.border_weight
        return BORDER_WEIGHT if self.task == "instances" or self.preset == "ronneberger2015" else 0.0

    def identity(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed, as plain values."""
        values = {k: v for k, v in to_keys(self).items() if k not in RUN_FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
