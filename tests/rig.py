"""What tests of faults share: a small image and model, the command in this process, and a server of files."""

import numpy as np
import zarr


def store_image(path, shape=(96, 64), **more):
    """Store an image of noise in chunks of 32."""
    data = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    chunks, names = (32,) * len(shape), list("zyx"[-len(shape) :])
    zarr.create_array(path, data=data, chunks=chunks, dimension_names=names, **more)
    return path
