from __future__ import annotations

import dataclasses
import gc
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_service.feature_bundle import DIM, EVENTS, ITEMS, KNOWN_USER, known_events
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle
from rankloom_features import provider as provider_module
from rankloom_features.catalogue import CatalogueError, Item
from rankloom_features.encoder import Encoder, EncoderError
from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event, History, known_history
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import (
    StatisticsError,
    provider_from_bytes,
    statistics_from_bytes,
    statistics_to_bytes,
)
from rankloom_features.provider import FeatureProvider, HistoryVersion, UserQuery
from rankloom_features.session_columns import SESSION_S
from rankloom_features.user_model import UserModelError

Bytes = dict[str, bytes]


def made_of(given: Bytes) -> FeatureProvider:
    return provider_from_bytes(**given, events=known_events(), ratings=None, rater=None)


@pytest.fixture(scope="session")
def provider_bytes(feature_folder: Path) -> Bytes:
    bundle = open_bundle(feature_folder)
    return {
        "catalogue": bundle.read(parts.CATALOGUE),
        "encoder": bundle.read(parts.ENCODER),
        "item_vectors": bundle.read(parts.ITEM_VECTORS),
        "item_statistics": bundle.read(parts.ITEM_STATISTICS),
        "user_model": bundle.read(parts.USER_MODEL),
    }


@pytest.fixture(scope="session")
def provider(provider_bytes: Bytes) -> FeatureProvider:
    return made_of(provider_bytes)


def test_a_known_user_has_features(provider: FeatureProvider) -> None:
    found = provider.features(UserQuery(KNOWN_USER, None, ITEMS[:2]))
    assert (found.cold_start, found.events) == (False, EVENTS)
    assert found.vector.shape == (DIM,)
    assert found.vector.any()
    assert found.tabular.shape[0] == 2
    assert found.feature_version == provider.encoder.feature_version
    assert found.schema_digest == provider.schema_digest
    assert found.stored_version == len(EVENTS)


@pytest.fixture
def with_sessions(provider_bytes: Bytes) -> FeatureProvider:
    """Of a bundle of likes alone, whose statistics say what is liked in one session."""
    statistics = statistics_from_bytes(provider_bytes["item_statistics"], len(ITEMS))
    known = dataclasses.replace(statistics, co_session=np.ones((len(ITEMS), 2), np.float32))
    return made_of({**provider_bytes, "item_statistics": statistics_to_bytes(known)})


def test_session_columns_are_of_the_time_of_the_call(with_sessions: FeatureProvider) -> None:
    now = time.time()
    events = (Event(ITEMS[0].item_id, True, now - 3600.0),)
    lift = with_sessions.columns.index("pair_session_lift")

    def lift_at(at: float | None) -> float:
        query = UserQuery(None, events, ITEMS[1:2], at=at)
        return float(with_sessions.features(query).tabular[0, lift])

    assert lift_at(None) == lift_at(now) == 2.0
    assert np.isnan(lift_at(now + SESSION_S))


def test_factors_of_sessions_are_of_this_catalogue(provider_bytes: Bytes) -> None:
    statistics = statistics_from_bytes(provider_bytes["item_statistics"], len(ITEMS))
    assert statistics.co_session is None
    other = dataclasses.replace(statistics, co_session=np.ones((len(ITEMS) + 1, 2), np.float32))
    with pytest.raises(StatisticsError, match="another catalogue"):
        statistics_from_bytes(statistics_to_bytes(other), len(ITEMS))


@pytest.mark.parametrize(
    "query",
    [UserQuery("nobody", None), UserQuery(None, ()), UserQuery(None, (Event("gone", True),))],
    ids=["unknown-user", "no-events", "unknown-items-only"],
)
def test_who_is_not_known_is_cold_with_a_zero_vector(
    provider: FeatureProvider, query: UserQuery
) -> None:
    found = provider.features(query)
    assert (found.cold_start, found.events) == (True, ())
    assert found.vector.tolist() == [0.0] * DIM
    assert found.tabular.shape[0] == 0


def test_the_last_column_is_the_collaborative_models_logit(provider: FeatureProvider) -> None:
    candidates = (ITEMS[3], Item("new"), ITEMS[0])
    found = provider.features(UserQuery(KNOWN_USER, None, candidates)).tabular[:, -1]
    _, history = known_history(EVENTS, provider.catalogue)
    _, logits = provider.encoder.encode_and_score([history], np.array([[4, 1]]))
    expected = [logits[0, 0], np.nan, logits[0, 1]]
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert logits.any()


def test_who_comes_again_has_the_same_features(provider: FeatureProvider) -> None:
    """A user's cached features are not used for others, nor for an inline history."""
    known, stranger = UserQuery(KNOWN_USER, None, ITEMS), UserQuery("nobody", None, ITEMS)
    inline = UserQuery(None, (Event("item-2", False), Event("item-1", True)), ITEMS)
    first, *rest = (provider.features(query) for query in (known, stranger, inline))
    assert len({features.tabular.tobytes() for features in (first, *rest)}) == 3
    again = [provider.features(query) for query in (inline, known, stranger)]
    for one, other in zip((rest[1], first, rest[0]), again, strict=True):
        assert one.tabular.tobytes() == other.tabular.tobytes()
        assert one.vector.tobytes() == other.vector.tobytes()
        assert one.events == other.events


