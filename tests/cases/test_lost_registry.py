"""Without its registry a state folder is not begun anew, and no bundle of it is removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters.rollout.commands import command
from adapters.rollout.managed import bundle, first_serving, opened
from rankloom_adapters.rollout.states import Verb
from rankloom_adapters.store import BundleStore
from rankloom_server.errors import StartError
from rankloom_server.state import BUNDLES, REGISTRY, opened_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state of a server that had two revisions."""

    async def roll_out() -> None:
        with opened(tmp_path) as server:
            await first_serving(server, tmp_path)
            await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
            await server.manager.close()

    asyncio.run(roll_out())
    assert len(BundleStore.seen(tmp_path / BUNDLES)) == 2
    return tmp_path


@pytest.mark.parametrize("lost", ["missing", "empty", "without a row"])
def test_bundles_without_a_registry_are_refused_in_one_line(
    folder: Path, lost: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept = BundleStore.seen(folder / BUNDLES)
    (folder / REGISTRY).unlink()
    if lost == "empty":
        (folder / REGISTRY).touch()
    elif lost == "without a row":
        new = tmp_path_factory.mktemp("new")
        with opened_state(new):
            pass
        (new / REGISTRY).rename(folder / REGISTRY)
    for _ in range(2):  # the first refusal must not make the second start succeed
        with pytest.raises(StartError) as refused, opened_state(folder):
            pass
        [line] = str(refused.value).splitlines()
        assert "missing or empty" in line
        assert "holds 2 bundles" in line
        assert "restore the registry" in line
        assert BundleStore.seen(folder / BUNDLES) == kept
    (folder / BUNDLES).rename(folder / "moved away")
    with opened_state(folder) as state:
        assert state is not None
        assert not state.registry.ledger.rollouts


async def test_a_bundle_that_the_ledger_never_knew_is_not_removed(tmp_path: Path) -> None:
    """As after a restore of an older registry."""
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        foreign = server.store.put(bundle(tmp_path, "foreign"))
        server.store.known(foreign)  # by a ledger that is lost
        second = await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.RETIRE, second.revision, 1))
        assert foreign in server.store.digests
        assert second.bundle_digest not in server.store.digests


def test_a_first_start_that_was_cut_short_is_no_loss(tmp_path: Path) -> None:
    """Killed after its bundle was stored, before the registry named it."""
    source = bundle(tmp_path, "first")
    with opened_state(tmp_path / "state") as state:
        assert state is not None
        digest = state.store.put(source)
    with opened_state(tmp_path / "state") as state:
        assert state is not None
        assert state.store.unknown == {digest}
