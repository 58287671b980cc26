"""What still answers when a part has failed, and that the answer says so."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from feature_service.boosters import booster
from rankloom_adapters import bundle
from rankloom_engine.model import Decoder, ForwardInput, ForwardOutput
from rankloom_features.provider import UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_features.tree_export import export_trees
from rankloom_features.wire import features_to_wire, parse_users
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import (
    Candidate,
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    ItemText,
    UserFeatures,
)
from rankloom_proto.v1.ranking_pb2 import RankResponse
from rankloom_ranker import loaded as loaded_module
from rankloom_server.app import servers
from rankloom_server.breaker import MAX_FAILURES
from rankloom_server.errors import StartError
from rankloom_server.feature_app import feature_server
from server.rankings import (
    candidates,
    item_ids,
    known_user,
    order,
    rank,
    ranking_channel,
    request,
    scores,
    with_options,
)
from server.served_parts import ServedParts
from server.servers import Behaviour, behaving_server, failure_of, opened, send_bytes, settings

SYNTHETIC = "synthetic-secret"
NOBODY_LISTENS = "127.0.0.1:1"
Spoil = Callable[[UserFeatures], object]


class FailingDecoder:
    """The bundle's decoder until it is told to fail."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.bank, self.digest = decoder.bank, decoder.digest
        self.failure: Callable[[ForwardOutput], ForwardOutput] | None = None

    def warm_up_steps(self, max_tokens: int) -> Iterator[Callable[[], object]]:
        return self._decoder.warm_up_steps(max_tokens)

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        answers = self._decoder.forward(inputs)
        return [self.failure(each) for each in answers] if self.failure else answers


def out_of_memory(_: ForwardOutput) -> ForwardOutput:
    raise MemoryError(SYNTHETIC)


def not_a_number(answer: ForwardOutput) -> ForwardOutput:
    return ForwardOutput(answer.margins * np.nan, answer.prefix)


def told(answer: RankResponse) -> tuple[str, str]:
    fallback_level = ranking_pb2.FallbackLevel.Name(answer.fallback_level).removeprefix(
        "FALLBACK_LEVEL_"
    )
    reason = ranking_pb2.FallbackReason.Name(answer.fallback_reason).removeprefix(
        "FALLBACK_REASON_"
    )
    return fallback_level, reason


async def assert_refused_by_reason(
    channel: grpc.aio.Channel, parts: ServedParts, reason: str
) -> None:
    failure = await failure_of(rank(channel, with_options(parts, allow_fallback=False)))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "FALLBACK_REFUSED"
    assert failure.metadata == {"fallback_reason": reason}


@pytest.mark.parametrize("failure", [out_of_memory, not_a_number])
async def test_the_trees_answer_where_the_engine_fails(
    failure: Callable[[ForwardOutput], ForwardOutput],
    parts: ServedParts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    decoder = FailingDecoder(parts.decoder)
    async with ranking_channel(replace(parts, decoder=cast("Decoder", decoder))) as channel:
        decoder.failure = failure
        answer = await rank(channel, request(parts))
        assert told(answer) == ("TREES", "ENGINE_FAILED")
        assert not any(item.scored or item.probability for item in answer.items)
        assert scores(answer) == pytest.approx(tree_logits(parts))
        assert answer.items[0].score == max(scores(answer).values())
        assert not answer.routing.weights
        await assert_refused_by_reason(channel, parts, "ENGINE_FAILED")
        decoder.failure = None
        assert told(await rank(channel, request(parts))) == ("EXACT_MIXTURE", "UNSPECIFIED")
    captured = capsys.readouterr()
    assert '"event": "engine_failed"' in captured.err
    assert SYNTHETIC not in captured.err + captured.out


class FailingTrees(TreeRanker):
    """The bundle's trees, that know no number for the first candidate once they fail."""

    fails = False

    def logits(self, tabular: NDArray[np.float32]) -> NDArray[np.float64]:
        found = super().logits(tabular)
        return np.where(np.arange(len(found)) == 0, np.nan, found) if self.fails else found


async def test_a_tree_logit_that_is_no_number_is_no_missing_score(
    parts: ServedParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_module, "TreeRanker", FailingTrees)
    async with ranking_channel(parts) as channel:
        assert told(await rank(channel, request(parts))) == ("EXACT_MIXTURE", "UNSPECIFIED")
        monkeypatch.setattr(FailingTrees, "fails", True)
        await assert_refused_by_reason(channel, parts, "ENGINE_FAILED")


def tree_logits(parts: ServedParts) -> dict[str, float]:
    items = parts.loaded.provider.catalogue.items[:5]
    features = parts.loaded.provider.features(UserQuery(known_user(parts), None, items))
    logits = parts.loaded.trees.logits(features.tabular).tolist()
    return dict(zip(item_ids(parts, 5), logits, strict=True))


@asynccontextmanager
async def with_features(
    parts: ServedParts, behaviour: Behaviour
) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        opened(behaving_server(behaviour)) as target,
        ranking_channel(parts, features=target) as channel,
    ):
        yield channel


