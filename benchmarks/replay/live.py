"""Many events into a real server, in any order and some twice; then each user is compared with the
features of the user's whole history, computed in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.common.live_server import LiveServer, live_server
from rankloom_adapters.bundle import open_bundle
from rankloom_features.catalogue import Item
from rankloom_features.events import Event
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.wire import MAX_CANDIDATES, features_from_wire
from rankloom_proto.v1 import features_pb2
from rankloom_ranker.loaded import load_features

MAX_RECORDED = 1_000
REPEATED = 0.1  # share of the events that come a second time, with another label
EVENTS_PER_USER = 50
READ_USERS = 3  # after each call, so that caches are full of what is older
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event as it is sent. ``number``: its id."""

    number: int
    user: str
    event: Event


@dataclass(frozen=True, slots=True)
class LiveUpdates:
    """What was sent, and the largest differences over all users.

    ``num_late``: events that were sent after a later one of their user. ``num_stored``: events that
    the store counts. ``same_events``: whether every served history is the expected one, in order.
    ``columns``: by column, where it differs.
    """

    num_sent: int
    num_late: int
    num_repeated: int
    num_stored: int
    num_users: int
    same_events: bool
    vector: float
    tabular: float
    columns: Mapping[str, float]


async def live_updates(bundle: Path, events: Path, num: int, seed: int) -> LiveUpdates:
    """``events``: a new file. ``num``: of different events."""
    provider = load_features(open_bundle(bundle)).provider
    items = provider.catalogue.items[:MAX_CANDIDATES]
    sent = _sent(items, num, np.random.default_rng(seed))
    users = sorted({each.user for each in sent})
    async with live_server(bundle, events) as server:
        await _record(server, sent, users, np.random.default_rng((seed, 1)))
        served = [await _features(server, user, items) for user in users]
    expected = [
        provider.features(UserQuery(None, history, items))
        for history in map(_histories(sent).__getitem__, users)
    ]
    pairs = list(zip(served, expected, strict=True))
    by_column = np.max([_difference(one.tabular, other.tabular) for one, other in pairs], axis=0)
    return LiveUpdates(
        num_sent=len(sent),
        num_late=_num_late(sent),
        num_repeated=len(sent) - num,
        num_stored=sum(len(each.events) for each in served),
        num_users=len(users),
        same_events=all(one.events == other.events for one, other in pairs),
        vector=max(float(np.abs(one.vector - other.vector).max()) for one, other in pairs),
        tabular=float(by_column.max()),
        columns={
            name: float(value)
            for name, value in zip(provider.columns, by_column, strict=True)
            if value > 0.0
        },
    )


def _sent(items: Sequence[Item], num: int, random: np.random.Generator) -> list[SentEvent]:
    """Events in random order; some times are equal. Behind a random place, some come again."""
    times = random.integers(10**9, 10**9 + num, num)
    users = random.integers(0, max(num // EVENTS_PER_USER, 2), num)
    events = [
        SentEvent(n, f"u{users[n]}", Event(items[item].item_id, bool(liked), float(times[n])))
        for n, (item, liked) in enumerate(
            zip(random.integers(0, len(items), num), random.random(num) < 0.6, strict=True)
        )
    ]
    again = random.choice(num, int(REPEATED * num), replace=False)
    places = [*np.arange(num), *random.uniform(again, num)]
    repeated = [_relabelled(events[n]) for n in again]
    order = np.argsort(places, kind="stable")
    return [[*events, *repeated][n] for n in order]


def _relabelled(sent: SentEvent) -> SentEvent:
    """The same id with another label: the first one counts."""
    event = Event(sent.event.item_id, not sent.event.liked, sent.event.time)
    return SentEvent(sent.number, sent.user, event)


def _histories(sent: Sequence[SentEvent]) -> dict[str, tuple[Event, ...]]:
    """Each user's events as they must be: the first of each id, by time, then as they came."""
    first: dict[int, SentEvent] = {}
    for each in sent:
        first.setdefault(each.number, each)
    found: dict[str, list[Event]] = {}
    for each in sorted(first.values(), key=lambda one: one.event.time or 0.0):
        found.setdefault(each.user, []).append(each.event)
    return {user: tuple(events) for user, events in found.items()}


def _num_late(sent: Sequence[SentEvent]) -> int:
    newest: dict[str, float] = {}
    late = 0
    for each in sent:
        time = each.event.time or 0.0
        late += time < newest.get(each.user, 0.0)
        newest[each.user] = max(time, newest.get(each.user, 0.0))
    return late


async def _record(
    server: LiveServer,
    sent: Sequence[SentEvent],
    users: Sequence[str],
    random: np.random.Generator,
) -> None:
    """In calls of any size; after each, some users are read."""
    for part in _parts(sent, random):
        request = features_pb2.RecordEventsRequest(events=map(_to_wire, part))
        await server.features.RecordEvents(request, timeout=TIMEOUT_S)
        for user in random.choice(np.array(users), READ_USERS):
            await _features(server, str(user), ())


def _parts(sent: Sequence[SentEvent], random: np.random.Generator) -> Iterator[Sequence[SentEvent]]:
    at = 0
    while at < len(sent):
        size = int(random.integers(1, MAX_RECORDED // 5))
        yield sent[at : at + size]
        at += size


def _to_wire(sent: SentEvent) -> features_pb2.UserEvent:
    event = sent.event
    return features_pb2.UserEvent(
        event_id=str(sent.number),
        user_id=sent.user,
        item_id=event.item_id,
        liked=event.liked,
        time=Timestamp(seconds=int(event.time or 0.0)),
    )


async def _features(server: LiveServer, user: str, items: Sequence[Item]) -> UserFeatures:
    candidates = [features_pb2.Candidate(item_id=item.item_id) for item in items]
    query = features_pb2.UserQuery(user_id=user, candidates=candidates)
    request = features_pb2.GetUserFeaturesRequest(users=[query])
    answer = await server.features.GetUserFeatures(request, timeout=TIMEOUT_S)
    return features_from_wire(answer.features[0])


def _difference(
    one: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    other: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(columns,) the largest absolute difference; infinite where one alone is unknown."""
    missing = np.isnan(one) != np.isnan(other)
    found = np.nan_to_num(np.abs(one.astype(np.float64) - other))
    return np.asarray(np.where(missing, np.inf, found).max(axis=0))
