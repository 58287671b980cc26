"""What a server keeps on disk: the registry of its rollouts, and their bundles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.rollout.registry import Registry, RegistryError
from rankloom_adapters.store import BundleStore, StoreError
from rankloom_server.errors import StartError

REGISTRY = "registry.sqlite"
BUNDLES = "bundles"
_SCRATCH = "staging-"


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """One server's state folder; no other server may write it."""

    registry: Registry
    store: BundleStore
    folder: Path

    def scratch(self) -> Path:
        """A new temporary folder; those of a killed process are removed at the next start."""
        return Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))


@contextmanager
def opened_state(
    folder: Path | None, limiter: RateLimiter | None = None
) -> Iterator[ServerState | None]:
    """The state in a folder, which is created if it is missing. Raises StartError.

    ``limiter``: limits how fast bundles are read.
    """
    if folder is None:
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / REGISTRY).exists():
            _check_nothing_kept(folder, BundleStore.seen(folder / BUNDLES))
        registry = Registry(folder / REGISTRY)
    except OSError as error:
        raise StartError(
            f"state: {folder}: {error.strerror}; give a folder that this process may write to"
        ) from error
    except RegistryError as error:
        raise StartError(f"state: {error}") from error
    with registry:
        try:  # after the registry: what is swept there is no other server's
            if not registry.ledger.newest:
                _check_nothing_kept(folder, BundleStore.seen(folder / BUNDLES))
            store = BundleStore(folder / BUNDLES, limiter)
            for left in folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left)
        except (StoreError, OSError) as error:
            raise StartError(f"state: {error}") from error
        yield ServerState(registry, store, folder)


def _check_nothing_kept(folder: Path, digests: Collection[str]) -> None:
    """Raises StartError: a registry that begins anew would not know them."""
    if digests:
        num, kept = len(digests), folder / BUNDLES
        raise StartError(
            f"state: {folder / REGISTRY}: missing or empty, but {kept} holds {num} "
            f"bundle{'s' if num > 1 else ''} of earlier rollouts; restore the registry from a "
            f"backup, or move {kept} away to begin anew"
        )
