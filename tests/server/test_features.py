from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any

import grpc
import numpy as np
import pytest

from feature_service.feature_bundle import DIM, ITEMS, KNOWN_USER
from rankloom_adapters.bundle import open_bundle
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import LongHistoryError, StoredHistory, UserEvent
from rankloom_features.events import Event
from rankloom_features.model_info import FeatureVersionError
from rankloom_features.provider import (
    MAX_EVENTS_ON_LOOP,
    FeatureProvider,
    UserFeatures,
    UserQuery,
)
from rankloom_features.service import SERVICE_NAME, FeatureService
from rankloom_features.wire import features_from_wire, features_to_wire, query_to_wire
from rankloom_proto.v1.features_pb2 import (
    Event as EventMessage,
)
from rankloom_proto.v1.features_pb2 import (
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
)
from rankloom_proto.v1.features_pb2 import (
    UserFeatures as FeaturesMessage,
)
from rankloom_ranker.fallback import FallbackReason
from rankloom_ranker.features import fault_of, space_of
from rankloom_ranker.loaded import BundleFeatures, load_features
from rankloom_server.breaker import MAX_FAILURES
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.feature_app import feature_server
from rankloom_server.features import COOLDOWN_S, EmbeddedFeatures, RemoteFeatures
from server.servers import Behaviour, behaving_server, opened, settings

QUERY = UserQuery(KNOWN_USER, None, ITEMS[:3])
NOBODY_LISTENS = "127.0.0.1:1"


@asynccontextmanager
async def remote(target: str) -> AsyncIterator[RemoteFeatures]:
    source = RemoteFeatures(target)
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def asking(behaviour: Behaviour) -> AsyncIterator[RemoteFeatures]:
    async with opened(behaving_server(behaviour)) as target, remote(target) as source:
        yield source


async def cause_of_failure(source: RemoteFeatures | EmbeddedFeatures, timeout_s: float) -> str:
    with pytest.raises(FeaturesUnavailableError) as caught:
        await source.get(QUERY, timeout_s)
    return caught.value.cause


