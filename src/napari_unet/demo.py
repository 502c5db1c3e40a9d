"""The main job on an example that ships: train, predict a larger OME-Zarr, score it, and draw an overview."""

import dataclasses
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .arrays.stack import Stack
from .cards import is_model
from .evaluation.evaluate import evaluate
from .evaluation.figures import WHITE, Panel, check_picture, enlarged, grey, outlined, save_panels
from .events import Epoch, Progress
from .examples import NOISE, PIXEL, noisy_nuclei, nuclei
from .files import disk
from .inference import PredictConfig
from .inference.outputs import result_path
from .inference.predict import predict, predict_lazy
from .model import Model, load_model
from .sources import open_stack
from .store import Output, ResultStore, find
from .store.journal import Journal
from .training.config import TrainConfig
from .training.fit import train

TRAINED = 320  # columns of the training image; the 192 to their right are for the score
MOSAIC = (4, 10)  # times as high and as wide: larger than a screen, and run in some seconds
SHOWN = 192  # no more than is scored, so that no mirrored copy shows
ZOOM = 3  # of 192 pixels, so that outlines are seen
TRUTH, FOUND = (86, 180, 233), (230, 159, 0)  # blue and orange of Okabe and Ito: told apart by colour-blind eyes too
STEPS, SAMPLE_STEPS, SAMPLES = 120, 8, 8  # of a training: a minute on two cores; of a sample; and how many of these
MARK = "napari-unet demo"  # by which files of an earlier demo are known
Events = Generator[Progress | Epoch, None, "Demo"]


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """What a demo does.

    Parameters
    ----------
    example : str
        Name of the image.
    files : tuple of str
        Of the model, the image, the result and the overview.
    settings : dict
        Of the training.
    truth, kind : str
        Path of the truth in the image's store, and of which kind it is there.
    scored : str
        As what it is judged.
    said : callable
        Scores -> a line on them.
    draw : callable
        Image, truth, result, scores -> panels.
    wishes : dict
        Of the prediction.
    mosaic : (int, int)
        How many times as high and as wide the image is made.
    """

    example: str
    files: tuple[str, str, str, str]
    settings: dict[str, Any]
    truth: str
    kind: Literal["labels", "image"]
    scored: str
    scores: tuple[str, ...]
    said: Callable[[dict[str, float]], str]
    draw: Callable[[np.ndarray, np.ndarray, np.ndarray, dict[str, float]], list[Panel]]
    wishes: dict[str, Any] = dataclasses.field(default_factory=dict)
    mosaic: tuple[int, int] = MOSAIC

    @property
    def noisy(self) -> bool:
        """Whether noise is put on the image, and taken away."""
        return self.kind == "image"


@dataclasses.dataclass(frozen=True, slots=True)
class Demo:
    """Where everything is that the demo made.

    Parameters
    ----------
    model, image, result, overview : Path
        A model folder, two OME-Zarr (the image has its truth inside, as ``labels/truth`` or ``clean``), a PNG.
    scores : dict of str to float
        Of the result against the truth, on nuclei that were not trained on.
    """

    model: Path
    image: Path
    result: Path
    overview: Path
    scores: dict[str, float]


