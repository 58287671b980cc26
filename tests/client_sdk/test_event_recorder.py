"""`EventRecorder` on real servers that fail, restart, refuse and lose answers."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from rankloom import (
    BufferFullError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    EventRecorder,
    EventsNotRecordedError,
    FeatureClient,
    FieldViolation,
    InvalidRequestError,
    UnavailableError,
    UserEvent,
)
from rankloom._outbox import MAX_CALL_BYTES, MAX_CALL_EVENTS, Outbox
from rankloom.testing import FakeServer, RecordCall, after, fail

NUM_THREADS, NUM_EACH = 8, 200


def event(name: object, user: str = "u") -> UserEvent:
    return UserEvent(user=user, item_id=f"item-{name}", liked=True, event_id=str(name))


def ids(events: tuple[UserEvent, ...]) -> list[str]:
    return [each.event_id for each in events]


def fail_half(server: FakeServer) -> Callable[[RecordCall], None]:
    """Fails every second call: by turns before its events are kept and after that."""
    count = itertools.count()

    def answer(call: RecordCall) -> None:
        number = next(count)
        if number % 4 == 1:
            raise fail(UnavailableError, "down")
        if number % 4 == 3:
            for each in call.events:
                server._features.events.record(each)
            raise fail(UnavailableError, "the answer is lost")

    return answer


def test_each_event_of_many_threads_is_recorded_once() -> None:
    def record(thread: int) -> None:
        for number in range(NUM_EACH):
            recorder.record(event(f"{thread}-{number}", user=f"user-{thread}"))

    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(fail_half(server))
        with EventRecorder(client, max_pending=100) as recorder:
            threads = [threading.Thread(target=record, args=[n]) for n in range(NUM_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        recorded = server.events
        num_calls = len(server.record_calls)
    assert len(recorded) == NUM_THREADS * NUM_EACH
    for user in range(NUM_THREADS):
        of_user = [each for each in recorded if each.user == f"user-{user}"]
        assert ids(tuple(of_user)) == [f"{user}-{n}" for n in range(NUM_EACH)], "in order"
    assert num_calls < len(recorded) / 4


def test_an_event_waits_for_others_but_not_long() -> None:
    with FakeServer() as server, FeatureClient(server.target) as client:
        with EventRecorder(client, max_age_s=0.2) as recorder:
            began = datetime.now(UTC)
            recorder.record(event(1))
            recorder.record(event(2))
            while not server.events:
                time.sleep(0.01)
        ((one, other),) = [call.events for call in server.record_calls]
    assert one.time is not None
    assert other.time is not None
    assert began <= one.time <= other.time <= datetime.now(UTC)


def test_flush_does_not_wait_for_others() -> None:
    with (
        FakeServer() as server,
        FeatureClient(server.target) as client,
        EventRecorder(client, max_age_s=3600.0) as recorder,
    ):
        recorder.flush()
        recorder.record(event(1))
        recorder.flush()
        assert ids(server.events) == ["1"]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that no other process is given; one that asks for it by number can serve on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_events_survive_a_restart_of_the_server() -> None:
    with (
        reserved_port() as port,
        FeatureClient(f"127.0.0.1:{port}") as client,
        EventRecorder(client) as recorder,
    ):
        recorder.record(event(1))
        with pytest.raises(DeadlineExceededError) as caught:
            recorder.flush(0.3)
        assert caught.value.__cause__ is None or isinstance(
            caught.value.__cause__, ConnectionFailedError
        )
        with FakeServer(port=port) as restarted:
            recorder.record(event(2))
            recorder.flush(20.0)
            assert ids(restarted.events) == ["1", "2"]


def test_what_the_server_refuses_is_handed_back_and_the_rest_is_recorded() -> None:
    def refuse(call: RecordCall) -> None:
        wrong = [n for n, each in enumerate(call.events) if each.item_id == "item-bad"]
        if wrong:
            violations = tuple(FieldViolation(f"events[{n}].rating", "no") for n in wrong)
            raise fail(InvalidRequestError, "wrong", violations=violations)

    bad = [event("bad", user=user) for user in "vw"]
    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(refuse)
        with EventRecorder(client, max_age_s=3600.0) as recorder:
            for each in (event(1), bad[0], event(2), bad[1], event(3)):
                recorder.record(each)
            with pytest.raises(EventsNotRecordedError) as caught:
                recorder.flush()
            recorder.flush()
        assert ids(server.events) == ["1", "2", "3"]
    assert [each.user for each in caught.value.events] == ["v", "w"]
    assert isinstance(caught.value.__cause__, InvalidRequestError)


def test_a_refusal_that_names_no_event_concerns_all() -> None:
    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(fail(InvalidRequestError, "too much"), None)
        with EventRecorder(client, max_age_s=3600.0) as recorder:
            recorder.record(event(1))
            recorder.record(event(2))
            with pytest.raises(EventsNotRecordedError) as caught:
                recorder.flush()
        assert ids(caught.value.events) == ["1", "2"]
        assert server.events == ()


def test_a_full_buffer_refuses_and_close_hands_back_what_waits() -> None:
    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(UnavailableError)
        recorder = EventRecorder(client, max_pending=2)
        recorder.record(event(1))
        recorder.record(event(2))
        with pytest.raises(BufferFullError):
            recorder.record(event(3), timeout_s=0.1)
        with pytest.raises(EventsNotRecordedError) as caught:
            recorder.close(0.3)
        assert ids(caught.value.events) == ["1", "2"]
        with pytest.raises(ClientClosedError):
            recorder.record(event(4))
        recorder.close()


def test_record_waits_for_room() -> None:
    with FakeServer() as server, FeatureClient(server.target) as client:
        server.on_record(after(0.3, None), None)
        with EventRecorder(client, max_pending=1) as recorder:
            recorder.record(event(1))
            recorder.record(event(2))
        assert ids(server.events) == ["1", "2"]


def test_a_client_that_was_closed_first_loses_nothing_silently() -> None:
    client = FeatureClient("127.0.0.1:1")
    client.close()
    recorder = EventRecorder(client)
    recorder.record(event(1))
    began = time.monotonic()
    with pytest.raises(EventsNotRecordedError) as caught:
        recorder.close(20.0)
    assert ids(caught.value.events) == ["1"]
    assert isinstance(caught.value.__cause__, ClientClosedError)
    assert time.monotonic() - began < 10.0


def test_what_ended_the_block_stays_in_sight_when_events_are_left() -> None:
    client = FeatureClient("127.0.0.1:1")
    client.close()
    mistake = KeyError("in the block")

    def fail_in_a_block() -> None:
        with EventRecorder(client) as recorder:
            recorder.record(event(1))
            raise mistake

    with pytest.raises(EventsNotRecordedError) as caught:
        fail_in_a_block()
    assert ids(caught.value.events) == ["1"]
    assert caught.value.__cause__ is mistake


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("event.liked", UserEvent(user="u", item_id="i")),
        ("event.liked", UserEvent(user="u", item_id="i", liked=True, rating=3.0)),
        ("event.time", UserEvent(user="u", item_id="i", liked=True, time=datetime(2024, 5, 1))),
        ("event", "i"),
    ],
)
def test_a_wrong_event_is_refused_at_once(field: str, wrong: UserEvent) -> None:
    recorder = EventRecorder(FeatureClient("127.0.0.1:1"))
    with pytest.raises(InvalidRequestError) as caught:
        recorder.record(wrong)
    assert caught.value.violations[0].field == field
    recorder.close()


FORK = """
import os, signal, sys
from rankloom import EventRecorder, FeatureClient, UserEvent