def test_candidates_can_follow_later_of_the_same_history(provider_bytes: Bytes) -> None:
    provider = made_of(provider_bytes)
    for user in (UserQuery(KNOWN_USER, None), UserQuery(None, EVENTS[:2]), UserQuery(None, ())):
        read, at_once = (
            provider.features(each) for each in (user, replace(user, candidates=ITEMS))
        )
        late = Event("item-6", True, 2_000_000.0)
        provider.events.append([UserEvent("late", KNOWN_USER, late)])
        for features in (read, replace(read, history_version=HistoryVersion())):
            later = provider.with_candidates(features, ITEMS)
            assert later.tabular.tobytes() == at_once.tabular.tobytes()
            assert (later.events, later.stored_version) == (read.events, read.stored_version)
            assert later.history_version is features.history_version


def test_only_so_many_users_are_kept(
    provider_bytes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "MAX_CACHED_USERS", 2)
    provider = made_of(provider_bytes)
    found = [provider.features(UserQuery(f"user {n}", None, ITEMS)) for n in range(5)]
    assert len({features.tabular.tobytes() for features in found}) == 1
    assert len(provider._users) == 2


def test_only_so_many_events_are_kept(
    provider_bytes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "MAX_CACHED_EVENTS", 4)
    provider = made_of(provider_bytes)
    for user, num in (("three", 3), ("two", 2), ("five", 5)):
        events = [Event("item-1", True, float(n)) for n in range(num)]
        provider.events.append([UserEvent(f"{user} {n}", user, e) for n, e in enumerate(events)])
    kept = []
    for user in ("three", "two", "two", "three", "five"):
        provider.features(UserQuery(user, None))
        kept.append([each for each in ("three", "two", "five") if each in provider._users])
    assert kept == [["three"], ["two"], ["two"], ["three"], []]
    assert provider._users.num_events == 0


def test_an_event_counts_from_the_next_request_on(provider_bytes: Bytes) -> None:
    provider, query = made_of(provider_bytes), UserQuery(KNOWN_USER, None, ITEMS)
    before = provider.features(query)
    late = Event("item-6", True, 2_000_000.0)
    (version,) = provider.events.append([UserEvent("late", KNOWN_USER, late)])
    after = provider.features(query)
    assert (after.events, after.stored_version) == ((*EVENTS, late), version)
    inline = provider.features(UserQuery(None, (*EVENTS, late), ITEMS))
    assert after.vector.tobytes() == inline.vector.tobytes() != before.vector.tobytes()
    assert after.tabular.tobytes() == inline.tabular.tobytes() != before.tabular.tobytes()
    assert after.history_version is not before.history_version


def test_an_event_that_comes_late_takes_its_place(provider_bytes: Bytes) -> None:
    provider = made_of(provider_bytes)
    early = Event("item-6", True, 1.0)
    provider.events.append([UserEvent("early", KNOWN_USER, early)])
    assert provider.features(UserQuery(KNOWN_USER, None)).events == (early, *EVENTS)


def test_nothing_of_a_forgotten_user_is_kept(provider_bytes: Bytes) -> None:
    provider, query = made_of(provider_bytes), UserQuery(KNOWN_USER, None, ITEMS)
    kept = weakref.ref(provider.features(query).history_version)
    assert kept() is not None
    provider.events.forget(KNOWN_USER)
    provider.forget(KNOWN_USER)
    gc.collect()
    assert kept() is None
    assert provider.features(query).cold_start


