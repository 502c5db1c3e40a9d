"""Noise whose value at a voxel follows from a seed and the voxel's place alone: whoever draws it draws the same."""

import numpy as np

from .views import Box

# Salmon et al. 2011, table 2 and section 4.3: multipliers and steps of the key of Philox-4x32, and its rounds.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio, and the root of 3 less 1, as fractions of a word
ROUNDS = 10  # Salmon et al. 2011: the default, three more than pass all tests
LOW = np.uint64(0xFFFFFFFF)  # the lower half of a product
HALF = np.uint64(32)  # bits of it
RANGE = 2.0**32  # of a word: 32 bits
WORDS = 4  # of one counter: normal numbers of so many voxels in a row
CHANNELS = 2**16  # of a sample, in the other word of the key; a network has at most 4096


def philox(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return four words of 32 bits for each counter of four: Philox-4x32-10.

    Parameters
    ----------
    counter : four uint64 arrays that fit each other's shape, of values below 2**32
    key : two numbers below 2**32

    References
    ----------
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    """
    a, b, c, d = counter
    keys = list(key)
    for _ in range(ROUNDS):
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b = (second >> HALF) ^ b ^ np.uint64(keys[0]), second & LOW
        c, d = (first >> HALF) ^ d ^ np.uint64(keys[1]), first & LOW
        keys = [(k + step) % 2**32 for k, step in zip(keys, STEPS, strict=True)]
    return a, b, c, d


def normal(box: Box, seed: int, sample: int = 0, channel: int = 0) -> np.ndarray:
    """Return the normal numbers (mean 0, standard deviation 1) of the voxels of a box: float32, of its shape.

    Parameters
    ----------
    box : box
        Of at most four axes, the last four of t, z, y, x; places in the whole volume, from 0.
    seed : int
        Below 2**32: a word of the key.
    sample, channel : int
        Below 2**16 each.

    References
    ----------
    Box and Muller 1958, of the words of Salmon et al. 2011.
    """
    *outer, row = (slice(0, 1),) * (WORDS - len(box)) + tuple(box)
    first, last = row.start // WORDS, -(-row.stop // WORDS)
    t, z, y = (
        np.arange(b.start, b.stop, dtype=np.uint64).reshape([-1 if i == axis else 1 for i in range(4)])
        for axis, b in enumerate(outer)
    )
    words = philox((np.arange(first, last, dtype=np.uint64), y, z, t), (seed, sample * CHANNELS + channel))
    found = np.empty((*np.broadcast_shapes(*(w.shape for w in words)), WORDS), np.float32)
    for at, (size, turn) in enumerate((words[:2], words[2:])):
        length = np.sqrt(-2 * np.log((size + np.uint64(1)) / RANGE))
        angle = turn * (2 * np.pi / RANGE)
        found[..., 2 * at], found[..., 2 * at + 1] = length * np.cos(angle), length * np.sin(angle)
    rows = found.reshape(*found.shape[:3], -1)[..., row.start - first * WORDS : row.stop - first * WORDS]
    return rows.reshape([b.stop - b.start for b in box])
