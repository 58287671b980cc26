"""Commands take effect once they are durable; a start comes to where the last one led."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.rollout.commands import command, states
from adapters.rollout.observed import alike
from rankloom_adapters.bundle import BundleError, open_bundle, seal
from rankloom_adapters.generation import Generations, UnknownGenerationError
from rankloom_adapters.rollout.evidence import Observation
from rankloom_adapters.rollout.judge import Verdict
from rankloom_adapters.rollout.manager import (
    GatesNotPassedError,
    Loader,
    NotServableError,
    RolloutManager,
)
from rankloom_adapters.rollout.registry import Registry, RegistryError
from rankloom_adapters.rollout.split import Arm
from rankloom_adapters.rollout.states import Rollout, RolloutError, State, TransitionError, Verb
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.store import BundleStore


class Server:
    """A manager on real files; a bundle becomes the name in its metadata."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.generations = Generations[str]()
        self.released: list[str] = []
        self.loads = 0
        self.loading = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self.store = BundleStore(folder / "bundles")
        loader = Loader(self._load, self.released.append)
        self.registry = registry
        self.manager = RolloutManager(registry, self.store, self.generations, loader)

    async def _load(self, folder: Path) -> str:
        self.loads += 1
        bundle = open_bundle(folder)
        self.loading = str(bundle.metadata["name"])
        await self.hold.wait()
        bundle.check()
        if "unfit" in bundle.metadata:
            raise NotServableError("the gate is of another space")
        return str(bundle.metadata["name"])

    def answered_by(self, user: str = "") -> str:
        with self.generations.lease(user=user) as lease:
            return lease.value


@contextmanager
def opened(folder: Path) -> Iterator[Server]:
    with Registry(folder / "registry.sqlite") as registry:
        yield Server(registry, folder)


def bundle(folder: Path, name: str, **metadata: object) -> Path:
    source = folder / f"source-{name}"
    source.mkdir()
    (source / "part").write_text(name)
    seal(source, {"name": name, **metadata})
    return source


async def first_serving(server: Server, folder: Path) -> None:
    await server.manager.stage(bundle(folder, "first"), 0, "stage first")
    await server.manager.change(command(Verb.PROMOTE, 1, 0, forced=True))


async def test_a_bundle_goes_all_the_way(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        assert (staged.generation, staged.state) == (2, State.WARMED)
        assert server.answered_by() == "first"
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=50))
        users = [server.answered_by(f"user-{n}") for n in range(100)]
        assert set(users) == {"first", "second"}
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        assert server.answered_by() == "second"
        await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
        assert server.answered_by() == "first"
        with server.generations.lease(2) as lease:  # who was ranked by it may ask why
            assert lease.value == "second"
        assert not server.released
        await server.manager.change(command(Verb.RETIRE, 2, 1))
        assert server.released == ["second"]


async def test_what_is_retired_is_let_go_with_its_last_lease(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        with server.generations.lease() as lease:
            await server.manager.change(command(Verb.ROLL_BACK, 2, 2))
            await server.manager.change(command(Verb.RETIRE, 2, 1))
            assert (lease.value, server.answered_by()) == ("second", "first")
            with pytest.raises(UnknownGenerationError), server.generations.lease(2):
                pass
            assert not server.released
        assert server.released == ["second"]


async def test_a_start_comes_to_where_the_last_command_led(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=30))
        before = [server.answered_by(f"user-{n}") for n in range(100)]
    with opened(tmp_path) as server:
        await server.manager.start()
        assert states(server.manager.ledger) == {1: State.ACTIVE, 2: State.CANARY}
        assert [server.answered_by(f"user-{n}") for n in range(100)] == before


async def test_a_bundle_that_does_not_fit_is_quarantined(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "bad", unfit=True), 1, "stage bad")
        assert (staged.state, staged.reason) == (
            State.QUARANTINED,
            "the gate is of another space",
        )
        with pytest.raises(RolloutError, match="is quarantined"):
            await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        with pytest.raises(UnknownGenerationError), server.generations.lease(2):
            pass
        assert server.answered_by() == "first"


async def test_a_damaged_bundle_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        source = bundle(tmp_path, "second")
        (source / "part").write_text("other")
        with pytest.raises(BundleError):
            await server.manager.stage(source, 1, "stage second")
        assert states(server.manager.ledger) == {1: State.ACTIVE}


async def test_a_start_loads_nothing_that_was_never_loaded(tmp_path: Path) -> None:
    """As after a crash between the two commands of a staging: it may be what crashed."""
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
        expected = {1: State.ACTIVE, 2: State.STAGED, 3: State.STAGED}
        assert states(server.manager.ledger) == expected
        for name in ("second", "third"):
            await server.manager.stage(tmp_path / f"source-{name}", 1, f"stage {name}")
        expected = {1: State.ACTIVE, 2: State.WARMED, 3: State.QUARANTINED}
        assert states(server.manager.ledger) == expected


