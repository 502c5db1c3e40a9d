"""Images beside each other as one PNG: what was given, what came out, what is true."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy import ndimage

from ..errors import UsageError
from ..files import check_replaceable, disk, make_folder, replacing
from ..sources import open_stack
from ..sources.open import More, Reading

WHITE = (255, 255, 255)  # of titles, on dark grey
HEAD, GAP, FONT = 36, 8, 18  # pixels: a line of title, and a gap that is seen between dark images
SHOWN, SMALLEST = 512, 240  # pixels of the truth that are shown at most, and of a panel at least
GAMMA = 0.6  # so that what is dim is seen
SOFTWARE = "napari-unet evaluate"  # by which a picture of ours is known
Colour = tuple[int, int, int]
Panel = tuple[str, np.ndarray, Colour]


def grey(plane: np.ndarray, limits: tuple[float, float] | None = None, gamma: float = GAMMA) -> np.ndarray:
    """Turn a (Y, X) plane into a (Y, X, 3) uint8 picture; from its 0.5 to its 99.5 percentile without limits."""
    low, high = np.percentile(plane, (0.5, 99.5)) if limits is None else limits
    values = np.clip((plane - low) / max(high - low, 1e-9), 0, 1) ** gamma * 255
    return np.repeat(values.astype(np.uint8)[..., None], 3, -1)


def enlarged(plane: np.ndarray, times: int) -> np.ndarray:
    """Repeat every pixel of a (Y, X, ...) plane so many times each way."""
    return plane.repeat(times, 0).repeat(times, 1)


def outlined(picture: np.ndarray, labels: np.ndarray, colour: Colour, times: int) -> np.ndarray:
    """Draw the outlines of (Y, X) labels above 0 into a copy of a (times * Y, times * X, 3) picture."""
    inside = enlarged(labels > 0, times)
    drawn = picture.copy()
    drawn[inside & ~ndimage.binary_erosion(inside, np.ones((5, 5), bool), border_value=1)] = colour
    return drawn


def save_panels(path: Path, panels: Sequence[Panel], software: str) -> None:
    """Write panels, (title, (Y, X, 3) uint8, colour of the title), side by side into a PNG; one of ours is replaced.

    Raises
    ------
    ResourceError
        Where it cannot be written.
    """
    edges = np.cumsum([0, *(panel.shape[1] + GAP for _, panel, _ in panels)])
    height = max(panel.shape[0] for _, panel, _ in panels)
    sheet = Image.new("RGB", (int(edges[-1]) - GAP, HEAD + height), (32, 32, 32))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for left, (title, panel, colour) in zip(edges, panels, strict=False):
        sheet.paste(Image.fromarray(panel), (int(left), HEAD))
        draw.text((int(left) + 8, 7), title, fill=colour, font=font)
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", software)
    with disk(path.parent):
        make_folder(path.parent)
    with disk(path.parent), replacing(path) as file:
        sheet.save(file, "PNG", pnginfo=about)


def save_comparison(
    path: Path, result: Any, truth: Any, before: Any = None, axes: str | None = None, **more: Unpack[More]
) -> None:
    """Draw the middle of images beside each other, in the contrast of the truth: before, result, truth, difference.

    Parameters
    ----------
    path : Path
        PNG.
    result, truth, before : path, Stack or array
        Of the same part of the world; `before` may be coarser than the truth by whole factors.
    axes : str, optional
        Of all of them, as for `open_stack`.
    **more
        Of result and truth, as for `open_stack`: ``series``, ``allow_incomplete``.

    Raises
    ------
    UsageError
        Where `path` is not a PNG, or an image does not lie on the truth.
    OutputError, UnsafeError
        Where something lies there that is not a picture of this function.
    """
    check_picture(path)
    opening: Reading = {"axes": axes, **more}
    right, found = middle(truth, opening), middle(result, opening)
    if found.shape != right.shape:
        raise UsageError(f"the result is of {found.shape} pixels, the truth of {right.shape}; give those of one image")
    box = tuple(slice((n - min(n, SHOWN)) // 2, (n + min(n, SHOWN)) // 2) for n in right.shape)
    times = max(1, -(-SMALLEST // min(b.stop - b.start for b in box)))
    low, high = (float(v) for v in np.percentile(right[box], (0.5, 99.5)))
    shown = {} if before is None else {"before": _fitted(middle(before, {"axes": axes}), right.shape)}
    shown |= {"result": found, "truth": right}
    panels = [(name, enlarged(grey(plane[box], (low, high)), times), WHITE) for name, plane in shown.items()]
    off = np.abs(found.astype(np.float64) - right)[box]
    worst = f"difference, white: {(high - low) / 2:.4g} or more"
    panels.append((worst, enlarged(grey(off, (0, (high - low) / 2), 1.0), times), WHITE))
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_panels(path, panels, SOFTWARE)


def check_picture(path: Path, software: str = SOFTWARE, what: str = "picture by evaluate") -> None:
    """Refuse a name that is not a PNG's, and to replace what `save_panels` did not draw for `software`.

    Raises
    ------
    UsageError, OutputError, UnsafeError
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path} is not a .png; choose another name for the picture")
    check_replaceable(path, lambda path: _is_drawn(path, software), what)


def _is_drawn(path: Path, software: str) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return bool(picture.info.get("Software") == software)
    except (OSError, ValueError):
        return False


def middle(source: Any, opening: Reading) -> np.ndarray:
    """Read the middle plane of a stack, (Y, X), of its first channel and time."""
    stack = open_stack(source, **opening)
    at = {a: stack.size(a) // 2 if a == "z" else 0 for a in stack.axes if a not in "yx"}
    return np.asarray(stack.select(**at).data[...])


def _fitted(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat the pixels of a coarser plane so that it covers `shape`."""
    factors = [n // m for n, m in zip(shape, plane.shape, strict=True)]
    if any(m * f != n for m, f, n in zip(plane.shape, factors, shape, strict=True)):
        raise UsageError(f"the image before is of {plane.shape} pixels, the truth of {shape}; give a whole factor")
    return plane.repeat(factors[0], 0).repeat(factors[1], 1)
