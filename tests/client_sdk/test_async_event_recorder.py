"""`AsyncEventRecorder` keeps the rules of `EventRecorder`."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from client_sdk.test_event_recorder import event, fail_half, ids
from rankloom import (
    AsyncEventRecorder,
    AsyncFeatureClient,
    BufferFullError,
    ClientClosedError,
    DeadlineExceededError,
    EventRecorder,
    EventsNotRecordedError,
    FieldViolation,
    InvalidRequestError,
    UnavailableError,
)
from rankloom.testing import FakeServer, after, fail

NUM_TASKS, NUM_EACH = 8, 100


async def test_each_event_of_many_tasks_is_recorded_once() -> None:
    async def record(task: int) -> None:
        for number in range(NUM_EACH):
            await recorder.record(event(f"{task}-{number}", user=f"user-{task}"))

    with FakeServer() as server:
        server.on_record(fail_half(server))
        async with (
            AsyncFeatureClient(server.target) as client,
            AsyncEventRecorder(client, max_pending=50) as recorder,
        ):
            await asyncio.gather(*map(record, range(NUM_TASKS)))
        recorded, num_calls = server.events, len(server.record_calls)
    for user in range(NUM_TASKS):
        of_user = tuple(each for each in recorded if each.user == f"user-{user}")
        assert ids(of_user) == [f"{user}-{n}" for n in range(NUM_EACH)], "in order"
    assert len(recorded) == NUM_TASKS * NUM_EACH
    assert num_calls < len(recorded) / 4


async def test_flush_does_not_wait_for_others_and_age_needs_no_flush() -> None:
    with FakeServer() as server:
        async with AsyncFeatureClient(server.target) as client:
            async with AsyncEventRecorder(client, max_age_s=3600.0) as patient:
                await patient.flush()
                await patient.record(event(1))
                await patient.flush()
                assert ids(server.events) == ["1"]
            async with AsyncEventRecorder(client) as quick:
                await quick.record(event(2))
                while len(server.events) < 2:
                    await asyncio.sleep(0.01)
                assert server.events[1].time is not None


async def test_what_the_server_refuses_is_handed_back_and_the_rest_is_recorded() -> None:
    wrong = (FieldViolation("events[1].rating", "no"),)
    with FakeServer() as server:
        server.on_record(fail(InvalidRequestError, "wrong", violations=wrong), None)
        async with (
            AsyncFeatureClient(server.target) as client,
            AsyncEventRecorder(client, max_age_s=3600.0) as recorder,
        ):
            for name in range(3):
                await recorder.record(event(name))
            with pytest.raises(EventsNotRecordedError) as caught:
                await recorder.flush()
        assert (ids(caught.value.events), ids(server.events)) == (["1"], ["0", "2"])


async def test_a_full_buffer_refuses_and_close_hands_back_what_waits() -> None:
    with FakeServer() as server:
        server.on_record(UnavailableError)
        async with AsyncFeatureClient(server.target) as client:
            recorder = AsyncEventRecorder(client, max_pending=1)
            await recorder.record(event(1))
            with pytest.raises(BufferFullError):
                await recorder.record(event(2), timeout_s=0.1)
            with pytest.raises(DeadlineExceededError):
                await recorder.flush(0.3)
            with pytest.raises(EventsNotRecordedError) as caught:
                await recorder.close(0.3)
            with pytest.raises(ClientClosedError):
                await recorder.record(event(3))
            await recorder.close()
    assert ids(caught.value.events) == ["1"]


async def test_close_ends_a_call_that_takes_too_long() -> None:
    with FakeServer() as server:
        server.on_record(after(30.0, None))
        async with AsyncFeatureClient(server.target, timeout_s=30.0) as client:
            recorder = AsyncEventRecorder(client)
            await recorder.record(event(1))
            with pytest.raises(EventsNotRecordedError):
                await recorder.close(0.5)


async def test_a_client_that_was_closed_first_loses_nothing_silently() -> None:
    client = AsyncFeatureClient("127.0.0.1:1")
    await client.close()
    recorder = AsyncEventRecorder(client)
    await recorder.record(event(1))
    async with asyncio.timeout(10.0):
        with pytest.raises(EventsNotRecordedError) as caught:
            await recorder.close(20.0)
    assert isinstance(caught.value.__cause__, ClientClosedError)


@pytest.mark.parametrize("name", ["record", "flush", "close"])
def test_both_recorders_take_the_same_arguments(name: str) -> None:
    blocking = inspect.signature(getattr(EventRecorder, name))
    asynchronous = inspect.signature(getattr(AsyncEventRecorder, name))
    assert blocking.parameters == asynchronous.parameters


async def test_what_ended_the_block_stays_in_sight_when_events_are_left() -> None:
    client = AsyncFeatureClient("127.0.0.1:1")
    await client.close()
    mistake = KeyError("in the block")

    async def fail_in_a_block() -> None:
        async with AsyncEventRecorder(client) as recorder:
            await recorder.record(event(1))
            raise mistake

    with pytest.raises(EventsNotRecordedError) as caught:
        await fail_in_a_block()
    assert ids(caught.value.events) == ["1"]
    assert caught.value.__cause__ is mistake