async def test_a_user_of_many_events_costs_nobody_the_service(
    feature_parts: BundleFeatures,
) -> None:
    """Their answer is larger than what gRPC takes by default."""
    provider = feature_parts.provider
    long = replace(provider.features(QUERY), events=(Event("x" * 256, liked=True),) * 40_000)

    async def answer(_: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        return GetUserFeaturesResponse(features=[features_to_wire(long)])

    async with asking(answer) as source:
        found = await source.get(QUERY, 30)
    assert len(found.events) == 40_000


async def test_embedded_and_remote_answer_alike(feature_parts: BundleFeatures) -> None:
    embedded = await EmbeddedFeatures(feature_parts.provider).get(QUERY, 10)
    async with (
        opened(feature_server(settings().server, feature_parts, "digest")) as target,
        remote(target) as source,
    ):
        answer = await source.get(QUERY, 10)
    np.testing.assert_array_equal(answer.vector, embedded.vector)
    np.testing.assert_array_equal(answer.tabular, embedded.tabular)
    assert answer.events == embedded.events
    assert fault_of(answer, space_of(feature_parts.provider), len(QUERY.candidates)) is None


async def test_an_embedded_source_that_is_late_is_given_up(feature_parts: BundleFeatures) -> None:
    assert await cause_of_failure(EmbeddedFeatures(feature_parts.provider), 0.0) == "timeout"


class WatchedEvents(MemoryEventStore):
    """Remembers which thread read a history in full."""

    def __init__(self, events: Iterable[UserEvent]) -> None:
        super().__init__(events)
        self.readers: list[int] = []

    def version(self, user_id: str) -> int:
        return super().history(user_id).version

    def history(
        self, user_id: str, version: int | None = None, most: int | None = None
    ) -> StoredHistory:
        found = super().history(user_id, version, most)
        self.readers.append(get_ident())
        return found


@pytest.mark.parametrize("is_long", [False, True], ids=["500 events", "501 events"])
async def test_a_long_history_does_not_keep_the_event_loop(
    feature_folder: Path, *, is_long: bool
) -> None:
    """Features of a hundred thousand events take seconds, in which nobody else is answered."""
    every = range(MAX_EVENTS_ON_LOOP + is_long)
    history = [Event(ITEMS[n % 7].item_id, n % 3 == 0, float(n)) for n in every]
    store = WatchedEvents(UserEvent(str(n), "u", event) for n, event in enumerate(history))
    features = load_features(open_bundle(feature_folder), events=store)
    query = UserQuery("u", None, ITEMS[:3])
    source = EmbeddedFeatures(features.provider)
    asked = GetUserFeaturesRequest(users=[query_to_wire(query)])
    whole = features.provider.features(replace(query, history=tuple(history), user_id=None))
    for _ in range(2):  # the second time it is cached
        found = await source.get(query, 10)
        answer = await FeatureService(features, store).GetUserFeatures(asked, None)  # type: ignore[arg-type]
        for each in (found, features_from_wire(answer.features[0])):
            np.testing.assert_array_equal(each.vector, whole.vector)
        at = time.time()
        with pytest.raises(LongHistoryError) if is_long else nullcontext():
            features.provider.features(replace(query, most_events=MAX_EVENTS_ON_LOOP, at=at))
    assert store.readers
    assert all((reader != get_ident()) == is_long for reader in store.readers)


async def test_a_long_history_of_a_request_does_not_keep_it_either(
    feature_parts: BundleFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, compute = list[int](), FeatureProvider.features

    def watched(provider: FeatureProvider, query: UserQuery) -> UserFeatures:
        threads.append(get_ident())
        return compute(provider, query)

    monkeypatch.setattr(FeatureProvider, "features", watched)
    events = [Event(ITEMS[n % 7].item_id, n % 3 == 0) for n in range(MAX_EVENTS_ON_LOOP + 1)]
    for history in (events[1:], events):
        await EmbeddedFeatures(feature_parts.provider).get(UserQuery(None, tuple(history)), 10)
    assert [each == get_ident() for each in threads] == [True, False]


async def test_a_dead_service_opens_the_breaker() -> None:
    async with remote(NOBODY_LISTENS) as source:
        for _ in range(MAX_FAILURES):
            assert await cause_of_failure(source, 10) == "unavailable"
        assert await cause_of_failure(source, 10) == "breaker_open"


async def test_an_open_breaker_costs_no_time() -> None:
    async def hang(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        await asyncio.sleep(60)
        return GetUserFeaturesResponse()

    async with asking(hang) as source:
        for _ in range(MAX_FAILURES):
            assert await cause_of_failure(source, 0.05) == "deadline_exceeded"
        started = time.perf_counter()
        for _ in range(100):
            assert await cause_of_failure(source, 10) == "breaker_open"
        assert (time.perf_counter() - started) / 100 < 0.005


async def once_closed(source: RemoteFeatures) -> UserFeatures:
    """The first answer after the breaker has closed."""
    async with asyncio.timeout(COOLDOWN_S + 10):
        while True:
            try:
                return await source.get(QUERY, 10)
            except FeaturesUnavailableError as error:
                if error.cause != "breaker_open":
                    raise
                await asyncio.sleep(0.01)


async def test_a_service_that_comes_back_is_asked_again() -> None:
    is_ill = True

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        if is_ill:
            raise RuntimeError
        features = FeaturesMessage(user_id=KNOWN_USER, feature_version="back")
        return GetUserFeaturesResponse(features=[features])

    async with asking(behave) as source:
        for _ in range(MAX_FAILURES):
            assert await cause_of_failure(source, 10) == "internal"
        is_ill = False
        assert await cause_of_failure(source, 10) == "breaker_open"
        assert (await once_closed(source)).feature_version == "back"


async def test_the_version_that_is_wanted_is_asked_for_first() -> None:
    asked: list[str | None] = []

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        version = request.feature_version if request.HasField("feature_version") else None
        asked.append(version)
        if version == "gone":
            raise FeatureVersionError
        features = FeaturesMessage(user_id=KNOWN_USER, feature_version=version or "own")
        return GetUserFeaturesResponse(features=[features])

    async with asking(behave) as source:
        assert (await source.get(QUERY, 10, "wanted")).feature_version == "wanted"
        for _ in range(2 * MAX_FAILURES):  # which is no fault of the service
            assert (await source.get(QUERY, 10, "gone")).feature_version == "own"
    assert asked == ["wanted", *("gone", None) * 2 * MAX_FAILURES]


async def test_callers_in_a_hurry_do_not_open_the_breaker() -> None:
    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        await asyncio.sleep(0.05)
        return GetUserFeaturesResponse(features=[FeaturesMessage(user_id=KNOWN_USER)])

    async with asking(behave) as source:
        await source.get(QUERY, 10)
        for _ in range(2 * MAX_FAILURES):
            assert await cause_of_failure(source, 0.005) == "deadline_exceeded"
        await source.get(QUERY, 10)


@pytest.mark.parametrize("user_id", ["", "other"])
async def test_features_of_another_user_are_refused(user_id: str) -> None:
    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        return GetUserFeaturesResponse(features=[FeaturesMessage(user_id=user_id)])

    async with asking(behave) as source:
        assert await cause_of_failure(source, 10) == "other_user"


@pytest.mark.parametrize(
    ("answered", "is_refused"),
    [(["0", "2"], False), ([], False), (["2", "0"], True), (["0", "1", "2", "3"], True)],
)
async def test_features_of_another_history_are_refused(
    answered: list[str], is_refused: bool
) -> None:
    """Items that the catalogue does not know are left out of an answer."""
    history = tuple(Event(item, liked=True) for item in ("0", "1", "2"))

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        events = [EventMessage(item_id=item, liked=True) for item in answered]
        return GetUserFeaturesResponse(features=[FeaturesMessage(events=events)])

    async with asking(behave) as source:
        asked = source.get(UserQuery(None, history, ()), 10)
        if is_refused:
            with pytest.raises(FeaturesUnavailableError, match="other_user"):
                await asked
        else:
            assert [event.item_id for event in (await asked).events] == answered


@pytest.mark.parametrize("count", [0, 2])
async def test_an_answer_for_other_users_is_none(count: int) -> None:
    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        return GetUserFeaturesResponse(features=[FeaturesMessage()] * count)

    async with asking(behave) as source:
        assert await cause_of_failure(source, 10) == "malformed_answer"


async def test_bytes_that_are_no_message_are_a_failing_service() -> None:
    """A probe that gets them does not close the breaker either."""
    method: grpc.RpcMethodHandler[bytes, Any] = grpc.unary_unary_rpc_method_handler(
        lambda *_: b"\xff\xff\xff\xff"
    )
    service = grpc.method_handlers_generic_handler(SERVICE_NAME, {"GetUserFeatures": method})
    server = grpc.server(ThreadPoolExecutor(1), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with remote(f"127.0.0.1:{port}") as source:
            for _ in range(MAX_FAILURES):
                assert await cause_of_failure(source, 10) == "malformed_answer"
            await asyncio.sleep(1.5 * COOLDOWN_S)
            assert await cause_of_failure(source, 10) == "breaker_open"
    finally:
        server.stop(None)


def write_vector(message: FeaturesMessage, values: object) -> None:
    message.vector = np.asarray(values, dtype="<f4").tobytes()


def write_tabular(message: FeaturesMessage, value: float) -> None:
    count = message.tabular.rows * message.tabular.columns
    message.tabular.values = np.full(count, value, dtype="<f4").tobytes()


def drop_a_row(message: FeaturesMessage) -> None:
    message.tabular.rows -= 1
    message.tabular.values = message.tabular.values[: -4 * message.tabular.columns]


def transpose(message: FeaturesMessage) -> None:
    tabular = message.tabular
    tabular.rows, tabular.columns = tabular.columns, tabular.rows


WRONG_ANSWERS: dict[str, tuple[Callable[[FeaturesMessage], object], FallbackReason]] = {
    "NaN": (lambda m: write_vector(m, [np.nan] * DIM), FallbackReason.VECTOR_INVALID),
    "infinity": (lambda m: write_vector(m, [1, 1, 1, -np.inf]), FallbackReason.VECTOR_INVALID),
    "too short": (lambda m: write_vector(m, [1] * (DIM - 1)), FallbackReason.VECTOR_INVALID),
    "too long": (lambda m: write_vector(m, [1] * (DIM + 1)), FallbackReason.VECTOR_INVALID),
    "none": (lambda m: m.ClearField("vector"), FallbackReason.VECTOR_INVALID),
    "odd bytes": (lambda m: setattr(m, "vector", m.vector + b"\0"), FallbackReason.VECTOR_INVALID),
    "feature_version": (
        lambda m: setattr(m, "feature_version", "other"),
        FallbackReason.FEATURE_VERSION_MISMATCH,
    ),
    "no feature_version": (
        lambda m: m.ClearField("feature_version"),
        FallbackReason.FEATURE_VERSION_MISMATCH,
    ),
    "no tabular": (lambda m: m.ClearField("tabular"), FallbackReason.FEATURES_UNAVAILABLE),
    "a row short": (drop_a_row, FallbackReason.FEATURES_UNAVAILABLE),
    "transposed": (transpose, FallbackReason.FEATURES_UNAVAILABLE),
    "infinite tabular": (lambda m: write_tabular(m, np.inf), FallbackReason.FEATURES_UNAVAILABLE),
    "schema": (
        lambda m: setattr(m.tabular, "schema_digest", "other"),
        FallbackReason.FEATURES_UNAVAILABLE,
    ),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_a_wrong_answer_is_found_out(name: str, feature_parts: BundleFeatures) -> None:
    spoil, expected = WRONG_ANSWERS[name]
    features = feature_parts.provider.features(QUERY)

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        message = features_to_wire(features)
        spoil(message)
        return GetUserFeaturesResponse(features=[message])

    async with asking(behave) as source:
        answer: UserFeatures = await source.get(QUERY, 10)
    space = space_of(feature_parts.provider)
    assert fault_of(answer, space, len(QUERY.candidates)) is expected


async def test_an_unknown_tabular_value_is_no_fault(feature_parts: BundleFeatures) -> None:
    features = feature_parts.provider.features(QUERY)
    message = features_to_wire(features)
    write_tabular(message, np.nan)

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        return GetUserFeaturesResponse(features=[message])

    async with asking(behave) as source:
        answer = await source.get(QUERY, 10)
    assert fault_of(answer, space_of(feature_parts.provider), len(QUERY.candidates)) is None
