"""Bundles and experts rolled out over the wire while a real server ranks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import safetensors.numpy

from rankloom_adapters.expert import WEIGHTS_FILE
from rankloom_engine.model import Decoder
from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from server.rankings import known_user, request, scores
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
from server.served_parts import ServedParts
from server.servers import failure_of


async def test_a_bundle_is_staged_promoted_and_rolled_back(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        first = await server.rank(request(parts))
        staged = await server.stage(other)
        assert (staged.revision, state_name(staged), staged.loaded) == (2, "warmed", True)
        assert (await server.rank(request(parts))).revision.number == 1
        assert state_name(await server.promote(2)) == "active"
        second = await server.rank(request(parts))
        assert second.revision.number == 2
        assert second.revision.bundle_digest == staged.bundle_digest
        assert scores(second) != scores(first)
        assert state_name(await server.roll_back(2, 2)) == "rolled_back"
        third = await server.rank(request(parts))
        assert third.revision.number == 1
        assert scores(third) == pytest.approx(scores(first), abs=1e-5)


async def test_what_serves_comes_back_after_a_restart(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.promote(2)
        before = await server.rank(request(parts))
    async with rolling_out(served_folder, tmp_path / "state") as server:
        after = await server.rank(request(parts))
        assert after.revision == before.revision
        assert scores(after) == pytest.approx(scores(before), abs=1e-5)
        assert (await server.all()).active == 2
        await server.roll_back(2, 2)
        assert (await server.rank(request(parts))).revision.number == 1


@pytest.mark.parametrize("by", ["weights", "alpha"])
async def test_one_expert_is_replaced_and_no_cache_remembers_the_old_one(
    by: str, served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    expert = "global"
    scale, alpha = (3.0, 1.0) if by == "weights" else (1.0, 3.0)
    files = expert_folder(served_folder, expert, tmp_path / "files", scale, alpha=alpha)
    other = other_bundle(served_folder, tmp_path / "whole", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        cold = request(parts, user_id="nobody")  # answered by the global expert alone
        before = [scores(await server.rank(cold)) for _ in range(2)]
        assert before[0] == pytest.approx(before[1], abs=1e-5), "with a kept prefix and without"
        staged = await server.stage_expert(expert, files)
        await server.promote(staged.revision)
        after = [scores(await server.rank(cold)) for _ in range(2)]
        assert max(abs(after[0][n] - before[0][n]) for n in after[0]) > 1e-3
        assert after[0] == pytest.approx(after[1], abs=1e-5)
        again = await server.stage(other, expected=2)
        await server.promote(again.revision, expected=2)
        assert scores(await server.rank(cold)) == pytest.approx(before[0], abs=1e-5)


async def test_the_files_may_come_with_the_call(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    others = expert_folder(served_folder, "global", tmp_path / "others", 1.5)

    async with rolling_out(served_folder, tmp_path / "state") as server:
        header = rollout_pb2.StageUploadHeader(
            expert="global", expected_revision=1, idempotency_key="up"
        )
        staged = (await server.rollouts.StageUpload(upload_of(header, files))).rollout
        assert state_name(staged) == "warmed"
        again = (await server.rollouts.StageUpload(upload_of(header, files))).rollout
        assert again.revision == staged.revision
        failure = await failure_of(server.rollouts.StageUpload(upload_of(header, others)))
        assert failure.reason == "KEY_REUSED", "the same key, and other bytes"
        by_url = await server.stage_expert("global", files)
        assert by_url.bundle_digest == staged.bundle_digest
        assert not list((tmp_path / "state").glob("staging-*"))


async def test_an_expert_of_another_shape_is_refused_before_it_is_kept(
    served_folder: Path, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    tensors = safetensors.numpy.load((files / WEIGHTS_FILE).read_bytes())
    narrow = {k: a[:, :-1].copy() if "lora_A" in k else a for k, a in tensors.items()}
    (files / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(narrow))
    async with rolling_out(served_folder, tmp_path / "state") as server:
        source = rollout_pb2.ExpertSource(name="global", url=str(files))
        message = rollout_pb2.StageRequest(
            expert=source, expected_revision=1, idempotency_key=key()
        )
        failure = await failure_of(server.rollouts.Stage(message))
        assert failure.reason == "BUNDLE_INVALID"
        assert ": shape (" in failure.raw
        assert [each.revision for each in (await server.all()).rollouts] == [1]


async def test_watchers_take_no_places_of_those_who_change(
    served_folder: Path, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        calls = [server.rollouts.Watch(rollout_pb2.WatchRequest()) for _ in range(40)]
        first = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
        refused = [each for each in first if isinstance(each, grpc.aio.AioRpcError)]
        assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) == 8
        await server.stage(other)
        await server.promote(2)
        assert state_name(await server.roll_back(2, 2)) == "rolled_back"
        for call in calls:
            call.cancel()


async def test_nothing_is_promoted_untried_unless_it_is_forced(
    served_folder: Path, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        promotion = rollout_pb2.PromoteRequest(
            revision=2, expected_revision=1, idempotency_key=key()
        )
        failure = await failure_of(server.rollouts.Promote(promotion))
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.reason == "GATES_NOT_PASSED"
        assert "start a shadow or a canary" in failure.message
        await server.start_canary(2, 50)
        failure = await failure_of(server.rollouts.Promote(promotion))
        assert failure.reason == "GATES_NOT_PASSED"
        assert "there is no evidence yet" in failure.message


async def test_a_canary_answers_its_share_always_the_same_users(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.start_canary(2, 50)
        users = [f"user-{n}" for n in range(40)]
        rounds = []
        for _ in range(2):
            answers = [await server.rank(request(parts, 1, user_id=user)) for user in users]
            rounds.append([answer.revision.number for answer in answers])
        assert rounds[0] == rounds[1]
        assert set(rounds[0]) == {1, 2}
        judgement = (await server.get(2)).judgement
        assert judgement.num_trial + judgement.num_baseline == 80
        assert judgement.outcome == rollout_pb2.GATE_OUTCOME_NO_DATA


async def test_a_canary_that_ranks_otherwise_is_rolled_back(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other", 6.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.start_canary(2, 50, min_samples=20, max_ks=0.1, false_alarms=0.2)
        for n in range(400):
            await server.rank(request(parts, 5, user_id=f"user-{n}"))
            if state_name(await server.get(2)) == "rolled_back":
                break
        found = await server.get(2)
        assert state_name(found) == "rolled_back"
        assert "is the bound" in found.reason
        assert (await server.rank(request(parts))).revision.number == 1


T = TypeVar("T")


def slow(answer: Callable[..., T], seconds: float) -> Callable[..., T]:
    def answered(*arguments: Any, **options: Any) -> T:  # noqa: ANN401
        time.sleep(seconds)
        return answer(*arguments, **options)

    return answered


async def test_a_canary_whose_answers_come_too_late_is_rolled_back(
    served_folder: Path, parts: ServedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = other_bundle(served_folder, tmp_path / "same", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(same)
        await server.start_canary(2, 50, min_samples=20, max_latency_ratio=50.0, false_alarms=0.2)
        stub = RankingServiceStub(server.ranking)
        users = [f"user-{n}" for n in range(120)]
        answers = [await server.rank(request(parts, 2, user_id=user)) for user in users]
        seen = (await server.get(2)).judgement.num_trial
        theirs = [u for u, a in zip(users, answers, strict=True) if a.revision.number == 2]
        with monkeypatch.context() as slowed:
            slowed.setattr(Decoder, "forward", slow(Decoder.forward, 0.15))
            for user in theirs:
                late = stub.Rank(request(parts, 2, user_id=user), timeout=0.1)
                assert (await failure_of(late)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert seen == len(theirs)
        for user in users:
            await server.rank(request(parts, 2, user_id=user))
        async with asyncio.timeout(10):
            while state_name(await server.get(2)) != "rolled_back":
                await asyncio.sleep(0.05)
        assert (await server.get(2)).reason.startswith("errors")


async def test_the_same_bundle_passes_as_a_canary_and_is_promoted(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    same = other_bundle(served_folder, tmp_path / "same", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(same)
        await server.start_canary(2, 50, min_samples=30, max_latency_ratio=50.0)
        for n in range(150):
            await server.rank(request(parts, 2, user_id=f"user-{n}"))
        await _until_passed(server, 2)
        promotion = rollout_pb2.PromoteRequest(
            revision=2, expected_revision=1, idempotency_key=key()
        )
        assert state_name((await server.rollouts.Promote(promotion)).rollout) == "active"


async def test_a_shadow_compares_and_answers_nobody(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    same = other_bundle(served_folder, tmp_path / "same", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(same)
        start = rollout_pb2.StartShadowRequest(
            revision=2,
            expected_revision=1,
            idempotency_key=key(),
            gates=rollout_pb2.GateSpec(min_samples=20, max_latency_ratio=50.0),
        )
        await server.rollouts.StartShadow(start)
        for n in range(60):
            answer = await server.rank(request(parts, 3, user_id=f"user-{n}"))
            assert answer.revision.number == 1
            await asyncio.sleep(0.01)  # a shadow is ranked while nobody waits
        await _until_passed(server, 2)
        judgement = (await server.get(2)).judgement
        overlap = next(gate for gate in judgement.gates if "overlap" in gate.name)
        assert overlap.value == 1.0


async def test_a_shadow_ranks_no_more_than_its_share(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    same = other_bundle(served_folder, tmp_path / "same", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(same)
        start = rollout_pb2.StartShadowRequest(
            revision=2, percent=20, expected_revision=1, idempotency_key=key()
        )
        assert (await server.rollouts.StartShadow(start)).rollout.percent == 20
        for n in range(200):
            await server.rank(request(parts, 2, user_id=f"user-{n}"))
            await asyncio.sleep(0.005)
        # 40 are expected, give or take 5.7 (the standard deviation).
        assert 8 < (await server.get(2)).judgement.num_trial < 72
        start.percent, start.idempotency_key = 101, key()
        failure = await failure_of(server.rollouts.StartShadow(start))
        assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "percent")


async def _until_passed(server: Running, revision: int) -> None:
    for _ in range(100):
        judgement = (await server.get(revision)).judgement
        if judgement.outcome == rollout_pb2.GATE_OUTCOME_PASSED:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(judgement.reason)


async def test_a_watcher_hears_of_every_change(served_folder: Path, tmp_path: Path) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        stream = server.rollouts.Watch(rollout_pb2.WatchRequest(), timeout=30)
        first = (await next_of(stream)).revisions
        assert [state_name(each) for each in first.rollouts] == ["active"]
        await server.stage(other)
        await server.promote(2)
        states: list[list[str]] = []
        while not states or states[-1] != ["warmed", "active"]:
            found = (await next_of(stream)).revisions
            states.append([state_name(each) for each in found.rollouts])
        stream.cancel()


async def test_two_revisions_share_what_they_have_in_common(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        before = (await server.all()).expert_bytes
        for number in range(2, 6):
            scaled = expert_folder(served_folder, "global", tmp_path / f"f{number}", number + 1.0)
            await server.stage_expert("global", scaled)
        assert (await server.all()).expert_bytes == before
        assert (await server.stage_expert("global", files)).loaded
    kept = list((tmp_path / "state" / "bundles").glob("*/base/model.safetensors"))
    assert len(kept) == 6
    assert len({path.stat().st_ino for path in kept}) == 1, "one file with six names"


async def test_users_are_known_to_the_log_by_nothing(
    served_folder: Path, parts: ServedParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = known_user(parts)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other_bundle(served_folder, tmp_path / "other"))
        await server.start_canary(2, 50)
        await server.rank(request(parts, user_id=f"{user}-synthetic"))
    assert "synthetic" not in capsys.readouterr().err


async def test_an_expert_is_put_into_the_bundle_that_its_sender_knows(
    served_folder: Path, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage_expert("global", files)
        await server.promote(2)
        message = rollout_pb2.StageRequest(
            expert=rollout_pb2.ExpertSource(name="global", url=str(files)),
            expected_revision=1,
            idempotency_key=key(),
        )
        failure = await failure_of(server.rollouts.Stage(message))
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "REVISION_STALE")
        assert failure.metadata == {"current": "2"}
