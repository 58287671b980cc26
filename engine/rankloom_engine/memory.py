"""Keeps freed memory in the process, so that tensors land on pages that are already there.

glibc gives every block over some hundred kilobytes back to the system when it is freed.
A small decoder's tensors are of that size, and faulting their pages in again takes time
that the arithmetic could have (`docs/notes/performance.md`).
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_SETTINGS = {
    _M_MMAP_MAX: 0,  # no block gets pages of its own
    _M_TRIM_THRESHOLD: 2**31 - 1,  # the heap's top stays
    _M_TOP_PAD: 64 << 20,
    _M_ARENA_MAX: 1,  # other threads' arenas are too small for tensors
}


def keep_freed_memory() -> None:
    """Sets glibc's allocator for this process; does nothing where there is no glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in _SETTINGS.items():
        mallopt(option, value)
