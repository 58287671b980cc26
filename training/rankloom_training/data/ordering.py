"""The order of a log's rows by several columns, in time that grows with the rows and no faster.

``np.lexsort`` compares rows, and so takes n · log n steps, each of them in another place of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint64(1 << 63)
_DIGIT_BITS = 16  # numpy's stable sort of so short numbers counts them, and compares none


def stable_order(*keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """(rows,) the order by the first key, then by the next ones; equal rows stay in theirs.

    ``keys``: (rows,) each, at least one, of integers, booleans, or float64 without NaN.
    """
    order = np.arange(len(keys[0]))
    different = [key for at, key in enumerate(keys) if not any(key is one for one in keys[:at])]
    for key in reversed(different):
        order = _sorted_by(order, _as_whole_numbers(key))
    return order


def _as_whole_numbers(key: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Numbers from 0 in the same order, without the bits that are the same in all of them."""
    if not len(key):
        return np.zeros(0, np.uint64)
    bits = _float_bits(key) if key.dtype.kind == "f" else key.astype(np.int64).view(np.uint64)
    bits = bits ^ _SIGN
    bits -= bits.min()
    used = int(np.bitwise_or.reduce(bits))
    return np.asarray(bits >> np.uint64(max((used & -used).bit_length() - 1, 0)))


def _float_bits(key: NDArray[np.generic]) -> NDArray[np.uint64]:
    """As signed integers, positive floats are in their order and negative ones in the reverse."""
    bits = (key.astype(np.float64) + 0.0).view(np.int64)  # -0.0 becomes 0.0
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits).view(np.uint64)


def _sorted_by(order: NDArray[np.int64], numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """By these numbers, from their last digit on; what is equal stays as it is in ``order``."""
    for shift in range(0, int(numbers.max(initial=0)).bit_length(), _DIGIT_BITS):
        digit = (numbers >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order