def run_demo(
    out: Path, steps: int = STEPS, *, seed: int = 0, learn: str = "segment", break_lock: bool = False
) -> Events:
    """Train on nuclei that ship with the package, predict a larger image of others, score and draw it.

    Run again in the same folder, it goes on where it was stopped, and does nothing a second time.

    Parameters
    ----------
    out : Path
        Folder for everything that is made.
    steps : int
        Steps of the training; the same number and seed give the same result on any machine of a kind.
    learn : "segment", "restore" or "diffuse"
        Find the nuclei; or put noise on the image and learn to take it away, or to draw what it may have been.
    break_lock : bool
        Take over from a demo on another machine that is known to be gone.

    Raises
    ------
    OutputError
        Where something is in the way that the demo did not make.
    ResourceError
        Where `out` cannot be written.
    """
    out, job = Path(out), SCENARIOS[learn]
    files = job.files
    demo = Demo(out / files[0], out / files[1], out / files[2], out / files[3], {})
    check_picture(demo.overview, MARK, "overview of the demo")
    for root in (demo.image, demo.result):
        find(root, [""], False)  # refuses what is not ours now, and not after the training
    with disk(out):
        out.mkdir(parents=True, exist_ok=True)
    image, truth = noisy_nuclei() if job.noisy else example()
    source = truth if job.noisy else image  # the training puts its own noise on it, another one each time
    config = TrainConfig(steps=steps, seed=seed, resume=True, break_lock=break_lock, **job.settings)
    model = yield from _trained(source[:, :TRAINED], truth[:, :TRAINED], demo.model, config)
    other, clean = (mosaic(each[:, TRAINED:], job.mosaic) for each in (image, truth))
    yield from _write_mosaic(demo.image, other, clean, job, break_lock)
    result = yield from _predicted(demo.image, model, demo.result, PredictConfig(break_lock=break_lock, **job.wishes))
    yield Progress(0, 1, "evaluate")
    found = evaluate(result, demo.image / job.truth, job.scored).scores
    if job.noisy:
        found["psnr_before"] = evaluate(demo.image, demo.image / job.truth, job.scored).scores["psnr"]
    demo = dataclasses.replace(demo, scores={name: found[name] for name in job.scores})
    box = (slice(0, SHOWN), slice(0, SHOWN))
    planes = [stack.read(box) for stack in (open_stack(demo.image), open_stack(demo.image / job.truth), result)]
    panels = job.draw(planes[0], planes[1], planes[2], demo.scores)
    if job.wishes:
        panels[1:2] = yield from _sampled(demo, model, job.wishes["steps"], panels[1], planes[1], box)
    save_panels(demo.overview, panels, MARK)
    places = f"model {demo.model}, image {demo.image}, result {demo.result}, overview {demo.overview}"
    yield Progress(1, 1, "evaluate", f"{job.said(demo.scores)}; {places}")
    return demo


