"""Sizes that passes are padded to, so that few shapes are ever run.

Kernels are made for a shape: oneDNN generates code, torch.compile may, and a CUDA graph
records one. The first pass of a new size costs more than the pass itself, and the sizes
of real requests hardly repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

FINEST: Final = 16  # rows of a tile of the CPU's matrix unit: smaller steps save nothing
STEPS: Final = 16  # per doubling from 256 up: padding adds at most 1/16, 1/40 on average


def bucket(size: int) -> int:
    """The smallest size to run that has room for ``size``, which is at least 1."""
    power = 1 << (size - 1).bit_length()
    if size <= FINEST:  # the next tokens of a few texts
        return power
    step = max(FINEST, power // (2 * STEPS))
    return -(-size // step) * step


def buckets(largest: int) -> Iterator[int]:
    """All sizes to run, up to the one that has room for ``largest``."""
    size = 0
    while size < largest:
        size = bucket(size + 1)
        yield size
