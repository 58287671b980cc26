"""A start restores the state of the last command, and serves before all is loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters.rollout.commands import command, states
from adapters.rollout.managed import ManagedServer, bundle, first_serving, opened
from rankloom_adapters.rollout.registry import RegistryError
from rankloom_adapters.rollout.states import RolloutState, TransitionError, Verb


async def test_a_start_comes_to_where_the_last_command_led(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=30))
        before = [server.answered_by(f"user-{n}") for n in range(100)]
    with opened(tmp_path) as server:
        await server.manager.start()
        assert states(server.manager.ledger) == {1: RolloutState.ACTIVE, 2: RolloutState.CANARY}
        assert [server.answered_by(f"user-{n}") for n in range(100)] == before


async def test_a_start_loads_nothing_that_was_never_loaded(tmp_path: Path) -> None:
    """As after a crash between both commands of a staging, which may have caused it."""
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        for name, metadata in (("second", {}), ("third", {"unfit": True})):
            digest = server.store.put(bundle(tmp_path, name, **metadata))
            staging = command(Verb.STAGE, 0, 1, f"stage {name}", bundle_digest=digest)
            server.registry.carry_out(staging)
    with opened(tmp_path) as server:
        await server.manager.start()
        await server.manager.resume()
        assert server.loads == 1
        expected = {1: RolloutState.ACTIVE, 2: RolloutState.STAGED, 3: RolloutState.STAGED}
        assert states(server.manager.ledger) == expected
        for name in ("second", "third"):
            await server.manager.stage(tmp_path / f"source-{name}", 1, f"stage {name}")
        expected = {1: RolloutState.ACTIVE, 2: RolloutState.WARMED, 3: RolloutState.QUARANTINED}
        assert states(server.manager.ledger) == expected


async def test_a_trial_that_cannot_be_loaded_again_is_rolled_back(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=30))
        (server.store.folder_of(staged.bundle_digest) / "part").write_text("other")
    with opened(tmp_path) as server:
        await server.manager.start()
        assert states(server.manager.ledger) == {
            1: RolloutState.ACTIVE,
            2: RolloutState.ROLLED_BACK,
        }
        assert server.answered_by() == "first"


async def with_two_warmed(folder: Path) -> None:
    with opened(folder) as server:
        await first_serving(server, folder)
        for name in ("second", "third"):
            await server.manager.stage(bundle(folder, name), 1, f"stage {name}")


async def test_a_start_serves_before_the_rest_is_loaded(tmp_path: Path) -> None:
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        await server.manager.start()
        assert (server.loads, server.revisions.serving) == (1, (1,))
        server.hold.clear()
        resuming = asyncio.create_task(server.manager.resume())
        while server.loads < 2:
            await asyncio.sleep(0.01)
        promoting = asyncio.create_task(
            server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        )
        await asyncio.sleep(0.05)
        assert server.answered_by() == "first"
        assert not promoting.done()
        server.hold.set()
        await asyncio.gather(resuming, promoting)
        assert (server.loads, server.revisions.serving) == (3, (1, 2, 3))
        assert server.answered_by() == "second"


async def test_what_a_rollback_leads_to_is_loaded_first(tmp_path: Path) -> None:
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        await server.manager.start()
        await server.manager.resume()
        await server.manager.change(command(Verb.PROMOTE, 3, 1, forced=True))
    with opened(tmp_path) as server:
        await server.manager.start()
        server.hold.clear()
        resuming = asyncio.create_task(server.manager.resume())
        while server.loads < 2:
            await asyncio.sleep(0.01)
        assert server.loading == "first"
        server.hold.set()
        await resuming


async def test_nobody_is_sent_to_what_could_not_be_loaded(tmp_path: Path) -> None:
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        digest = server.registry.ledger.rollout(3).bundle_digest
        (server.store.folder_of(digest) / "part").write_text("other")
        await server.manager.start()
        server.registry._db.execute("PRAGMA query_only=1")  # like a disk that became read-only
        with pytest.raises(RegistryError):
            await server.manager.resume()
        for verb, percent in ((Verb.PROMOTE, 0), (Verb.CANARY, 50), (Verb.SHADOW, 0)):
            with pytest.raises(TransitionError, match="revision 3 is not loaded"):
                await server.manager.change(
                    command(verb, 3, 1, percent=percent, forced=verb is Verb.PROMOTE)
                )
        assert states(server.manager.ledger)[3] is RolloutState.WARMED
        assert server.answered_by() == "first"


async def while_the_third_is_loaded(server: ManagedServer) -> asyncio.Task[None]:
    """Starts with three revisions, the first active, while the newest is being loaded."""
    await server.manager.start()
    server.hold.clear()
    resuming = asyncio.create_task(server.manager.resume())
    while server.loads < 2:
        await asyncio.sleep(0.01)
    assert server.loading == "third"
    return resuming


async def test_commands_that_need_nothing_of_it_wait_for_no_loading(tmp_path: Path) -> None:
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        resuming = await while_the_third_is_loaded(server)
        await server.manager.change(command(Verb.ROLL_BACK, 3, 1))
        await server.manager.change(command(Verb.RETIRE, 2, 1))
        assert not resuming.done()
        server.hold.set()
        await resuming
        assert (server.loads, server.released) == (2, ["third"])
        assert server.revisions.serving == (1,)
        expected = {1: RolloutState.ACTIVE, 2: RolloutState.RETIRED, 3: RolloutState.ROLLED_BACK}
        assert states(server.manager.ledger) == expected


async def test_what_is_retired_while_it_is_loaded_again_is_forgotten(tmp_path: Path) -> None:
    """Its files may be removed while it is read; that is not an error then."""
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        resuming = await while_the_third_is_loaded(server)
        await server.manager.change(command(Verb.RETIRE, 3, 1))
        server.hold.set()
        await resuming
        assert server.revisions.serving == (1, 2)
        assert states(server.manager.ledger)[3] is RolloutState.RETIRED


async def test_what_is_staged_is_loaded_behind_what_was_there(tmp_path: Path) -> None:
    await with_two_warmed(tmp_path)
    with opened(tmp_path) as server:
        resuming = await while_the_third_is_loaded(server)
        staging = asyncio.create_task(
            server.manager.stage(bundle(tmp_path, "fourth"), 1, "stage fourth")
        )
        while 4 not in server.manager.ledger.rollouts:
            await asyncio.sleep(0.01)
        assert server.loads == 2
        server.hold.set()
        await asyncio.gather(resuming, staging)
        assert (server.loading, server.revisions.serving) == ("fourth", (1, 2, 3, 4))
