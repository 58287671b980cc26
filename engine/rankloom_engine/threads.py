"""Idle torch threads sleep instead of spinning.

OpenMP's threads spin at the end of each operation while they wait for the next. Where
another process wants the core, that makes two threads slower than one, at times several
times, and it takes time from a server's own event loop; sleeping costs a few percent on
idle cores (`benchmarks/README.md`).
"""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Must be called before torch is imported; a policy that the user has set stays."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