def example() -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its mask, (512, 512) uint8; the mask is 1 on nuclei."""
    image, labels = nuclei()
    return image, (labels > 0).astype(np.uint8)


def mosaic(part: np.ndarray, times: tuple[int, int] = MOSAIC) -> np.ndarray:
    """Mirror a (Y, X) part again and again, without seams, to an image so many times as high and as wide."""
    return np.pad(part, [(0, n * (m - 1)) for n, m in zip(part.shape, times, strict=True)], mode="symmetric")


def _trained(
    image: np.ndarray, truth: np.ndarray, folder: Path, config: TrainConfig
) -> Generator[Progress | Epoch, None, Model]:
    if is_model(folder):
        yield Progress(1, 1, "train", f"{folder} exists already")
        return load_model(folder)
    names = ((image, "nuclei"), (truth, "truth of the nuclei"))
    pair = [Stack(data=data, axes="yx", name=name, **_calibration()) for data, name in names]
    return (yield from train([(pair[0], pair[1])], folder, config))


def _calibration() -> dict[str, Any]:
    return {"scale": (PIXEL, PIXEL), "units": ("micrometer", "micrometer")}


def _write_mosaic(
    root: Path, image: np.ndarray, truth: np.ndarray, job: "Scenario", break_lock: bool
) -> Generator[Progress, None, None]:
    """Write an image and its truth as OME-Zarr, unless it is there."""
    about = {"example": job.example, "trained": TRAINED, "pixel": PIXEL}
    earlier = find(root, ["", job.truth], False)
    if earlier and earlier[1].settings == about and Journal.of(*earlier).finished:
        return
    more: dict[str, Any] = {"axes": "yx", "chunks": (512, 512), **_calibration()}
    outputs = [
        Output(path="", kind="image", shape=image.shape, dtype=image.dtype, **more),
        Output(path=job.truth, kind=job.kind, shape=truth.shape, dtype=truth.dtype, **more),
    ]
    box = tuple(slice(0, n) for n in image.shape)
    made_of: dict[str, Any] = {"settings": about, "provenance": {"source": MARK}}
    with ResultStore.create(root, outputs, blocks=1, break_lock=break_lock, **made_of) as store:
        if store.pending():
            store.write(0, {"": (box, image), job.truth: (box, truth)})
        yield from store.finish()


def _predicted(image: Path, model: Model, root: Path, config: PredictConfig) -> Generator[Progress, None, Stack]:
    """Run the model, unless its result is there; that of another model is replaced."""
    name = result_path(model, None)
    earlier = find(root, [name], False)
    finished = earlier is not None and Journal.of(*earlier).finished
    if earlier and finished and earlier[1].settings.get("model") == model.sha256:
        return open_stack(root / name)
    return (yield from predict(open_stack(image), model, root, dataclasses.replace(config, overwrite=finished)))


def _sampled(
    demo: Demo, model: Model, steps: int, mean: Panel, truth: np.ndarray, box: tuple[slice, slice]
) -> Generator[Progress, None, list[Panel]]:
    """Draw one sample, the mean of several, and how far they are apart, of a box; truth gives the contrast."""
    yield Progress(0, 1, "predict", "a sample of the part that is shown")
    one = predict_lazy(open_stack(demo.image), model, PredictConfig(steps=steps)).read(box)
    apart = open_stack(demo.result / "uncertainty").read(box)
    return [
        ("one sample", enlarged(grey(one, _range(truth)), ZOOM), WHITE),
        mean,
        (f"their standard deviation ({apart.mean():.1f} on average)", enlarged(grey(apart), ZOOM), WHITE),
    ]


def _range(truth: np.ndarray) -> tuple[float, float]:
    """Return the contrast in which an image, and what is made of it, are shown."""
    low, high = np.percentile(truth, (0.5, 99.5))
    return float(low), float(high)


def _outlines(image: np.ndarray, truth: np.ndarray, found: np.ndarray, scores: dict[str, float]) -> list[Panel]:
    """Draw an image, its truth and what was found, all (Y, X)."""
    plain = enlarged(grey(image), ZOOM)
    return [
        ("image, not trained on", plain, WHITE),
        ("truth", outlined(plain, truth, TRUTH, ZOOM), TRUTH),
        (f"U-Net (Dice of the whole: {scores['dice']:.3f})", outlined(plain, found, FOUND, ZOOM), FOUND),
    ]


def _greys(
    image: np.ndarray, truth: np.ndarray, found: np.ndarray, scores: dict[str, float], what: str = "U-Net"
) -> list[Panel]:
    """Draw a noisy image, what was made of it, and the clean one, all (Y, X), in the contrast of the clean one."""
    titles = (
        f"noisy, not trained on ({scores['psnr_before']:.1f} dB)",
        f"{what} ({scores['psnr']:.1f} dB)",
        "clean",
    )
    planes = zip(titles, (image, found, truth), strict=True)
    return [(title, enlarged(grey(plane, _range(truth)), ZOOM), WHITE) for title, plane in planes]


SEGMENT = Scenario(
    example="nuclei",
    files=("nuclei.model", "nuclei.ome.zarr", "result.ome.zarr", "overview.png"),
    settings={},
    truth="labels/truth",
    kind="labels",
    scored="semantic",
    scores=("dice", "iou", "pixel_accuracy"),
    said=lambda scores: f"Dice {scores['dice']:.3f}",
    draw=_outlines,
)
RESTORE = Scenario(
    example="noisy nuclei",
    files=("restore.model", "noisy.ome.zarr", "restored.ome.zarr", "restored.png"),
    settings={"task": "restore", "noise": NOISE},
    truth="clean",
    kind="image",
    scored="intensity",
    scores=("psnr_before", "psnr", "ssim"),
    said=lambda scores: f"PSNR {scores['psnr_before']:.1f} -> {scores['psnr']:.1f} dB",
    draw=_greys,
)
DIFFUSE = dataclasses.replace(
    RESTORE,
    files=("diffuse.model", "sampled.ome.zarr", "samples.ome.zarr", "samples.png"),
    settings={"task": "diffuse", "noise": NOISE},
    draw=functools.partial(_greys, what=f"mean of {SAMPLES}"),
    wishes={"steps": SAMPLE_STEPS, "samples": SAMPLES},
    mosaic=(1, 1),  # each of its pixels goes through the network 64 times
)
SCENARIOS = {"segment": SEGMENT, "restore": RESTORE, "diffuse": DIFFUSE}
