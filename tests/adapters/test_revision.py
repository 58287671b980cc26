"""A lease keeps its revision; a retired revision is released with its last lease."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rankloom_adapters.revision import (
    Lease,
    NotYetServedError,
    RevisionInUseError,
    RevisionRetiredError,
    Revisions,
    Traffic,
    UnknownRevisionError,
)

NUM_THREADS, NUM_ROUNDS = 8, 300


def serving(*values: str) -> Revisions[str]:
    """Revisions numbered from 1; the first is active."""
    revisions = Revisions[str]()
    for number, value in enumerate(values, start=1):
        revisions.add(number, value)
    revisions.direct(Traffic(1))
    return revisions


def test_nothing_can_be_leased_before_traffic_goes_anywhere() -> None:
    revisions = Revisions[str]()
    revisions.add(1, "a")
    with pytest.raises(UnknownRevisionError), revisions.lease():
        pass


def test_a_number_is_given_once() -> None:
    revisions = serving("a")
    with pytest.raises(ValueError, match="revision 1 is loaded already"):
        revisions.add(1, "b")


@pytest.mark.parametrize("pinned", [0, -1, 3])
def test_a_pinned_revision_must_be_loaded(pinned: int) -> None:
    revisions = serving("a", "b")
    revisions.direct(Traffic(1, pinnable=frozenset({2, pinned})))
    with pytest.raises(UnknownRevisionError, match="is not being served") as caught:
        revisions.lease(pinned).__enter__()
    assert caught.value.number == pinned
    with revisions.lease(2) as lease:
        assert lease.value == "b"


def test_what_has_never_served_cannot_be_pinned() -> None:
    revisions = serving("a", "b", "c")
    revisions.direct(Traffic(1, canary=3, percent=1))
    with pytest.raises(NotYetServedError, match="revision 2 has served no request yet") as caught:
        revisions.lease(2).__enter__()
    assert (caught.value.number, revisions.num_leases(2)) == (2, 0)
    for number in (1, 3):
        with revisions.lease(number) as lease:
            assert lease.number == number


def test_a_lease_survives_a_change_of_traffic() -> None:
    revisions = serving("old", "new")
    with revisions.lease() as lease:
        revisions.direct(Traffic(2))
        assert (lease.number, lease.value) == (1, "old")
        assert (revisions.num_leases(1), revisions.num_leases(2)) == (1, 0)
        with revisions.lease() as later:
            assert (later.number, later.value) == (2, "new")
    assert (revisions.num_leases(1), revisions.num_leases(2)) == (0, 0)


def test_traffic_to_what_is_not_loaded_changes_nothing() -> None:
    revisions = serving("a")
    with pytest.raises(UnknownRevisionError):
        revisions.direct(Traffic(1, canary=2, percent=5))
    with revisions.lease() as lease:
        assert lease.number == 1


def test_a_canary_takes_its_users() -> None:
    revisions = serving("a", "b")
    revisions.direct(Traffic(1, canary=2, percent=30, salt="b"))
    found = []
    for _ in range(2):
        of_user = {}
        for number in range(1000):
            with revisions.lease(user=f"user-{number}") as lease:
                of_user[number] = lease.number
        found.append(of_user)
    assert found[0] == found[1]
    assert 250 < list(found[0].values()).count(2) < 350


def test_a_retired_revision_goes_with_its_last_lease() -> None:
    revisions, released = serving("a", "b"), list[str]()
    revisions.direct(Traffic(1, pinnable=frozenset({2})))
    with revisions.lease(2), revisions.lease(2):
        revisions.retire(2, released.append)
        with pytest.raises(UnknownRevisionError), revisions.lease(2):
            pass
        assert revisions.num_leases(2) == 2
        assert list(revisions.numbers) == [1, 2]
        assert not released
    assert released == ["b"]
    assert list(revisions.numbers) == [1]


def test_a_retired_revision_that_nobody_holds_goes_at_once() -> None:
    revisions, released = serving("a", "b"), list[str]()
    revisions.retire(2, released.append)
    assert released == ["b"]
    with pytest.raises(UnknownRevisionError):
        revisions.retire(2, released.append)


def test_what_answers_requests_cannot_be_retired() -> None:
    revisions = serving("a", "b")
    revisions.direct(Traffic(1, canary=2, percent=1))
    for number in (1, 2):
        with pytest.raises(RevisionInUseError):
            revisions.retire(number, print)


def test_a_failing_body_gives_its_lease_back() -> None:
    revisions = serving("a")
    with pytest.raises(RuntimeError), revisions.lease():
        raise RuntimeError
    assert revisions.num_leases(1) == 0


def test_all_holders_are_counted() -> None:
    revisions = serving("a")
    inside, leave = threading.Barrier(NUM_THREADS + 1), threading.Event()

    def hold() -> None:
        with revisions.lease():
            inside.wait()
            leave.wait()

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        leased = [pool.submit(hold) for _ in range(NUM_THREADS)]
        inside.wait()
        assert revisions.num_leases(1) == NUM_THREADS
        leave.set()
        for one in leased:
            one.result()
    assert revisions.num_leases(1) == 0


def test_nothing_is_released_while_it_is_held_and_all_is_in_the_end() -> None:
    """Seven threads lease while another one keeps replacing the active revision."""
    revisions, released = Revisions[list[str]](), list[int]()
    revisions.add(1, ["alive"])
    revisions.direct(Traffic(1))
    end = threading.Event()

    def let_go(number: int) -> None:
        released.append(number)

    def hold() -> None:
        while not end.is_set():
            with revisions.lease() as lease:
                assert lease.value == ["alive"]

    def replace() -> None:
        for number in range(2, NUM_ROUNDS + 1):
            revisions.add(number, ["alive"])
            revisions.direct(Traffic(number))

            def release(value: list[str], number: int = number) -> None:
                value.clear()  # a request that still leases it would see that
                let_go(number - 1)

            revisions.retire(number - 1, release)
        end.set()

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for one in [pool.submit(hold) for _ in range(NUM_THREADS - 1)] + [pool.submit(replace)]:
            one.result()
    assert sorted(released) == list(range(1, NUM_ROUNDS))
    assert revisions.numbers == (NUM_ROUNDS,)


class LeaseMachine(RuleBasedStateMachine):
    """Counts and releases are right after any order of leases, retirements and redirections."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.revisions, self.next = Revisions[str](), 1
        self.open: list[tuple[ExitStack, Lease[str]]] = []
        self.retired: set[int] = set()
        self.released: list[str] = []
        self.active = 0
        self.pinnable: frozenset[int] = frozenset()

    @rule()
    def add(self) -> None:
        self.revisions.add(self.next, f"value {self.next}")
        self.next += 1

    @rule(number=st.integers(0, 6), pinnable=st.frozensets(st.integers(1, 6)))
    def direct(self, number: int, pinnable: frozenset[int]) -> None:
        if number and (number >= self.next or number in self.retired):
            with pytest.raises(UnknownRevisionError):
                self.revisions.direct(Traffic(number, pinnable=pinnable))
        else:
            self.revisions.direct(Traffic(number, pinnable=pinnable))
            self.active, self.pinnable = number, pinnable

    @rule(target=leases, pinned=st.none() | st.integers(1, 6))
    def lease(self, pinned: int | None) -> tuple[ExitStack, Lease[str]] | None:
        number, stack = pinned or self.active, ExitStack()
        can_be_pinned = number == self.active or number in self.pinnable
        if not number or number >= self.next or number in self.retired or not can_be_pinned:
            with pytest.raises(UnknownRevisionError):
                stack.enter_context(self.revisions.lease(pinned))
            return None
        leased = (stack, stack.enter_context(self.revisions.lease(pinned)))
        assert leased[1].number == number
        self.open.append(leased)
        return leased

    @rule(leased=consumes(leases))
    def give_back(self, leased: tuple[ExitStack, Lease[str]] | None) -> None:
        if leased is not None:
            self.open.remove(leased)
            leased[0].close()

    @rule(number=st.integers(1, 6))
    def retire(self, number: int) -> None:
        if number >= self.next or number in self.retired:
            with pytest.raises(UnknownRevisionError):
                self.revisions.retire(number, self.released.append)
        elif number == self.active:
            with pytest.raises(RevisionInUseError):
                self.revisions.retire(number, self.released.append)
        else:
            self.revisions.retire(number, self.released.append)
            self.retired.add(number)

    @invariant()
    def counts_are_right(self) -> None:
        leased = [lease.number for _, lease in self.open]
        for number in range(1, self.next):
            assert self.revisions.num_leases(number) == leased.count(number)
        free = {number for number in self.retired if number not in leased}
        assert sorted(self.released) == sorted(f"value {number}" for number in free)


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_who_still_holds_a_retired_revision_can_be_told_to_end() -> None:
    revisions: Revisions[str] = Revisions()
    released: list[str] = []
    for number, value in ((1, "first"), (2, "second")):
        revisions.add(number, value)
    revisions.direct(Traffic(1))
    with revisions.lease() as lease:
        revisions.revoke(1)
        lease.check()  # it was not retired
        revisions.direct(Traffic(2))
        revisions.retire(1, released.append)
        lease.check()
        revisions.revoke(1)
        with pytest.raises(RevisionRetiredError, match="revision 1 was retired"):
            lease.check()
        assert released == [], "it is leased until it is returned"
    assert released == ["first"]
    revisions.revoke(1)  # it is gone: no request has to end