def test_a_history_that_was_read_before_its_user_was_forgotten_is_not_kept(
    provider_bytes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, encode = made_of(provider_bytes), Encoder.encode

    def forget_meanwhile(encoder: Encoder, histories: Sequence[History]) -> NDArray[np.float32]:
        provider.events.forget(KNOWN_USER)
        provider.forget(KNOWN_USER)
        return encode(encoder, histories)

    monkeypatch.setattr(Encoder, "encode", forget_meanwhile)
    assert provider.features(UserQuery(KNOWN_USER, None)).events == EVENTS
    assert len(provider._users) == 0


def test_an_inline_history_wins(provider: FeatureProvider) -> None:
    inline = (Event("item-1", True), Event("item-2", False))
    found = provider.features(UserQuery(KNOWN_USER, inline, ITEMS))
    alone = provider.features(UserQuery(None, inline, ITEMS))
    assert found.events == inline
    assert found.vector.tobytes() == alone.vector.tobytes()
    assert found.tabular.tobytes() == alone.tabular.tobytes()


def test_an_inline_history_like_the_logs_gives_the_logs_features(
    provider: FeatureProvider,
) -> None:
    inline = provider.features(UserQuery(None, EVENTS, ITEMS))
    logged = provider.features(UserQuery(KNOWN_USER, None, ITEMS))
    assert inline.vector.tobytes() == logged.vector.tobytes()
    assert inline.tabular.tobytes() == logged.tabular.tobytes()


def test_events_of_unknown_items_change_nothing(provider: FeatureProvider) -> None:
    mixed = (Event("gone", False), EVENTS[0], Event("", True), *EVENTS[1:], Event("gone", True))
    found = provider.features(UserQuery(None, mixed, ITEMS))
    expected = provider.features(UserQuery(None, EVENTS, ITEMS))
    assert found.events == EVENTS
    assert found.vector.tobytes() == expected.vector.tobytes()
    assert found.tabular.tobytes() == expected.tabular.tobytes()


def test_many_queries_are_answered_in_order(provider: FeatureProvider) -> None:
    queries = [
        UserQuery(None, (Event("item-1", True),), ITEMS[:1]),
        UserQuery("nobody", None, ITEMS),
        UserQuery(KNOWN_USER, None, (Item("new", year=2000),)),
    ]
    together = provider.features_of_many(queries)
    for found, query in zip(together, queries, strict=True):
        alone = provider.features(query)
        assert found.vector == pytest.approx(alone.vector, abs=1e-5)
        assert found.tabular == pytest.approx(alone.tabular, abs=1e-5, nan_ok=True)
        assert (found.events, found.cold_start) == (alone.events, alone.cold_start)
    assert provider.features_of_many([]) == ()


def test_statistics_round_trip(provider_bytes: Bytes) -> None:
    statistics = statistics_from_bytes(provider_bytes["item_statistics"], len(ITEMS))
    assert statistics_to_bytes(statistics) == provider_bytes["item_statistics"]


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("catalogue", CatalogueError),
        ("encoder", EncoderError),
        ("item_vectors", EncoderError),
        ("item_statistics", StatisticsError),
        ("user_model", UserModelError),
    ],
)
def test_each_part_of_garbage_has_its_error(
    provider_bytes: Bytes, part: str, error: type[ValueError]
) -> None:
    with pytest.raises(error):
        made_of(provider_bytes | {part: b"garbage"})


def statistics_of(num: int, num_factors: int) -> bytes:
    one, factors = np.ones(num, np.float32), np.ones((num_factors, 2), np.float32)
    return statistics_to_bytes(ItemStatistics(one, one, factors, factors))


@pytest.mark.parametrize("sizes", [(len(ITEMS) + 1, len(ITEMS) + 1), (len(ITEMS), 2)])
def test_statistics_of_another_catalogue_are_refused(
    provider_bytes: Bytes, sizes: tuple[int, int]
) -> None:
    statistics = statistics_of(*sizes)
    with pytest.raises(StatisticsError, match="another catalogue"):
        made_of(provider_bytes | {"item_statistics": statistics})


@pytest.mark.parametrize("change", [-1, 1])
def test_a_model_of_another_catalogue_is_refused(
    provider: FeatureProvider, provider_bytes: Bytes, change: int
) -> None:
    provider.encoder.check_num_items(len(ITEMS))
    with pytest.raises(EncoderError, match="not for a catalogue of"):
        provider.encoder.check_num_items(len(ITEMS) + change)
    catalogue = provider_bytes["catalogue"] + b'{"item_id": "new", "attributes": []}\n'
    with pytest.raises(EncoderError, match="not for a catalogue of"):
        made_of(provider_bytes | {"catalogue": catalogue})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_not_finite_are_refused(value: float) -> None:
    one, factors = np.ones(2, np.float32), np.full((2, 2), value, np.float32)
    with pytest.raises(StatisticsError, match="NaN or infinite"):
        statistics_from_bytes(
            statistics_to_bytes(ItemStatistics(one, one, one[:, None], factors)), 2
        )


def test_statistics_of_another_shape_are_refused() -> None:
    one, factors = np.ones(2, np.float32), np.ones((2, 2), np.float32)
    for statistics in (
        ItemStatistics(factors, one, factors, factors),
        ItemStatistics(one, one, one, factors),
    ):
        with pytest.raises(StatisticsError, match="vectors"):
            statistics_from_bytes(statistics_to_bytes(statistics), 2)


def test_ablated_features_are_those_of_the_history_without_the_event(
    provider: FeatureProvider,
) -> None:
    history = tuple(Event(item.item_id, n % 2 == 0) for n, item in enumerate(ITEMS[:4]))
    unknown = Event("gone", liked=True)
    query = UserQuery(None, (*history[:2], unknown, *history[2:]), ITEMS[:3], ablate_newest=3)
    found = provider.features(query).ablated
    for at, ablated in zip((1, 2, 3), found, strict=True):
        rest = (*history[:at], *history[at + 1 :])
        expected = provider.features(UserQuery(None, rest, ITEMS[:3]))
        assert ablated.events == rest
        assert np.array_equal(ablated.vector, expected.vector)
        assert np.array_equal(ablated.tabular, expected.tabular, equal_nan=True)
    everything = provider.features(UserQuery(KNOWN_USER, None, ablate_newest=99)).ablated
    assert [len(each.events) for each in everything] == [len(EVENTS) - 1] * len(EVENTS)
    assert provider.features(UserQuery(None, (), ablate_newest=3)).ablated == ()
