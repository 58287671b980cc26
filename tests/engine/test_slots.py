"""Slots: an expert in use stays, an unused one goes when another one needs the room."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rankloom_engine.errors import NoFreeSlotError
from rankloom_engine.slots import Slots, Taken

NUM = 5
KEYS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=3)


def test_an_expert_that_is_there_is_not_written_again() -> None:
    slots = Slots(4)
    first = slots.take(["a", "b"])
    assert first == Taken((0, 1), frozenset({0, 1}))
    second = slots.take(["a", "c"])
    assert second == Taken((0, 2), frozenset({2}))


def test_a_revision_that_has_an_expert_twice_has_it_in_one_slot() -> None:
    slots = Slots(2)
    taken = slots.take(["a", "b", "a"])
    assert taken == Taken((0, 1, 0), frozenset({0, 1}))
    slots.give_back(taken.slots)
    slots.check_integrity()
    assert slots.num_used == 0


def test_what_is_there_from_the_beginning_is_found() -> None:
    slots = Slots(4, ["a", "a", "b"])
    assert slots.take(["a", "a", "b"]) == Taken((0, 0, 2))
    assert slots.take(["c", "d"]) == Taken((3, 1), frozenset({1, 3})), "nobody uses the second a"


def test_the_least_recently_used_one_goes_first() -> None:
    slots = Slots(2)
    old, new = slots.take(["a"]), slots.take(["b"])
    slots.give_back(old.slots)
    slots.give_back(new.slots)
    assert slots.take(["c"]) == Taken((0,), frozenset({0}))
    assert slots.take(["b"]) == Taken((1,), frozenset()), "still there, though nobody used it"


def test_a_slot_that_was_not_written_does_not_have_the_expert() -> None:
    slots = Slots(2)
    taken = slots.take(["a"])
    slots.give_back(taken.slots, unwritten=taken.new)
    assert slots.take(["a"]).new == {0}


def test_no_room_takes_nothing() -> None:
    slots = Slots(2)
    slots.take(["a"])
    with pytest.raises(NoFreeSlotError, match="retire a revision"):
        slots.take(["b", "c"])
    assert slots.num_used == 1
    assert slots.take(["b"]).slots == (1,)


def test_a_slot_that_is_given_back_twice_is_found() -> None:
    slots = Slots(1)
    taken = slots.take(["a"])
    slots.give_back(taken.slots)
    slots.give_back(taken.slots)
    with pytest.raises(ArithmeticError, match="twice"):
        slots.check_integrity()


class SlotsMachine(RuleBasedStateMachine):
    """Compared with a plain list of which revision uses what."""

    @initialize()
    def begin(self) -> None:
        self.slots = Slots(NUM)
        self.used: list[tuple[list[str], Taken]] = []
        self.contents = [""] * NUM  # as a slab would have them

    @rule(keys=KEYS)
    def take(self, keys: list[str]) -> None:
        try:
            taken = self.slots.take(keys)
        except NoFreeSlotError:
            busy = {slot for _, used in self.used for slot in used.slots}
            assert len(busy) + len(set(keys)) > NUM
            return
        for slot, key in zip(taken.slots, keys, strict=True):
            if slot in taken.new:
                assert all(slot not in used.slots for _, used in self.used), "somebody's"
                self.contents[slot] = key
        self.used.append((keys, taken))

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        _, taken = self.used.pop(data.draw(st.integers(0, len(self.used) - 1)))
        self.slots.give_back(taken.slots)

    @invariant()
    def every_revision_has_its_own(self) -> None:
        for keys, taken in self.used:
            assert len(set(taken.slots)) == len(set(keys))
            assert [self.contents[slot] for slot in taken.slots] == keys
        assert self.slots.num_used == len({s for _, used in self.used for s in used.slots})
        self.slots.check_integrity()


TestSlots = SlotsMachine.TestCase
