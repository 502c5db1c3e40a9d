"""The main job on an example that ships: train, predict a larger OME-Zarr, score it, and draw an overview."""

import dataclasses
import importlib.resources
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy import ndimage

from .errors import OutputError
from .evaluation import evaluate
from .events import Epoch, Progress
from .inference import PredictConfig
from .inference.outputs import result_path
from .inference.predict import predict
from .model import Model, is_model, load_model
from .sources import open_stack
from .stack import Stack
from .store import Output, ResultStore, find
from .store.journal import Journal
from .store.layout import disk
from .training.config import TrainConfig
from .training.fit import train

TRAINED = 320  # columns that are learnt from; the 192 to their right are judged on
MOSAIC = (4, 10)
PIXEL = 0.5  # micrometres, assumed: the image came without a pixel size
SHOWN = 192  # no more than is judged on, so that no mirrored copy shows
ZOOM = 3
TRUTH, FOUND = (86, 180, 233), (230, 159, 0)
MARK = "napari-unet demo"
Events = Generator[Progress | Epoch, None, "Demo"]


@dataclasses.dataclass(frozen=True, slots=True)
class Demo:
    """Where everything is that the demo made.

    Parameters
    ----------
    model, image, result, overview : Path
        A model folder, two OME-Zarr (the image has its truth inside, as ``labels/truth``), a PNG.
    scores : dict of str to float
        Of the result against the truth, on nuclei that were not trained on.
    """

    model: Path
    image: Path
    result: Path
    overview: Path
    scores: dict[str, float]


def run_demo(out: Path, steps: int = 120, *, seed: int = 0) -> Events:
    """Train on nuclei that ship with the package, predict a larger image of others, score and draw it.

    Run again in the same folder, it goes on where it was stopped, and does nothing a second time.

    Parameters
    ----------
    out : Path
        Folder for everything that is made.
    steps : int
        Steps of the training; the same number and seed give the same result on any machine of a kind.
    seed : int

    Yields
    ------
    Progress, Epoch

    Returns
    -------
    Demo

    Raises
    ------
    OutputError
        Where something is in the way that the demo did not make.
    ResourceError
        Where `out` cannot be written.
    """
    out = Path(out)
    demo = Demo(out / "nuclei.model", out / "nuclei.ome.zarr", out / "result.ome.zarr", out / "overview.png", {})
    _check_overview(demo.overview)
    for root in (demo.image, demo.result):
        find(root, [""], False)  # refuses what is not ours now, and not after the training
    with disk(out):
        out.mkdir(parents=True, exist_ok=True)
    image, truth = example()
    config = TrainConfig(steps=steps, seed=seed, resume=True)
    model = yield from _trained(image[:, :TRAINED], truth[:, :TRAINED], demo.model, config)
    yield from _write_mosaic(demo.image, mosaic(image[:, TRAINED:]), mosaic(truth[:, TRAINED:]))
    result = yield from _predicted(demo.image, model, demo.result)
    yield Progress(0, 1, "evaluate")
    labels = demo.image / "labels" / "truth"
    found = evaluate(result, labels, "semantic").scores
    demo = dataclasses.replace(demo, scores={name: found[name] for name in ("dice", "iou", "pixel_accuracy")})
    box = (slice(0, SHOWN), slice(0, SHOWN))
    planes = [stack.read(box) for stack in (open_stack(demo.image), open_stack(labels), result)]
    with disk(out):
        save_overview(demo.overview, planes[0], planes[1], planes[2], demo.scores["dice"])
    places = f"model {demo.model}, image {demo.image}, result {demo.result}, overview {demo.overview}"
    yield Progress(1, 1, "evaluate", f"Dice {demo.scores['dice']:.3f}; {places}")
    return demo


