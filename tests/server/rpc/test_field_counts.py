from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_features.wire import InvalidFieldError
from rankloom_proto.v1.features_pb2 import Candidate, Event, History, ItemText
from rankloom_proto.v1.ranking_pb2 import RankRequest
from rankloom_server.rpc.field_counts import SMALL_BYTES, check_field_counts

FILLED = "x" * SMALL_BYTES  # a valid request beside it would be too small to be counted


def check(request: RankRequest | bytes) -> None:
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    check_field_counts(payload, RankRequest.DESCRIPTOR)


def test_the_largest_valid_request_passes() -> None:
    text = ItemText(title="t", year=1, attributes=["a"] * 32, description="d")
    event = Event(item_id="e", liked=True)
    event.time.seconds, event.time.nanos = 1, 1
    history = History(events=[event] * 1000)
    check(RankRequest(candidates=[Candidate(item_id="c", text=text)] * 500, history=history))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RankRequest(request_id=FILLED, candidates=[Candidate()] * 501), "candidates"),
        (RankRequest(history=History(events=[Event(item_id="x" * 99)] * 1001)), "history.events"),
        (
            RankRequest(
                request_id=FILLED, candidates=[Candidate(text=ItemText(attributes=["a"] * 33))]
            ),
            "candidates.text.attributes",
        ),
    ],
    ids=["candidates", "events", "attributes"],
)
def test_a_list_that_is_too_long_is_named(request_: RankRequest, field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        check(request_)
    assert refused.value.field == field


@pytest.mark.parametrize("field", [b"\x22\x00", b"\xa0\x06\x01", b"\x2a\x00"])
def test_a_mebibyte_of_tiny_fields_is_refused_at_once(field: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidFieldError):
        check(field * ((1 << 20) // len(field)))
    assert time.perf_counter() - began < 0.5


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_left_to_the_parser(tail: bytes) -> None:
    whole = RankRequest(request_id=FILLED).SerializeToString() + tail
    check(whole)
