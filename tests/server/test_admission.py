from __future__ import annotations

import asyncio

import pytest

from rankloom_server.admission import Admission
from rankloom_server.errors import NotServingError, OverloadedError


def opened(max_in_flight: int) -> Admission:
    admission = Admission(max_in_flight)
    admission.open()
    return admission


async def test_takes_nothing_before_it_is_open() -> None:
    admission = Admission(1)
    with pytest.raises(NotServingError, match="starting"), admission.admit():
        pass
    assert admission.num_in_flight == 0


async def test_refuses_one_more_than_the_limit_and_forgets_it() -> None:
    admission = opened(2)
    with admission.admit(), admission.admit():
        for _ in range(3):
            with pytest.raises(OverloadedError), admission.admit():
                pass
        assert admission.num_in_flight == 2
    assert admission.num_in_flight == 0
    with admission.admit(), admission.admit():
        pass


async def test_methods_apart_take_no_others_places() -> None:
    admission = Admission(1, {"Watch": 2})
    admission.open()
    with admission.admit("Watch"), admission.admit("Watch"):
        with pytest.raises(OverloadedError), admission.admit("Watch"):
            pass
        with admission.admit("Rollback"):
            assert admission.num_in_flight == 3
            with pytest.raises(OverloadedError), admission.admit("Retire"):
                pass
        assert not await admission.drain(timeout_s=0.01)
    assert admission.num_in_flight == 0


async def test_a_failed_call_gives_its_place_back() -> None:
    admission = opened(1)
    with pytest.raises(KeyError), admission.admit():
        raise KeyError
    with admission.admit():
        assert admission.num_in_flight == 1


async def test_drain_waits_for_the_calls_in_flight() -> None:
    admission = opened(2)
    with admission.admit():
        draining = asyncio.create_task(admission.drain(timeout_s=10))
        await asyncio.sleep(0.01)
        assert not draining.done()
        with pytest.raises(NotServingError, match="draining"), admission.admit():
            pass
    assert await draining


async def test_drain_ends_with_its_time() -> None:
    admission = opened(1)
    with admission.admit():
        assert not await admission.drain(timeout_s=0.01)


async def test_an_idle_server_drains_at_once() -> None:
    assert await opened(1).drain(timeout_s=0)


async def test_a_call_can_count_as_several() -> None:
    admission = opened(4)
    with admission.admit(), admission.admit_more(2):
        assert admission.num_in_flight == 3
        with pytest.raises(OverloadedError), admission.admit_more(2):
            pass
        with admission.admit_more(0), admission.admit(), admission.admit_more(0):
            assert admission.num_in_flight == 4
    with admission.admit(), admission.admit_more(99):
        assert admission.num_in_flight == 4
    assert admission.num_in_flight == 0
