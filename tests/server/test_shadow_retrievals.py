"""What a shadow retrieves is compared with what is answered, and bounded by a gate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.features_pb2 import Event, History
from rankloom_proto.v1.ranking_pb2 import (
    ItemSelection,
    RecommendOptions,
    RetrieveOptions,
    RetrieveResponse,
)
from server.rankings import item_ids
from server.retrievals import ids, recommend, retrieve, retrieving_otherwise
from server.rollouts import Running, key, other_bundle, rolling_out, state_name
from server.served_parts import ServedParts
from server.servers import failure_of

NUM_USERS, K = 30, 5


def user(parts: ServedParts, number: int) -> History:
    """Users are told apart by their first event."""
    return History(events=[Event(item_id=item_ids(parts, NUM_USERS)[number], liked=True)])


async def shadowed(server: Running, bundle: Path, percent: int = 100, **gates: float) -> None:
    await server.stage(bundle)
    start = rollout_pb2.StartShadowRequest(
        revision=2, expected_revision=1, idempotency_key=key(), percent=percent
    )
    start.gates.MergeFrom(rollout_pb2.GateSpec(min_samples=20, max_latency_ratio=50.0, **gates))  # type: ignore[arg-type]
    await server.rollouts.StartShadow(start)


async def retrieved_by_all(
    server: Running, parts: ServedParts, **fields: object
) -> list[RetrieveResponse]:
    answers = []
    for number in range(NUM_USERS):
        answer = await retrieve(
            server.ranking, **{"history": user(parts, number), "k": K, **fields}
        )
        answers.append(answer)
        await asyncio.sleep(0.02)  # a shadow retrieves one list at a time
    return answers


async def judged(server: Running) -> rollout_pb2.Rollout:
    """The revision on trial, once every gate has data."""
    found = await server.get(2)
    for _ in range(100):
        if found.judgement.outcome != rollout_pb2.GATE_OUTCOME_NO_DATA:
            return found
        await asyncio.sleep(0.05)
        found = await server.get(2)
    raise AssertionError(found.judgement)


async def test_recommendations_are_evidence_of_both_kinds(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    same = other_bundle(served_folder, tmp_path / "same", 1.0)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await shadowed(server, same)
        for number in range(NUM_USERS):
            answer = await recommend(
                server.ranking,
                history=user(parts, number),
                k=2,
                options=RecommendOptions(retrieve_k=K),
            )
            assert answer.ranking.revision.number == 1
            await asyncio.sleep(0.05)  # a shadow ranks while nobody waits
        found = await judged(server)
        gates = {gate.name: gate for gate in found.judgement.gates if not gate.group}
        assert gates["recall_overlap"].value == gates["topk_overlap"].value == 1.0
        assert gates["recall_overlap"].bound == 0.5
        assert 20 <= gates["recall_overlap"].samples <= NUM_USERS
        promotion = rollout_pb2.PromoteRequest(
            revision=2, expected_revision=1, idempotency_key=key()
        )
        assert state_name((await server.rollouts.Promote(promotion)).rollout) == "active"


async def test_a_shadow_that_retrieves_other_items_is_rolled_back(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = retrieving_otherwise(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await shadowed(server, other)
        answers = await retrieved_by_all(server, parts)
        assert {answer.revision.number for answer in answers} == {1}
        async with asyncio.timeout(10):
            while state_name(await server.get(2)) != "rolled_back":
                await asyncio.sleep(0.05)
        assert (await server.get(2)).reason.startswith("recall_overlap is 0")


async def test_the_gate_shows_the_share_that_both_retrieve(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = retrieving_otherwise(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await shadowed(server, other, min_recall_overlap=0.0)
        ours = [set(ids(answer)) for answer in await retrieved_by_all(server, parts)]
        (gate,) = (
            gate
            for gate in (await server.get(2)).judgement.gates
            if (gate.name, gate.group) == ("recall_overlap", "")
        )
        pinned = RetrieveOptions(revision=2)
        theirs = [
            set(ids(answer)) for answer in await retrieved_by_all(server, parts, options=pinned)
        ]
        shares = [len(a & b) / K for a, b in zip(ours, theirs, strict=True)]
        num = int(gate.samples)
        assert 20 <= num <= NUM_USERS
        assert gate.value == pytest.approx(sum(shares[:num]) / num)
        promotion = rollout_pb2.PromoteRequest(
            revision=2, expected_revision=1, idempotency_key=key()
        )
        failure = await failure_of(server.rollouts.Promote(promotion))
        assert "0 users, 20 are needed" in failure.message, "nobody has asked for a ranking"


async def test_lists_that_say_nothing_of_the_index_are_not_compared(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = retrieving_otherwise(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await shadowed(server, other)
        await retrieved_by_all(server, parts, options=RetrieveOptions(revision=1))
        few = ItemSelection(exclude_item_ids=item_ids(parts, 1000)[K - 1 :])
        await retrieved_by_all(server, parts, options=RetrieveOptions(selection=few))
        found = await server.get(2)
        assert state_name(found) == "shadow"
        assert not found.judgement.gates, "nothing was judged"
