"""Evidence over the wire, on a real bundle: each influence is the difference of two rankings."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import grpc
import pytest

from rankloom_adapters.bundle import ROUTER, seal
from rankloom_engine.loading import Hardware
from rankloom_engine.model import DecodeInput, DecodeOutput, ForwardInput, ForwardOutput
from rankloom_engine.pool import EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.wire import features_to_wire, parse_users, query_to_wire
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import (
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    History,
)
from rankloom_ranker.answers import EventEvidence
from rankloom_ranker.citing import cited_ids, to_cite
from rankloom_ranker.evidence import ScoredQuery, evidence_of
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_ranker.ranking import prepare, score
from rankloom_server.rpc.lifecycle import RpcServer
from server.explanations import explain, request, stubborn
from server.rankings import candidates, item_ids, known_user, rank, ranking_channel, scores
from server.served_parts import ServedParts, load_parts
from server.servers import behaving_server, opened

TOLERANCE = 1e-5
MAX_EVENTS = 20  # of the prompt


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


def events_of(parts: ServedParts, num: int, seed: int = 0) -> tuple[Event, ...]:
    """A history of catalogue items, some of them twice; two in three are liked."""
    items = parts.loaded.catalogue.items
    ids = [items[(seed + 7 * n * (n + 1)) % len(items)].item_id for n in range(num)]
    return tuple(Event(item_id, liked=n % 3 != 0) for n, item_id in enumerate(ids))


def wire(events: Sequence[Event]) -> History:
    return query_to_wire(UserQuery(None, tuple(events))).history


async def score_of(channel: grpc.aio.Channel, item: str, events: Sequence[Event]) -> float:
    message = ranking_pb2.RankRequest(candidates=candidates([item]), history=wire(events))
    return scores(await rank(channel, message))[item]


async def differences(
    channel: grpc.aio.Channel, item: str, events: Sequence[Event], newest: int
) -> list[float]:
    whole = await score_of(channel, item, events)
    first = max(len(events) - newest, 0)
    return [
        whole - await score_of(channel, item, [*events[:at], *events[at + 1 :]])
        for at in range(first, len(events))
    ]


@pytest.mark.parametrize("num_events", [1, 5, 20, 33])
async def test_an_influence_is_the_difference_of_two_rankings(
    num_events: int, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    """Alone, in a full prompt, and where an older event moves up into the prompt."""
    events, item = events_of(parts, num_events), item_ids(parts, 30)[-1]
    message = request(parts, candidate=candidates([item])[0], history=wire(events))
    found = (await explain(channel, message)).final.evidence
    newest = events[-MAX_EVENTS:]
    assert [(each.item_id, each.liked) for each in found] == [
        (event.item_id, event.liked) for event in newest
    ]
    expected = await differences(channel, item, events, MAX_EVENTS)
    assert [each.influence for each in found] == pytest.approx(expected, abs=TOLERANCE)
    assert max(map(abs, expected)) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def fusing(parts: ServedParts, tmp_path_factory: pytest.TempPathFactory) -> ServedParts:
    """The bundle with a router so warm that most users get a mixture of several experts."""
    bundle, out = parts.loaded.bundle, tmp_path_factory.mktemp("fusing") / "bundle"
    shutil.copytree(bundle.folder, out)
    (out / ROUTER).write_bytes(replace(parts.loaded.router, temperature=1.5).to_bytes())
    seal(out, bundle.metadata)
    copy_events(events_beside(bundle.folder), events_beside(out))
    return load_parts(out)


async def test_each_variant_has_a_mixture_of_its_own(fusing: ServedParts) -> None:
    weights = set()
    async with ranking_channel(fusing) as channel:
        for seed in range(3):
            events, item = events_of(fusing, 8, seed), item_ids(fusing, 1)[0]
            final = (await explain(channel, request(fusing, history=wire(events)))).final
            expected = await differences(channel, item, events, MAX_EVENTS)
            assert [each.influence for each in final.evidence] == pytest.approx(
                expected, abs=TOLERANCE
            )
            weights.add(tuple(each.weight for each in final.routing.weights))
    assert len(weights) > 1
    assert any(len(each) > 1 for each in weights)


async def test_a_user_of_the_log_has_the_evidence_of_the_same_history(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    events = parts.loaded.provider.features(UserQuery(known_user(parts), None)).events
    by_id = (await explain(channel, request(parts))).final.evidence
    by_history = (await explain(channel, request(parts, history=wire(events)))).final.evidence
    assert [each.item_id for each in by_id] == [event.item_id for event in events[-MAX_EVENTS:]]
    assert [each.influence for each in by_id] == pytest.approx(
        [each.influence for each in by_history], abs=TOLERANCE
    )


@pytest.mark.parametrize(("max_evidence", "num"), [(0, 0), (3, 3), (99, 12)])
async def test_evidence_can_be_limited_to_the_newest_events(
    max_evidence: int, num: int, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    history = wire(events_of(parts, 12))
    whole = (await explain(channel, request(parts, history=history))).final.evidence
    options = ranking_pb2.ExplainOptions(max_evidence=max_evidence)
    part = (await explain(channel, request(parts, history=history, options=options))).final
    expected = list(whole)[len(whole) - num :]
    assert [each.item_id for each in part.evidence] == [each.item_id for each in expected]
    assert [each.influence for each in part.evidence] == pytest.approx(
        [each.influence for each in expected], abs=TOLERANCE
    )


@pytest.mark.parametrize("fusion", ["FUSION_TOP1", "FUSION_EXACT_SUM"])
async def test_the_fusion_of_the_text_is_that_of_its_evidence(
    fusion: str, channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    events, item = events_of(parts, 4, seed=3), item_ids(parts, 1)[0]
    value = ranking_pb2.Fusion.Value(fusion)
    options = ranking_pb2.ExplainOptions(fusion=value)
    message = request(parts, history=wire(events), options=options)
    found = (await explain(channel, message)).final
    rankings = [
        await rank(
            channel,
            ranking_pb2.RankRequest(
                candidates=candidates([item]),
                history=wire(history),
                options=ranking_pb2.RankOptions(fusion=value),
            ),
        )
        for history in (events, events[1:])
    ]
    whole, without = (scores(each)[item] for each in rankings)
    assert found.evidence[0].influence == pytest.approx(whole - without, abs=TOLERANCE)


async def test_new_users_have_no_evidence(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    for fields in ({"user_id": "nobody"}, {"history": History()}):
        assert not (await explain(channel, request(parts, **fields))).final.evidence


def feature_server(
    parts: ServedParts, change: Callable[[GetUserFeaturesResponse], object]
) -> RpcServer:
    """Answers with the bundle's own features, changed."""

    async def behave(message: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        found = parts.loaded.provider.features_of_many(parse_users(message))
        answer = GetUserFeaturesResponse(features=map(features_to_wire, found))
        change(answer)
        return answer

    return behaving_server(behave)


async def remote_evidence(
    parts: ServedParts, change: Callable[[GetUserFeaturesResponse], object]
) -> list[ranking_pb2.Evidence]:
    async with (
        opened(feature_server(parts, change)) as features,
        ranking_channel(parts, features=features) as channel,
    ):
        final = (await explain(channel, request(parts))).final
    assert final.verdict
    return list(final.evidence)


async def test_a_feature_server_ablates_too(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    own = (await explain(channel, request(parts))).final.evidence
    remote = await remote_evidence(parts, lambda _: None)
    assert [each.item_id for each in remote] == [each.item_id for each in own]
    assert [each.influence for each in remote] == pytest.approx(
        [each.influence for each in own], abs=TOLERANCE
    )


def without_ablations(answer: GetUserFeaturesResponse) -> None:
    """What a server says that does not know the field."""
    answer.features[0].ClearField("ablated")


def of_a_longer_history(answer: GetUserFeaturesResponse) -> None:
    """Between two calls, the user liked one more item."""
    if answer.features[0].ablated:
        answer.features[0].events.append(answer.features[0].events[0])


def with_short_vectors(answer: GetUserFeaturesResponse) -> None:
    for each in answer.features[0].ablated:
        each.vector = each.vector[:-4]


def failing(answer: GetUserFeaturesResponse) -> None:
    if answer.features[0].ablated:
        raise RuntimeError("no ablations today")


@pytest.mark.parametrize(
    "change", [without_ablations, of_a_longer_history, with_short_vectors, failing]
)
async def test_no_evidence_rather_than_a_false_one(
    change: Callable[[GetUserFeaturesResponse], object],
    parts: ServedParts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await remote_evidence(parts, change) == []
    log = capsys.readouterr().err
    assert ('"evidence_failure": ' in log) == (change in (with_short_vectors, failing))


async def test_evidence_that_is_late_is_left_out_and_the_answer_comes(parts: ServedParts) -> None:
    slow, decoder = stubborn(parts)
    forward = decoder.forward

    def slowly(inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        time.sleep(0.4)
        return forward(inputs)

    async with ranking_channel(slow, max_batch_tokens=128) as channel:
        decoder.forward = slowly  # type: ignore[method-assign]
        options = ranking_pb2.ExplainOptions(max_tokens=4)
        history = wire(events_of(parts, 20))
        message = request(parts, options=options, history=history)
        told = await explain(channel, message, timeout_s=3)
    assert 0 < len(told.final.evidence) < MAX_EVENTS
    assert told.final.verdict
    assert told.final.generated_tokens == 4


@pytest.mark.parametrize(("max_evidence", "is_given"), [(6, True), (0, False)])
async def test_words_are_decoded_behind_the_evidence(
    max_evidence: int, is_given: bool, parts: ServedParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens between the verdict and the words are those of the strongest events."""
    watched, decoder = stubborn(parts)
    decode, read = decoder.decode, list[list[int]]()

    def reading(inputs: Sequence[DecodeInput]) -> list[DecodeOutput]:
        read.extend(each.tokens.ids.tolist() for each in inputs)
        return decode(inputs)

    async with ranking_channel(watched) as channel:
        monkeypatch.setattr(decoder, "decode", reading)
        options = ranking_pb2.ExplainOptions(max_tokens=2, max_evidence=max_evidence)
        message = request(parts, history=wire(events_of(parts, 6)), options=options)
        final = (await explain(channel, message)).final
    liked = final.verdict == ranking_pb2.VERDICT_LIKED
    found = [EventEvidence(each.item_id, each.liked, each.influence) for each in final.evidence]
    given = cited_ids(parts.loaded, to_cite(found, liked=liked))
    assert bool(given) == is_given
    verdict = decoder.yes if liked else decoder.no
    assert read[0][-len(given) - 1 :] == [verdict, *given]


async def test_evidence_leaves_the_cached_prefixes_alone(parts: ServedParts) -> None:
    """Histories without an event are not asked for again, and would push others out."""
    pool = EnginePool(Hardware(), EngineLimits(), 0, load=lambda *_: parts.decoder)
    engine = await pool.admit(parts.loaded.engine_parts())
    ranker, provider = Ranker(parts.loaded), parts.loaded.provider
    user = UserQuery(None, events_of(parts, 6), parts.loaded.catalogue.items[:1])

    async def ablations(query: UserQuery) -> tuple[UserFeatures, ...]:
        return provider.features(query).ablated

    query, features = RankQuery("", user), provider.features(user)
    job = await prepare(ranker, query, features, None)
    found = await score(ranker, engine, query, job, math.inf)
    num_cached = len(engine.runner.prefixes)
    scored = ScoredQuery(query, features, job, found.scores)
    [evidence] = await evidence_of(ranker, engine, scored, ablations, None, math.inf)
    assert len(evidence) == 6
    assert len(engine.runner.prefixes) == num_cached == 1
    await pool.close()
