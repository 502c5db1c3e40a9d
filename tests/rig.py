"""What tests of faults share: a small image and model, the command in this process, and a server of files."""

import hashlib
from pathlib import Path

import numpy as np
import zarr
from typer.testing import CliRunner

from napari_unet.cli import app

FAST = ("--precision", "fp32", "--device", "cpu")


def call(*args):
    """Run a command in this process: (exit code, what it said)."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def store_image(path, shape=(96, 64), **more):
    """Store an image of noise in chunks of 32."""
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    chunks, names = (32,) * len(shape), list("zyx"[-len(shape) :])
    zarr.create_array(path, data=data, chunks=chunks, dimension_names=names, **more)
    return path


def content(root):
    """Every file of a result but its record, as path: hash."""
    files = [p for p in Path(root).rglob("*") if p.is_file() and ".napari_unet" not in p.parts]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
