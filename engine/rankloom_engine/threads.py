"""How torch's idle threads wait: in a server they sleep at once, in training they spin briefly.

OpenMP's threads spin at the end of each operation while they wait for the next one. If
another process wants the core, two spinning threads are slower than one, at times several
times, and they take time from a server's event loop. But waking a sleeping thread takes as
long as a small operation, and training has thousands of those a second
(`docs/notes/performance.md`). Call either function before torch is imported; neither changes a
variable that the user has set.
"""

from __future__ import annotations

import os
from typing import Final

# About 30 µs. Longer spinning costs more next to a busy process than it saves on an idle machine.
SPINS: Final = "3000"


def wait_passively() -> None:
    """Idle threads sleep at once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def wait_briefly() -> None:
    """Idle threads spin for about 30 µs before they sleep."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
