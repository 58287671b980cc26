"""How torch's idle threads wait: a server's sleep at once, those that learn spin briefly.

OpenMP's threads spin at the end of each operation while they wait for the next. Where
another process wants the core, that makes two threads slower than one, at times several
times, and it takes time from a server's own event loop. Waking a thread that sleeps takes as
long as a small operation, of which learning has thousands a second
(`docs/notes/performance.md`). Both must be called before torch is imported, and leave be what the
user has set.
"""

from __future__ import annotations

import os
from typing import Final

# Some 30 microseconds: beside a busy process, longer ones cost more than they bring alone.
SPINS: Final = "3000"


def wait_passively() -> None:
    """Threads sleep at once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def wait_briefly() -> None:
    """Threads spin for some 30 microseconds before they sleep."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
