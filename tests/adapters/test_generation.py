from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rankloom_adapters.generation import Generations, UnknownGenerationError

NUM_THREADS, NUM_ROUNDS = 8, 200


def test_numbers_start_at_one_and_rise() -> None:
    generations = Generations[str]()
    assert [generations.publish(value) for value in "abc"] == [1, 2, 3]


def test_nothing_can_be_leased_before_a_publish() -> None:
    generations = Generations[str]()
    with pytest.raises(UnknownGenerationError), generations.lease():
        pass
    assert generations.publish("a") == 1


@pytest.mark.parametrize("pinned", [0, -1, 1, 3])
def test_a_pinned_generation_must_be_the_active_one(pinned: int) -> None:
    generations = Generations[str]()
    generations.publish("a")
    generations.publish("b")
    with pytest.raises(UnknownGenerationError) as caught, generations.lease(pinned):
        pass
    assert caught.value.number == pinned
    assert generations.num_leases(2) == 0
    with generations.lease(2) as held:
        assert held.value == "b"


def test_a_lease_survives_a_publish() -> None:
    generations = Generations[str]()
    generations.publish("old")
    with generations.lease() as held:
        generations.publish("new")
        assert (held.number, held.value) == (1, "old")
        assert (generations.num_leases(1), generations.num_leases(2)) == (1, 0)
        with generations.lease() as later:
            assert (later.number, later.value) == (2, "new")
    assert (generations.num_leases(1), generations.num_leases(2)) == (0, 0)


def test_a_failing_body_gives_its_lease_back() -> None:
    generations = Generations[str]()
    generations.publish("a")
    with pytest.raises(RuntimeError), generations.lease():
        raise RuntimeError
    assert generations.num_leases(1) == 0


def test_all_holders_are_counted() -> None:
    generations = Generations[int]()
    number = generations.publish(1)
    inside, leave = threading.Barrier(NUM_THREADS + 1), threading.Event()

    def hold() -> None:
        with generations.lease():
            inside.wait()
            leave.wait()

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        held = [pool.submit(hold) for _ in range(NUM_THREADS)]
        inside.wait()
        assert generations.num_leases(number) == NUM_THREADS
        leave.set()
        for one in held:
            one.result()
    assert generations.num_leases(number) == 0


def test_every_lease_is_given_back_while_generations_change() -> None:
    generations = Generations[int]()
    generations.publish(1)

    def work(thread: int) -> None:
        for count in range(NUM_ROUNDS):
            if thread == 0 and count % 10 == 0:
                generations.publish(1)
            with generations.lease() as held:
                assert generations.num_leases(held.number) >= 1

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(work, range(NUM_THREADS)))
    last = generations.publish(1)
    assert last == NUM_ROUNDS // 10 + 2
    assert [generations.num_leases(number) for number in range(1, last + 1)] == [0] * last