def spoiling(parts: ServedParts, spoil: Spoil) -> Behaviour:
    """The bundle's own features, spoilt."""

    async def behave(message: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        found = parts.loaded.provider.features_of_many(parse_users(message))
        answers = [features_to_wire(features) for features in found]
        for answer in answers:
            spoil(answer)
        return GetUserFeaturesResponse(features=answers)

    return behave


async def test_a_good_feature_service_changes_nothing(parts: ServedParts) -> None:
    async with ranking_channel(parts) as channel:
        embedded = await rank(channel, request(parts))
    async with (
        opened(feature_server(settings().server, parts.loaded.features, "digest")) as target,
        ranking_channel(parts, features=target) as channel,
    ):
        remote = await rank(channel, request(parts))
        assert scores(remote) == pytest.approx(scores(embedded), abs=1e-5)
        assert remote.routing == embedded.routing
        assert told(remote) == ("EXACT_MIXTURE", "UNSPECIFIED")


def nan_vector(message: UserFeatures) -> None:
    message.vector = np.full(len(message.vector) // 4, np.nan, dtype="<f4").tobytes()


BAD_VECTORS: dict[str, tuple[Spoil, str]] = {
    "NaN": (nan_vector, "VECTOR_INVALID"),
    "short": (lambda m: setattr(m, "vector", m.vector[:-4]), "VECTOR_INVALID"),
    "other feature_version": (
        lambda m: setattr(m, "feature_version", "other"),
        "FEATURE_VERSION_MISMATCH",
    ),
}


@pytest.mark.parametrize("name", BAD_VECTORS)
async def test_the_global_expert_answers_where_the_vector_is_bad(
    name: str, parts: ServedParts
) -> None:
    spoil, reason = BAD_VECTORS[name]
    async with with_features(parts, spoiling(parts, spoil)) as channel:
        answer = await rank(channel, request(parts))
        assert told(answer) == ("GLOBAL_EXPERT", reason)
        assert answer.routing.route == ranking_pb2.ROUTE_GLOBAL
        assert [(each.expert, each.weight) for each in answer.routing.weights] == [("global", 1.0)]
        assert not answer.routing.cold_start
        assert answer.routing.history_events > 0
        assert all(item.scored and item.probability for item in answer.items)
        await assert_refused_by_reason(channel, parts, reason)


async def test_popularity_answers_where_the_tabular_features_are_bad(parts: ServedParts) -> None:
    spoil: Spoil = lambda message: message.ClearField("tabular")  # noqa: E731
    async with with_features(parts, spoiling(parts, spoil)) as channel:
        await assert_ordered_by_popularity(channel, parts)


async def assert_ordered_by_popularity(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    new = [Candidate(item_id=name, text=ItemText(title="New")) for name in ("z", "a", "m")]
    known = item_ids(parts, 20)
    message = request(parts, candidates=[*new, *candidates(known)])
    answer = await rank(channel, message)
    assert told(answer) == ("POPULARITY", "FEATURES_UNAVAILABLE")
    rows = dict(zip(known, parts.loaded.features.popularity.tolist(), strict=False))
    expected = sorted(["z", "a", "m", *known], key=lambda item: -rows.get(item, 0.0))
    assert order(answer) == expected  # equal ones stay in the order of the request
    assert not any(item.scored or item.probability for item in answer.items)
    assert not answer.routing.weights
    await assert_refused_by_reason(channel, parts, "FEATURES_UNAVAILABLE")


async def test_popularity_answers_where_the_feature_service_is_down(parts: ServedParts) -> None:
    async with ranking_channel(parts, features=NOBODY_LISTENS) as channel:
        await assert_ordered_by_popularity(channel, parts)


async def test_a_slow_feature_service_costs_its_share_and_then_nothing(parts: ServedParts) -> None:
    async def hang(_: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        await asyncio.sleep(60)
        return GetUserFeaturesResponse()

    async with with_features(parts, hang) as channel:
        for _ in range(MAX_FAILURES):
            took_s = await time_fallback(channel, parts, timeout_s=4.0)
            assert 1.0 < took_s < 3.2
        assert await time_fallback(channel, parts, timeout_s=4.0) < 0.8


async def time_fallback(channel: grpc.aio.Channel, parts: ServedParts, timeout_s: float) -> float:
    started = time.perf_counter()
    answer = await rank(channel, request(parts), timeout_s=timeout_s)
    assert told(answer) == ("POPULARITY", "FEATURES_UNAVAILABLE")
    return time.perf_counter() - started


async def test_a_server_with_remote_features_serves_none_itself(parts: ServedParts) -> None:
    async with ranking_channel(parts, features=NOBODY_LISTENS) as channel:
        call = send_bytes(channel, "/rankloom.v1.FeatureService/GetUserFeatures", b"")
        assert (await failure_of(call)).code is grpc.StatusCode.UNIMPLEMENTED


async def test_parts_that_do_not_fit_are_found_before_it_serves(
    parts: ServedParts, served_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(served_folder, folder)
    (folder / bundle.TREES).write_bytes(export_trees([booster(0)]))
    bundle.seal(folder, parts.loaded.bundle.metadata)
    async with servers(settings(bundle=folder)) as (server, _):
        await server.start("127.0.0.1", 0)
        with pytest.raises(StartError, match=r"ranker/trees.onnx: .*columns"):
            await server.open()
