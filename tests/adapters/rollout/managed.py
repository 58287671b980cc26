"""A rollout manager on real files; a loaded bundle is the name in its metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.rollout.commands import command
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_adapters.revision import Revisions
from rankloom_adapters.rollout.loaded import Loader, NotServableError
from rankloom_adapters.rollout.manager import RolloutManager
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import Verb
from rankloom_adapters.store import BundleStore


class ManagedServer:
    """A rollout manager whose loads can be paused."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.revisions = Revisions[str]()
        self.released: list[str] = []
        self.loads = 0
        self.loading = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self.store = BundleStore(folder / "bundles")
        loader = Loader(self._load, self.released.append)
        self.registry = registry
        self.manager = RolloutManager(registry, self.store, self.revisions, loader)

    async def _load(self, folder: Path) -> str:
        self.loads += 1
        bundle = open_bundle(folder)
        self.loading = str(bundle.metadata["name"])
        await self.hold.wait()
        bundle.check()
        if "unfit" in bundle.metadata:
            raise NotServableError("the router is of another space")
        return str(bundle.metadata["name"])

    def answered_by(self, user: str = "") -> str:
        with self.revisions.lease(user=user) as lease:
            return lease.value


@contextmanager
def opened(folder: Path) -> Iterator[ManagedServer]:
    with Registry(folder / "registry.sqlite") as registry:
        yield ManagedServer(registry, folder)


def bundle(folder: Path, name: str, **metadata: object) -> Path:
    source = folder / f"source-{name}"
    source.mkdir()
    (source / "part").write_text(name)
    seal(source, {"name": name, **metadata})
    return source


async def first_serving(server: ManagedServer, folder: Path) -> None:
    await server.manager.stage(bundle(folder, "first"), 0, "stage first")
    await server.manager.change(command(Verb.PROMOTE, 1, 0, forced=True))
