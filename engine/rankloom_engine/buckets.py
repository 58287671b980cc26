"""Sizes that passes are padded to, so that only few shapes are ever run.

Kernels are made for a shape: oneDNN generates code, torch.compile may, and a CUDA graph
records one. A size that was never run before costs more than the pass itself, and sizes
of real requests hardly repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

FINEST: Final = 16  # rows of a tile of the CPU's matrix unit: less saves nothing
STEPS: Final = 16  # to a doubling from 256 up: padding adds 1/16 there at most, 1/40 on average


def bucket(size: int) -> int:
    """The smallest size to run that holds so many; ``size`` is at least 1."""
    power = 1 << (size - 1).bit_length()
    if size <= FINEST:  # the next words of a few texts
        return power
    step = max(FINEST, power // (2 * STEPS))
    return -(-size // step) * step


def buckets(largest: int) -> Iterator[int]:
    """Every size to run, up to the one that holds the largest."""
    size = 0
    while size < largest:
        size = bucket(size + 1)
        yield size
