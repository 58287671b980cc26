"""Keeps freed memory in the process, so that new tensors get pages that are already mapped.

glibc returns every freed block above some hundred kilobytes to the system. The tensors of a
small decoder have that size, and faulting their pages in again takes time from the
arithmetic (`docs/notes/performance.md`).
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_SETTINGS = {
    _M_MMAP_MAX: 0,  # no block is mapped by itself
    _M_TRIM_THRESHOLD: 2**31 - 1,  # the heap never shrinks
    _M_TOP_PAD: 64 << 20,
    _M_ARENA_MAX: 1,  # the arenas of further threads are too small for tensors
}


def keep_freed_memory() -> None:
    """Configures glibc's allocator for this process; does nothing without glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in _SETTINGS.items():
        mallopt(option, value)
