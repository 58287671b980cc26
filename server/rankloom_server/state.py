"""What a server keeps on disk: the registry of its rollouts, and their bundles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.rollout.registry import Registry, RegistryError
from rankloom_adapters.store import BundleStore, StoreError
from rankloom_server.errors import StartError

REGISTRY = "registry.sqlite"
BUNDLES = "bundles"
_SCRATCH = "staging-"


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """One server's folder, which no other server writes."""

    registry: Registry
    store: BundleStore
    folder: Path

    def scratch(self) -> Path:
        """A new folder for what is on its way; what a killed process left goes at a start."""
        return Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))

    def first_folder(self, bundle: Path) -> Path:
        """Where the bundle is that answered last; ``bundle`` where none has yet.

        Raises StartError.
        """
        ledger = self.registry.ledger
        if not ledger.active:
            return bundle
        try:
            return self.store.folder_of(ledger.rollout(ledger.active).bundle_digest)
        except BundleError as error:
            raise StartError(f"the active revision {ledger.active}: {error}") from error


@contextmanager
def opened_state(
    folder: Path | None, limiter: RateLimiter | None = None
) -> Iterator[ServerState | None]:
    """The state in a folder, which is made where it is not there. Raises StartError.

    ``limiter``: how fast bundles are read.
    """
    if folder is None:
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        registry = Registry(folder / REGISTRY)
    except OSError as error:
        raise StartError(f"state: {folder}: {error.strerror}") from error
    except RegistryError as error:
        raise StartError(f"state: {error}") from error
    with registry:
        try:  # after the registry: what is swept there is no other server's
            store = BundleStore(folder / BUNDLES, limiter)
            for left in folder.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left)
        except (StoreError, OSError) as error:
            raise StartError(f"state: {error}") from error
        yield ServerState(registry, store, folder)