def example() -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its mask, (512, 512) uint8; the mask is 1 on nuclei."""
    folder = importlib.resources.files(__package__) / "data"
    planes = []
    for name in ("nuclei.png", "nuclei_labels.png"):
        with (folder / name).open("rb") as file:
            planes.append(np.asarray(Image.open(file)))
    return planes[0], (planes[1] > 0).astype(np.uint8)


def mosaic(part: np.ndarray) -> np.ndarray:
    """Mirror a (Y, X) part again and again, without seams, to an image `MOSAIC` times as large."""
    return np.pad(part, [(0, n * (times - 1)) for n, times in zip(part.shape, MOSAIC, strict=True)], mode="symmetric")


def _trained(
    image: np.ndarray, truth: np.ndarray, folder: Path, config: TrainConfig
) -> Generator[Progress | Epoch, None, Model]:
    if is_model(folder):
        yield Progress(1, 1, "train", f"{folder} is there already")
        return load_model(folder)
    names = ((image, "nuclei"), (truth, "mask of the nuclei"))
    pair = [Stack(data=data, axes="yx", name=name, **_calibration()) for data, name in names]
    return (yield from train([(pair[0], pair[1])], folder, config))


def _calibration() -> dict[str, Any]:
    return {"scale": (PIXEL, PIXEL), "units": ("micrometer", "micrometer")}


def _write_mosaic(root: Path, image: np.ndarray, truth: np.ndarray) -> Generator[Progress, None, None]:
    """Write an image and its labels as OME-Zarr, unless it is there."""
    about = {"example": "nuclei", "trained": TRAINED, "pixel": PIXEL}
    earlier = find(root, ["", "labels/truth"], False)
    if earlier and earlier[1].settings == about and Journal(earlier[0]).finished:
        return
    more: dict[str, Any] = {"axes": "yx", "chunks": (512, 512), **_calibration()}
    outputs = [
        Output(path="", kind="image", shape=image.shape, dtype=image.dtype, **more),
        Output(path="labels/truth", kind="labels", shape=truth.shape, dtype=truth.dtype, **more),
    ]
    box = tuple(slice(0, n) for n in image.shape)
    with ResultStore.create(root, outputs, blocks=1, settings=about, provenance={"source": MARK}) as store:
        if store.pending():
            store.write(0, {"": (box, image), "labels/truth": (box, truth)})
        yield from store.finish()


def _predicted(image: Path, model: Model, root: Path) -> Generator[Progress, None, Stack]:
    """Run the model, unless its result is there; that of another model is replaced."""
    name = result_path(model, None)
    earlier = find(root, [name], False)
    finished = earlier is not None and Journal(earlier[0]).finished
    if earlier and finished and earlier[1].settings.get("model") == model.sha256:
        return open_stack(root / name)
    return (yield from predict(open_stack(image), model, root, PredictConfig(overwrite=finished)))


def save_overview(path: Path, image: np.ndarray, truth: np.ndarray, found: np.ndarray, dice: float) -> None:
    """Draw an image, its truth and what was found side by side, all (Y, X), into a PNG."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1e-9), 0, 1) ** 0.6 * 255
    plain = enlarged(np.repeat(grey.astype(np.uint8)[..., None], 3, -1))
    panels = [
        ("image, not trained on", plain, (255, 255, 255)),
        ("truth", outlined(plain, truth, TRUTH), TRUTH),
        (f"U-Net (Dice of the whole: {dice:.3f})", outlined(plain, found, FOUND), FOUND),
    ]
    height, width = plain.shape[:2]
    head, gap = 36, 8
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, head + height), (32, 32, 32))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for i, (title, panel, colour) in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (i * (width + gap), head))
        draw.text((i * (width + gap) + 8, 7), title, fill=colour, font=font)
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", MARK)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        sheet.save(file, "PNG", pnginfo=about)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def enlarged(plane: np.ndarray) -> np.ndarray:
    """Repeat every pixel of a (Y, X, ...) plane `ZOOM` times each way."""
    return plane.repeat(ZOOM, 0).repeat(ZOOM, 1)


def outlined(picture: np.ndarray, labels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Draw the outlines of (Y, X) labels above 0 into a copy of a (ZOOM * Y, ZOOM * X, 3) picture."""
    inside = enlarged(labels > 0)
    drawn = picture.copy()
    drawn[inside & ~ndimage.binary_erosion(inside, np.ones((5, 5), bool), border_value=1)] = colour
    return drawn


def _check_overview(path: Path) -> None:
    """Refuse to replace a picture that is not the demo's."""
    if not path.exists() and not path.is_symlink():
        return
    try:
        with Image.open(path) as picture:
            ours = picture.info.get("Software") == MARK
    except OSError:
        ours = False
    if path.is_symlink() or not ours:
        raise OutputError(f"{path} exists and was not made by the demo; choose another folder with --out")
