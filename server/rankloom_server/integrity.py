"""Checks in idle time that stored bundles are still what was stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.store import BundleStore, StoreError
from rankloom_server import logs
from rankloom_server.revision_loader import RevisionLoader

EVERY_S = 60.0


class Integrity:
    """Checks one stored bundle at a time, and the counts of the slots. Repairs nothing."""

    def __init__(
        self, loader: RevisionLoader, store: BundleStore, every_s: float = EVERY_S
    ) -> None:
        self._loader, self._store, self._every_s = loader, store, every_s
        self._left: Iterator[str] = iter(())

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            if not self._loader.pool.num_waiting:
                await self.check_next()

    async def check_next(self) -> None:
        """Checks the next bundle, in a circle, and logs what is wrong."""
        digest = next(self._left, None)
        try:
            if digest is None:
                self._left = iter(sorted(self._store.digests))
                digest = next(self._left, None)
            self._loader.pool.check_integrity()
            if digest is not None:
                await self._loader.read(self._store.check, digest)
        except BundleError as error:
            with suppress(StoreError):
                if digest in self._store.digests:  # it may have been let go meanwhile
                    logs.write("bundle_damaged", bundle_digest=digest, reason=str(error))
        except StoreError as error:
            logs.fault("store_unreadable", error)
        except ArithmeticError as error:
            logs.fault("slots_miscounted", error)
