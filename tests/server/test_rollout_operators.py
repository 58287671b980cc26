"""Four operators at once, whatever they ask for: one active revision, nothing lost."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import grpc
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.features_pb2 import Candidate
from rankloom_proto.v1.ranking_pb2 import RankRequest
from server.rollouts import (
    Running,
    expert_folder,
    key,
    next_of,
    other_bundle,
    rolling_out,
    state_name,
    upload_of,
)

NUM_OPERATORS = 4
EXPECTED_CODES = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
HELD = ("warmed", "shadow", "canary", "active")
AFTER = {  # states that a later command may lead to
    "warmed": {"warmed", "shadow", "canary", "active", "rolled_back", "retired"},
    "shadow": {"shadow", "canary", "active", "warmed", "rolled_back", "retired"},
    "canary": {"canary", "active", "warmed", "rolled_back", "retired"},
    "active": {"active", "warmed", "shadow", "canary", "rolled_back", "retired"},
    "rolled_back": {"rolled_back", "retired"},
    "retired": {"retired"},
}


@dataclass(frozen=True)
class Wish:
    """What one operator asks for.

    ``stale``: who has not looked for a while. ``careful``: who gives gates, and asks them.
    """

    verb: str
    revision: int
    percent: int
    stale: bool
    careful: bool


WISHES = st.builds(
    Wish,
    st.sampled_from(
        [
            *("stage", "expert", "upload", "upload expert"),
            *("shadow", "canary", "promote", "promote", "rollback", "retire"),
            *("get", "list", "watch"),
        ]
    ),
    st.integers(0, 6),
    st.integers(0, 100),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, True]),
)
READING = ("get", "list", "watch")
EXPERT = "global"


class Operators(RuleBasedStateMachine):
    """Over the wire, on a server that is started again now and then."""

    folders: ClassVar[list[Path]]
    experts: ClassVar[list[Path]]
    item: ClassVar[str]
    done: ClassVar[set[str]]  # what was granted in any example

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.runner, self.stack = asyncio.Runner(), AsyncExitStack()
        self.acknowledged: list[rollout_pb2.Rollout] = []
        self._start()

    def _start(self) -> None:
        opening = self.stack.enter_async_context(
            rolling_out(self.folders[0], self.folder / "state", max_in_flight=256)
        )
        self.server: Running = self.runner.run(opening)

    @rule(wishes=st.tuples(*[WISHES] * NUM_OPERATORS))
    def operators_act(self, wishes: tuple[Wish, ...]) -> None:
        async def act() -> None:
            active = (await self.server.all()).active
            async with asyncio.TaskGroup() as group:
                for wish in wishes:
                    group.create_task(self._fulfil(wish, active))

        self.runner.run(act())

    @rule()
    def start_again(self) -> None:
        before = self.runner.run(self.server.all())
        self.runner.run(self.stack.aclose())
        self._start()
        after = self.runner.run(self.server.all())
        assert after.active == before.active
        assert [(r.revision, r.state) for r in after.rollouts] == [
            (r.revision, r.state) for r in before.rollouts
        ]
        self.runner.run(self._all_loaded())

    async def _all_loaded(self) -> None:
        """What requests are sent to is loaded at once, the rest after it."""
        async with asyncio.timeout(30):
            while any(
                state_name(each) in HELD and not each.loaded
                for each in (await self.server.all()).rollouts
            ):
                await asyncio.sleep(0.02)

    @invariant()
    def what_was_acknowledged_holds(self) -> None:
        found = self.runner.run(self.server.all())
        states = {each.revision: state_name(each) for each in found.rollouts}
        assert [number for number, state in states.items() if state == "active"] == [found.active]
        assert sum(state in ("shadow", "canary") for state in states.values()) <= 1
        loaded = {each.revision for each in found.rollouts if each.loaded}
        held = {number for number, state in states.items() if state in HELD}
        assert held <= loaded
        assert {states[number] for number in loaded - held} <= {"rolled_back"}
        for each in self.acknowledged:
            assert states[each.revision] in AFTER[state_name(each)]
        ranked = self.runner.run(self.server.rank(_request()))
        assert states[ranked.revision.number] in ("active", "canary")

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    async def _fulfil(self, wish: Wish, active: int) -> None:
        common = {
            "expected_revision": active + 100 * wish.stale,
            "idempotency_key": key(),
        }
        try:
            found = await self._call(wish, common)
        except grpc.aio.AioRpcError as error:
            if error.code() not in EXPECTED_CODES:
                raise
            return
        if wish.verb in READING:
            return
        assert not wish.stale
        assert not (wish.verb == "promote" and wish.careful)  # nothing was seen that would pass
        self.acknowledged.append(found)
        self.done.add(wish.verb)

    async def _call(self, wish: Wish, common: dict[str, object]) -> rollout_pb2.Rollout:
        stub, given = self.server.rollouts, {"revision": wish.revision, **common}
        if wish.careful and wish.verb in ("shadow", "canary"):
            given["gates"] = rollout_pb2.GateSpec(min_samples=1 + wish.percent)
        match wish.verb:
            case "stage" | "expert" | "upload" | "upload expert":
                return await self._stage(wish, common)
            case "shadow":
                shadow = rollout_pb2.StartShadowRequest(percent=wish.percent, **given)  # type: ignore[arg-type]
                return (await stub.StartShadow(shadow, timeout=10)).rollout
            case "canary":
                canary = rollout_pb2.StartCanaryRequest(percent=wish.percent, **given)  # type: ignore[arg-type]
                return (await stub.StartCanary(canary, timeout=10)).rollout
            case "promote":
                promote = rollout_pb2.PromoteRequest(without_gates=not wish.careful, **given)  # type: ignore[arg-type]
                return (await stub.Promote(promote, timeout=10)).rollout
            case "rollback":
                back = rollout_pb2.RollbackRequest(**given)  # type: ignore[arg-type]
                return (await stub.Rollback(back, timeout=10)).rollout
            case "retire":
                retire = rollout_pb2.RetireRequest(**given)  # type: ignore[arg-type]
                return (await stub.Retire(retire, timeout=10)).rollout
            case "get":
                return await self.server.get(wish.revision)
            case _:
                return await self._look(wish)

    async def _stage(self, wish: Wish, common: dict[str, object]) -> rollout_pb2.Rollout:
        stub, name = self.server.rollouts, EXPERT if "expert" in wish.verb else ""
        folders = self.experts if name else self.folders
        folder = folders[wish.revision % len(folders)]
        if wish.verb.startswith("upload"):
            header = rollout_pb2.StageUploadHeader(expert=name, **common)  # type: ignore[arg-type]
            return (await stub.StageUpload(upload_of(header, folder), timeout=60)).rollout
        source = rollout_pb2.ExpertSource(name=name, url=str(folder)) if name else None
        url = None if name else str(folder)
        request = rollout_pb2.StageRequest(bundle_url=url, expert=source, **common)  # type: ignore[arg-type]
        return (await stub.Stage(request, timeout=60)).rollout

    async def _look(self, wish: Wish) -> rollout_pb2.Rollout:
        """What is seen beside changes is never without an active revision, nor with two."""
        if wish.verb == "list":
            seen = await self.server.all()
        else:
            stream = self.server.rollouts.Watch(rollout_pb2.WatchRequest(), timeout=30)
            seen = (await next_of(stream)).revisions
            stream.cancel()
        active = [each for each in seen.rollouts if state_name(each) == "active"]
        assert [each.revision for each in active] == [seen.active]
        return active[0]


def _request() -> RankRequest:
    return RankRequest(user_id="somebody", candidates=[Candidate(item_id=Operators.item)])


@pytest.fixture
def bundles(served_folder: Path, tmp_path: Path) -> list[Path]:
    more = [other_bundle(served_folder, tmp_path / f"b{n}", 1.0 + n) for n in range(2)]
    return [served_folder, *more]


def test_operators(bundles: list[Path], tmp_path: Path) -> None:
    from server.served_parts import load_parts

    Operators.folders, Operators.done = bundles, set()
    Operators.experts = [
        expert_folder(bundles[0], EXPERT, tmp_path / f"e{n}", 1.2 + n) for n in range(2)
    ]
    Operators.item = load_parts(bundles[0]).loaded.catalogue.items[0].item_id
    run_state_machine_as_test(
        Operators,
        settings=settings(
            max_examples=12,
            stateful_step_count=10,
            deadline=None,
            phases=[
                Phase.generate
            ],  # a failure is told as it was found: making it small takes long
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Operators.done >= {"stage", "expert", "upload", "upload expert"}
