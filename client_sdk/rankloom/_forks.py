"""Which processes can use gRPC: one that was forked lacks the threads of its parent.

gRPC makes its blocking calls ready for a fork, unless it is told not to. It does not do so for
asyncio: a call in such a process would wait for ever, deadline or not, so it is refused here.
"""

from __future__ import annotations

import os
from typing import Final, Literal

from rankloom.errors import ConnectionFailedError

ClientKind = Literal["blocking", "asyncio"]
_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
_OFF: Final = ("0", "false", "no")
_first_use: dict[ClientKind, int] = {}  # the process, which may be an ancestor of this one


def check_process(kind: ClientKind) -> None:
    """Note that gRPC is used here. Raise ConnectionFailedError if a fork has made it unusable."""
    process = os.getpid()
    inherited = {used for used, where in _first_use.items() if where != process}
    if "asyncio" in inherited:
        raise _unusable("an asyncio client had made calls")
    if inherited and os.environ.get(_SUPPORT, "").lower() in _OFF:
        raise _unusable(f"a client had made calls, and {_SUPPORT} is off,")
    _first_use.setdefault(kind, process)


def _unusable(reason: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"{reason} before this process was forked, so gRPC does not work here: make the first call "
        'after the fork, or start the process with "spawn"'
    )
