"""What every event store does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_service.event_store.made import items_of, made
from rankloom_features.event_store.store import EventStore, LongHistoryError, StoredHistory
from rankloom_features.events import Event

_FRESH = itertools.count()  # users of one example are new to a store that others used
_Operation = tuple[str, str, str, float]  # what, user, event id, time
_OPERATIONS = st.tuples(
    st.sampled_from(["append", "append", "append", "forget"]),
    st.text(max_size=3, alphabet=st.characters(exclude_categories=["Cs"])),
    st.text(max_size=1, alphabet="abc\0é"),
    st.sampled_from([-1.5, 0.0, 1.0, 1.0 + 2**-52, 1e11]),
)


def test_an_unknown_user_has_no_events(store: EventStore) -> None:
    assert store.history("nobody") == StoredHistory((), 0)
    assert store.version("nobody") == 0
    assert store.forget("nobody") == 0


def test_what_was_appended_is_read(store: EventStore) -> None:
    event = Event("item", False, 1_234_567_890.123456)
    positions = store.append([made("a", "u", "item", 1_234_567_890.123456, liked=False)])
    assert store.history("u") == StoredHistory((event,), positions[0])


def test_nothing_may_be_appended(store: EventStore) -> None:
    assert store.append([]) == ()


def test_positions_grow_over_all_users(store: EventStore) -> None:
    positions = [
        *store.append([made("a", "u"), made("a", "v")]),
        *store.append([made("b", "u")]),
    ]
    assert positions == sorted(set(positions))
    assert positions[0] > 0


def test_an_event_id_is_stored_once(store: EventStore) -> None:
    first = store.append([made("a", item="first"), made("b", item="second", time=2.0)])
    again = store.append([made("b", item="other"), made("c", item="third", time=3.0), made("a")])
    assert (again[0], again[2]) == (first[1], first[0])
    assert items_of(store) == ["first", "second", "third"]
    assert store.version("u") == again[1]


def test_an_event_id_within_one_call_is_stored_once(store: EventStore) -> None:
    positions = store.append([made("a", item="first"), made("a", item="other")])
    assert positions[0] == positions[1]
    assert items_of(store) == ["first"]


def test_an_event_id_is_of_one_user(store: EventStore) -> None:
    store.append([made("a", "u", "mine"), made("a", "v", "yours")])
    assert items_of(store, "u") == ["mine"]
    assert items_of(store, "v") == ["yours"]


def test_events_come_by_time_and_then_as_they_were_stored(store: EventStore) -> None:
    store.append([made("a", item="late", time=9.0), made("b", item="equal 1", time=5.0)])
    store.append([made("c", item="early", time=-3.0), made("d", item="equal 2", time=5.0)])
    assert items_of(store) == ["early", "equal 1", "equal 2", "late"]


def test_positions_grow_after_a_call_with_nothing_new(store: EventStore) -> None:
    stored = store.append([made("a", "u"), made("b", "v"), made("c", "u")])
    assert store.append([made("a", "u")]) == stored[:1]
    assert store.append([made("d", "u")])[0] > stored[-1]


def test_positions_follow_the_order_of_a_call_with_many_users(store: EventStore) -> None:
    users = [f"user {number}" for number in range(300)]
    known = store.append([made("known", user) for user in users[:50]])
    mixed = [made(event, user) for user in users for event in ("known", "new")]
    positions = store.append([*mixed, made("new", users[0])])
    assert positions[:100:2] == known
    fresh = [*positions[1:100:2], *positions[100:-1]]
    assert known[-1] < fresh[0]
    assert fresh == sorted(set(fresh))
    assert positions[-1] == positions[1]
    assert store.version(users[-1]) == positions[-2]


def test_a_version_is_one_history(store: EventStore) -> None:
    seen = [store.version("u")]
    for step in range(3):
        store.append([made(f"event {step}", time=-float(step))])
        seen.append(store.version("u"))
    store.append([made("event 0"), made("of another", "v")])  # nothing new for u
    assert store.version("u") == seen[-1] == store.history("u").version
    assert seen == sorted(set(seen))


def test_versions_go_on_after_a_user_was_forgotten(store: EventStore) -> None:
    before = store.append([made("a"), made("b")])
    assert store.forget("u") == 2
    assert store.version("u") == 0
    assert store.append([made("a")])[0] > before[1]
    assert store.version("u") > before[1]


def test_a_forgotten_user_is_gone_and_others_stay(store: EventStore) -> None:
    users = [f"u{number}" for number in range(40)]
    store.append([made(f"e{step}", user, item=f"i{step}") for step in range(5) for user in users])
    assert store.forget("u7") == 5
    assert store.history("u7") == StoredHistory((), 0)
    for user in set(users) - {"u7"}:
        assert items_of(store, user) == ["i0", "i1", "i2", "i3", "i4"]


def test_users_are_listed_while_they_have_events(store: EventStore) -> None:
    assert list(store.users()) == []
    store.append([made(event, user) for event in "ab" for user in ("u", "v", "w")])
    store.forget("v")
    assert sorted(store.users()) == ["u", "w"]
    assert list(store.users()) == list(store.users())


def test_statistics_count(store: EventStore) -> None:
    assert store.statistics().num_users == store.statistics().num_events == 0
    last = store.append([made("a", "u"), made("b", "u"), made("a", "v")])[-1]
    found = store.statistics()
    assert (found.num_users, found.num_events, found.position) == (2, 3, last)
    store.forget("u")
    found = store.statistics()
    assert (found.num_users, found.num_events, found.position) == (1, 1, last)


def test_threads_see_what_they_appended(store: EventStore) -> None:
    def work(thread: int) -> list[int]:
        mine = f"user of {thread}"
        positions: list[int] = []
        for step in range(15):
            name = f"{thread}-{step}"
            positions += store.append([made(name, mine, name), made(name, "shared", name)])
            assert items_of(store, mine)[-1] == name
            assert name in items_of(store, "shared")
            assert store.version(mine) == positions[-2]
        return positions

    with ThreadPoolExecutor(6) as pool:
        found = [each for positions in pool.map(work, range(6)) for each in positions]
    assert len(set(found)) == len(found) == 180
    assert len(items_of(store, "shared")) == 90


@given(calls=st.lists(st.lists(_OPERATIONS, max_size=6), max_size=6))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_calls_end_as_a_dictionary_would(
    store: EventStore, calls: Sequence[Sequence[_Operation]]
) -> None:
    fresh = next(_FRESH)
    expected: dict[str, dict[str, tuple[float, int]]] = {}
    for call in calls:
        for what, name, event_id, time in call:
            user = f"{fresh}/{name}"
            if what == "forget":
                assert store.forget(user) == len(expected.pop(user, ()))
                continue
            [position] = store.append([made(event_id, user, f"{event_id}/{time}", time)])
            stored = expected.setdefault(user, {}).setdefault(event_id, (time, position))
            assert stored[1] == position
    for user, events in expected.items():
        by_time = sorted((time, position, name) for name, (time, position) in events.items())
        assert items_of(store, user) == [f"{name}/{time}" for time, _, name in by_time]
        assert store.version(user) == max(position for _, position in events.values())


def test_the_users_with_events_are_listed(store: EventStore) -> None:
    users = [f"user {number}" for number in range(20)]
    store.append([made("a", user) for user in users] + [made("b", users[0])])
    store.forget(users[1])
    assert sorted(store.users()) == sorted(set(users) - {users[1]})
    assert list(store.users()) == list(store.users())


def test_a_history_is_read_as_of_an_earlier_version(store: EventStore) -> None:
    [first] = store.append([made("a", item="first", time=5.0)])
    before = store.history("u")
    store.append([made("b", item="earlier", time=1.0), made("c", "v")])
    assert store.history("u", first) == before != store.history("u")
    assert store.history("u", 0) == StoredHistory((), 0)
    assert store.history("u", store.version("u")) == store.history("u")


def test_a_history_that_is_longer_than_wanted_is_refused(store: EventStore) -> None:
    first, *_ = store.append([made(str(number)) for number in range(4)])
    assert store.history("u", most=4) == store.history("u")
    assert store.history("nobody", most=0) == StoredHistory((), 0)
    assert store.history("u", first, most=1) == store.history("u", first)
    for version, most in ((None, 3), (first, 0)):
        with pytest.raises(LongHistoryError):
            store.history("u", version, most)
