from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_service.small_catalogue import CATALOGUE
from rankloom_features.events import Event, EventLog, EventLogError, history_of, known_events

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
events = st.lists(
    st.builds(Event, texts, st.booleans(), st.none() | st.floats(0, 4e9)), max_size=5
).map(tuple)
GOOD = b'["a", [["i1", 1, 5.5]]]'


@settings(deadline=None)
@given(st.dictionaries(texts, events, max_size=5))
def test_bytes_round_trip(made: dict[str, tuple[Event, ...]]) -> None:
    log = EventLog.from_bytes(EventLog(made).to_bytes())
    assert log.users == tuple(made)
    assert {user: log.events_of(user) for user in made} == made
    assert log.position == sum(map(len, made.values()))


def test_a_user_without_events_has_none() -> None:
    assert EventLog({}).events_of("nobody") == ()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"{}",
        b"3",
        b"null",
        b"\xff",
        b'["b"]',
        b'["b", 3]',
        b'["b", [["i1", 1]]]',
        b'["b", [3]]',
        b'["b", [["i1", 1, null, 4]]]',
        b'[["b"], []]',
        b'["b", [["i1", "no", null]]]',
        b'["b", [["i1", 1, "late"]]]',
        b'["b", [["i1", 1, NaN]]]',
        b'["b", [["i1", 1, true]]]',
        b'["b", [["i1", 1, 1' + b"0" * 400 + b"]]]",
        b'["b", [["i1", 2, null]]]',
        b'["b", [[3, 1, null]]]',
        b'["a", []]',
        b"[" * 100_000,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_a_bad_line_is_named(line: bytes) -> None:
    with pytest.raises(EventLogError, match="line 2"):
        EventLog.from_bytes(GOOD + b"\n" + line + b"\n")


def test_unknown_items_are_left_out_in_order() -> None:
    made = [Event("i3", True), Event("gone", False), Event("i1", False, 2.0), Event("", True)]
    known = known_events(made, CATALOGUE)
    assert known == (made[0], made[2])
    history = history_of(known, CATALOGUE)
    assert history.index.tolist() == [3, 1]
    assert history.liked.tolist() == [True, False]
    assert len(history_of((), CATALOGUE)) == 0