async def test_a_trial_that_cannot_be_loaded_again_is_rolled_back(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        staged = await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        await server.manager.change(command(Verb.CANARY, 2, 1, percent=30))
        (server.store.folder_of(staged.bundle_digest) / "part").write_text("other")
    with opened(tmp_path) as server:
        await server.manager.start()
        assert states(server.manager.ledger) == {1: State.ACTIVE, 2: State.ROLLED_BACK}
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
        assert (server.loads, server.generations.serving) == (1, (1,))
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
        assert (server.loads, server.generations.serving) == (3, (1, 2, 3))
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
        server.registry._db.execute("PRAGMA query_only=1")  # as a disk that turned read-only
        with pytest.raises(RegistryError):
            await server.manager.resume()
        for verb, percent in ((Verb.PROMOTE, 0), (Verb.CANARY, 50), (Verb.SHADOW, 0)):
            with pytest.raises(TransitionError, match="generation 3 is not loaded"):
                await server.manager.change(
                    command(verb, 3, 1, percent=percent, forced=verb is Verb.PROMOTE)
                )
        assert states(server.manager.ledger)[3] is State.WARMED
        assert server.answered_by() == "first"


async def test_the_same_staging_again_is_one(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        source = bundle(tmp_path, "first")
        one = await server.manager.stage(source, 0, "mine")
        assert await server.manager.stage(source, 0, "mine") == one
        assert states(server.manager.ledger) == {1: State.WARMED}


async def test_a_staging_that_was_cut_short_goes_on_when_asked_again(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        source = bundle(tmp_path, "first")
        server.hold.clear()
        cut = asyncio.create_task(server.manager.stage(source, 0, "mine"))
        while not server.manager.ledger.rollouts:
            await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        assert states(server.manager.ledger) == {1: State.STAGED}
        server.hold.set()
        assert (await server.manager.stage(source, 0, "mine")).state is State.WARMED


async def test_a_command_that_is_not_durable_has_no_effect(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        await first_serving(server, tmp_path)
        await server.manager.stage(bundle(tmp_path, "second"), 1, "stage second")
        server.registry._db.execute("PRAGMA query_only=1")  # as a disk that turned read-only
        with pytest.raises(RegistryError):
            await server.manager.change(command(Verb.PROMOTE, 2, 1, forced=True))
        assert server.answered_by() == "first"


def on_trial(server: Server) -> Trial:
    assert server.manager.trial is not None
    return server.manager.trial


async def canary(server: Server, folder: Path, percent: int = 50) -> str:
    """A canary of a second generation; gives a user of its share."""
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
        assert server.manager.ledger.rollout(2).state is State.ROLLED_BACK
        assert not staging.done()
        server.hold.set()
        await staging
        expected = {1: State.ACTIVE, 2: State.ROLLED_BACK, 3: State.WARMED}
        assert states(server.manager.ledger) == expected


async def test_a_breach_sends_nobody_there_though_it_cannot_be_written(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        user = await canary(server, tmp_path)
        on_trial(server).add(Arm.CANARY, Observation(1, "", 0.1, failed=True, non_finite=True))
        server.registry.close()
        with pytest.raises(RegistryError):
            await server.manager.judge()
        assert server.answered_by(user) == "first"


async def test_other_gates_or_another_active_generation_begin_a_trial_anew(tmp_path: Path) -> None:
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


async def passed(server: Server, folder: Path) -> Trial:
    """A trial whose gates have passed, and whose next check is not due for a while."""
    user = await canary(server, folder)
    gates = '{"min_samples": 40}'
    await server.manager.change(command(Verb.CANARY, 2, 1, "gates", percent=50, gates=gates))
    see(on_trial(server), alike(40), alike(40))
    judgement = await server.manager.judge()
    assert judgement is not None
    assert judgement.verdict is Verdict.PASS, judgement.reason
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
        assert states(server.manager.ledger) == {1: State.ACTIVE, 2: State.ROLLED_BACK}
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
        assert on_trial(server).generation == 3
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
        assert (await staging).state is State.WARMED


async def second_being_loaded(server: Server, folder: Path) -> asyncio.Task[Rollout]:
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
        assert (await staging).state is State.RETIRED
        assert server.released == ["second"]
        assert server.generations.numbers == (1,)
        kept = {server.manager.ledger.rollout(1).bundle_digest}
        assert server.store.digests == kept
        third = await server.manager.stage(bundle(tmp_path, "third"), 1, "stage third")
        await server.manager.change(command(Verb.RETIRE, third.generation, 1))
        assert server.store.digests == kept


async def test_a_bundle_whose_row_cannot_be_written_is_let_go(tmp_path: Path) -> None:
    with opened(tmp_path) as server:
        staging = await second_being_loaded(server, tmp_path)
        server.registry.close()
        server.hold.set()
        with pytest.raises(RegistryError):
            await staging
        assert server.released == ["second"]
        assert server.generations.numbers == (1,)
