"""The start of a ranking server: ports, state and bundle are looked at before torch is imported.

The model's libraries take seconds, and what is wrong with one of those should be said at once.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.rate_limit import RateLimiter
from rankloom_server import logs
from rankloom_server.config import Settings
from rankloom_server.errors import StartError
from rankloom_server.keys import keyring_of
from rankloom_server.rpc.listening import check_all_free
from rankloom_server.state import opened_state

_TRAINING_ONLY: Final = ("accelerate", "scipy", "sklearn")


def serve_ranking(settings: Settings) -> None:
    """Serves until a signal to stop. Raises StartError."""
    logs.configure(settings.server.log_level)
    server, beside = settings.server, (settings.rollout.address, settings.features.served_at)
    asyncio.run(check_all_free((server.address, server.metrics_address, *beside)))
    limiter = RateLimiter(settings.loading.load_mib_s << 20)
    with opened_state(settings.rollout.state, limiter) as state:
        if state is None:  # else the registry says what is served
            _check_bundle(settings)
        with _no_collections(), _without(*_TRAINING_ONLY):
            from rankloom_server.app import run_server
        run_server(settings, state, limiter)


def _check_bundle(settings: Settings) -> None:
    keyring = keyring_of(settings.loading.bundle_keys)
    try:
        open_bundle(settings.bundle, check=keyring.check_manifest if keyring else None)
    except ValueError as error:
        raise StartError(f"{settings.bundle}: {error}") from error


@contextmanager
def _no_collections() -> Iterator[None]:
    """Switch the garbage collector off during imports.

    What imports create stays in use, so collecting finds nothing; it took a fifth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # collections while the bundle is loaded skip the imported objects too
        gc.enable()


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Make packages look absent during imports, although they may be installed.

    transformers imports these wherever it finds them, for features that a server never uses. The
    server extra does not install them, so a server must run without them anyway.
    """
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))  # importing a module whose entry is None fails
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