def record(name):
    recorder.record(UserEvent(user="u", item_id="i", liked=True, event_id=name))

recorder = EventRecorder(FeatureClient(sys.argv[1], timeout_s=20), max_age_s=3600)
record("before")
recorder.flush()
record("parent")
child = os.fork()
if not child:
    signal.alarm(30)
    record("child")
    recorder.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
recorder.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_sends_its_own_events_only() -> None:
    with FakeServer() as server:
        command = [sys.executable, "-c", FORK, server.target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ids(server.events) == ["before", "child", "parent"]
        assert len(server.record_calls) == 3


def test_a_call_holds_what_fits_into_a_message() -> None:
    outbox = Outbox(1.0, 10_000)
    for number in range(MAX_CALL_EVENTS + 1):
        outbox.add(event(number), 10, 0.0)
    assert outbox.due_s == 0.0
    assert len(outbox.next_call()) == MAX_CALL_EVENTS
    outbox.settle(outbox.next_call(), None)
    outbox.add(event("large"), MAX_CALL_BYTES + 1, 0.0)
    assert outbox.due_s == 1.0
    assert [each.num_bytes for each in outbox.next_call()] == [10]
    outbox.settle(outbox.next_call(), None)
    assert [each.num_bytes for each in outbox.next_call()] == [MAX_CALL_BYTES + 1]
