"""Commands take effect once they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.rollout.commands import command, states
from adapters.rollout.managed import ManagedServer, bundle, first_serving, opened
from adapters.rollout.observed import alike
from rankloom_adapters.bundle import BundleError
from rankloom_adapters.revision import UnknownRevisionError
from rankloom_adapters.rollout.current_trial import GatesNotPassedError
from rankloom_adapters.rollout.evidence import Observation
from rankloom_adapters.rollout.judge import TrialVerdict
from rankloom_adapters.rollout.registry import RegistryError
from rankloom_adapters.rollout.states import Rollout, RolloutError, RolloutState, Verb
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.split import Arm


async def test_a_bundle_goes_all_the_way(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        assert (staged.revision, staged.state) == (2, RolloutState.WARMED)
        assert server.answered_by() == "first"
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=50))
        users = [server.answered_by(f"user-{n}") for n in range(100)]
        assert set(users) == {"first", "second"}
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        assert server.answered_by() == "second"
        await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
        assert server.answered_by() == "first"
        with server.revisions.lease(2) as lease:  # its users may still ask for an explanation
            assert lease.value == "second"
        assert not server.released
        await server.manager.change(command(Verb.RETIRE, 2, 1))
        assert server.released == ["second"]


async def test_what_is_retired_is_let_go_with_its_last_lease(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        with server.revisions.lease() as lease:
            await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
            await server.manager.change(command(Verb.RETIRE, 2, 1))
            assert (lease.value, server.answered_by()) == ("second", "first")
            with pytest.raises(UnknownRevisionError), server.revisions.lease(2):
                pass
            assert not server.released
        assert server.released == ["second"]


async def test_a_bundle_that_does_not_fit_is_quarantined(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "bad", unfit=True), 1, "stage bad")
        assert (staged.state, staged.reason) == (
            RolloutState.QUARANTINED,
            "the router is of another space",
        )
        with pytest.raises(RolloutError, match="is quarantined"):
            await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        with pytest.raises(UnknownRevisionError), server.revisions.lease(2):
            pass
        assert server.answered_by() == "first"


async def test_a_damaged_bundle_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        source = bundle(tmp_path, "second")
        (source / "part").write_text("other")
        with pytest.raises(BundleError):
            await server.manager.stage(source, 1, "stage second")
        assert states(server.manager.ledger) == {1: RolloutState.ACTIVE}


async def test_the_same_staging_again_is_one(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        source = bundle(tmp_path, "first")
        one = await server.manager.stage(source, 0, "mine")
        assert await server.manager.stage(source, 0, "mine") == one
        assert states(server.manager.ledger) == {1: RolloutState.WARMED}


async def test_a_staging_that_was_cut_short_goes_on_when_asked_again(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        source = bundle(tmp_path, "first")
        server.hold.clear()
        cut = asyncio.create_task(server.manager.stage(source, 0, "mine"))
        while not server.manager.ledger.rollouts:
            await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        assert states(server.manager.ledger) == {1: RolloutState.STAGED}
        server.hold.set()
        assert (await server.manager.stage(source, 0, "mine")).state is RolloutState.WARMED


async def test_a_command_that_is_not_durable_has_no_effect(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        server.registry._db.execute("PRAGMA query_only=1")  # like a disk that became read-only
        with pytest.raises(RegistryError):
            await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        assert server.answered_by() == "first"


def on_trial(server: ManagedServer) -> Trial:
    assert server.manager.trial is not None
    return server.manager.trial


async def canary(server: ManagedServer, folder: Path, percent: int = 50) -> str:
    """Starts a canary of a second revision; returns one of its users."""
    await first_serving(server, folder)
    await server.manager.stage(bundle(folder, "second"), 1, "stage second")
    await server.manager.change(command(Verb.CANARY, 2, 1, percent=percent))
    return next(name for n in range(100) if server.answered_by(name := f"u{n}") == "second")


async def test_a_breach_is_rolled_back_while_a_bundle_is_staged(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        user = await canary(server, tmp_path)
        server.hold.clear()
        staging = asyncio.create_task(
            server.manager.stage(bundle(tmp_path, "third"), 1, "stage third")
        )
        while server.loads < 3:
            await asyncio.sleep(0.01)
        on_trial(server).add(Arm.CANARY, Observation(1, "", 0.1, failed=True, non_finite=True))
        await server.manager.judge()
        assert server.answered_by(user) == "first"
        assert server.manager.ledger.rollout(2).state is RolloutState.ROLLED_BACK
        assert not staging.done()
        server.hold.set()
        await staging
        expected = {1: RolloutState.ACTIVE, 2: RolloutState.ROLLED_BACK, 3: RolloutState.WARMED}
        assert states(server.manager.ledger) == expected


async def test_a_breach_sends_nobody_there_though_it_cannot_be_written(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        user = await canary(server, tmp_path)
        on_trial(server).add(Arm.CANARY, Observation(1, "", 0.1, failed=True, non_finite=True))
        server.registry.close()
        with pytest.raises(RegistryError):
            await server.manager.judge()
        assert server.answered_by(user) == "first"


async def test_other_gates_or_another_active_revision_begin_a_trial_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await canary(server, tmp_path)
        first = on_trial(server)
        same = command(Verb.CANARY, 2, 1, "again", percent=50)
        await server.manager.change(same)
        assert on_trial(server) is first
        gates = '{"min_samples": 30}'
        await server.manager.change(command(Verb.CANARY, 2, 1, "gates", percent=50, gates=gates))
        second = on_trial(server)
        assert second is not first
        assert second.thresholds.min_samples == 30


async def passed(server: ManagedServer, folder: Path) -> Trial:
    """A trial whose gates have passed, and whose next check is not due yet."""
    user = await canary(server, folder)
    gates = '{"min_samples": 40}'
    await server.manager.change(command(Verb.CANARY, 2, 1, "gates", percent=50, gates=gates))
    see(on_trial(server), alike(40), alike(40))
    judgement = await server.manager.judge()
    assert judgement is not None
    assert judgement.verdict is TrialVerdict.PASS, judgement.reason
    assert server.answered_by(user) == "second"
    return on_trial(server)


def see(trial: Trial, canary: Sequence[Observation], baseline: Sequence[Observation]) -> None:
    for arm, seen in ((Arm.CANARY, canary), (Arm.BASELINE, baseline)):
        for each in seen:
            trial.add(arm, each)


async def test_what_was_seen_since_the_last_check_is_judged_before_a_promotion(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as server:
        trial = await passed(server, tmp_path)
        failed = [replace(each, user=100 + each.user, failed=True) for each in alike(19)]
        see(trial, failed, alike(19))
        assert await server.manager.judge() is None
        with pytest.raises(GatesNotPassedError, match="rolled back: errors is"):
            await server.manager.change(command(Verb.PROMOTE, 2, 1))
        assert states(server.manager.ledger) == {
            1: RolloutState.ACTIVE,
            2: RolloutState.ROLLED_BACK,
        }
        assert server.answered_by() == "first"


async def test_a_promotion_after_more_of_the_same_goes_through(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        trial = await passed(server, tmp_path)
        more = [replace(each, user=100 + each.user) for each in alike(19)]
        see(trial, more, more)
        await server.manager.change(command(Verb.PROMOTE, 2, 1))
        assert server.answered_by() == "second"


async def test_evidence_beside_one_that_was_rolled_back_does_not_count(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        for name in ("second", "third"):
            await server.manager.stage(bundle(tmp_path, name), 1, f"stage {name}")
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        await server.manager.change(command(Verb.CANARY, 3, 2, percent=50))
        beside_second = on_trial(server)
        await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
        assert on_trial(server).revision == 3
        assert on_trial(server) is not beside_second


async def test_an_operator_rolls_back_while_a_bundle_is_staged(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        server.hold.clear()
        staging = asyncio.create_task(
            server.manager.stage(bundle(tmp_path, "third"), 2, "stage third")
        )
        while server.loads < 3:
            await asyncio.sleep(0.01)
        await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
        assert server.answered_by() == "first"
        server.hold.set()
        assert (await staging).state is RolloutState.WARMED


async def second_being_loaded(server: ManagedServer, folder: Path) -> asyncio.Task[Rollout]:
    await first_serving(server, folder)
    server.hold.clear()
    source = bundle(folder, "second")
    staging = asyncio.create_task(server.manager.stage(source, 1, "stage second"))
    while server.loads < 2:
        await asyncio.sleep(0.01)
    return staging


async def test_what_is_retired_while_it_is_loaded_is_let_go(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        staging = await second_being_loaded(server, tmp_path)
        await server.manager.change(command(Verb.RETIRE, 2, 1))
        server.hold.set()
        assert (await staging).state is RolloutState.RETIRED
        assert server.released == ["second"]
        assert server.revisions.numbers == (1,)
        kept = {server.manager.ledger.rollout(1).bundle_digest}
        assert server.store.digests == kept
        third = await server.manager.stage(bundle(tmp_path, "third"), 1, "stage third")
        await server.manager.change(command(Verb.RETIRE, third.revision, 1))
        assert server.store.digests == kept


async def test_a_bundle_whose_row_cannot_be_written_is_let_go(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        staging = await second_being_loaded(server, tmp_path)
        server.registry.close()
        server.hold.set()
        with pytest.raises(RegistryError):
            await staging
        assert server.released == ["second"]
        assert server.revisions.numbers == (1,)
