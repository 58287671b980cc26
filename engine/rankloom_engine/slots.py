"""Which expert is in which slot of a slab, and how many revisions hold it. Pure policy."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rankloom_engine.errors import NoFreeSlotError


@dataclass(slots=True)
class _Slot:
    """``key``: of the expert that it holds, "" for none. ``released``: when it was last cached."""

    key: str = ""
    num_holders: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Slots of one revision's experts, in their order, and which of them must be written."""

    slots: tuple[int, ...]
    new: frozenset[int] = field(default_factory=frozenset)


class Slots:
    """The slots of one slab. Not thread-safe: one event loop owns it.

    An expert that nobody holds any more stays in its slot until another one needs it; the
    least recently cached one goes first. What somebody holds never goes.
    """

    def __init__(self, num_slots: int) -> None:
        self._slots = [_Slot() for _ in range(num_slots)]
        self._clock = itertools.count(1)

    def take(self, keys: Sequence[str]) -> Taken:
        """A slot for each key, no slot twice, and low ones first: a pass spans what it uses.

        Raises NoFreeSlotError; nothing is taken then.
        """
        chosen: list[int] = []
        for key in keys:
            chosen.append(self._found(key, chosen))
        for place, slot in enumerate(chosen):
            if slot < 0:
                chosen[place] = self._free(chosen)
        new = frozenset(s for s, key in zip(chosen, keys, strict=True) if self._slots[s].key != key)
        for slot, key in zip(chosen, keys, strict=True):
            self._slots[slot].key = key
            self._slots[slot].num_holders += 1
        return Taken(tuple(chosen), new)

    def give_back(self, slots: Sequence[int], *, unwritten: Collection[int] = ()) -> None:
        """Ends a revision's hold. ``unwritten``: those that do not hold what they were for."""
        now = next(self._clock)
        for slot in slots:
            self._slots[slot].num_holders -= 1
            self._slots[slot].released = now
        for slot in unwritten:
            self._slots[slot].key, self._slots[slot].released = "", 0

    @property
    def num_cached(self) -> int:
        """Slots that a revision holds."""
        return sum(slot.num_holders > 0 for slot in self._slots)

    def check_integrity(self) -> None:
        """Raises ArithmeticError where the counts cannot be."""
        cached = [slot for slot in self._slots if slot.num_holders]
        if any(slot.num_holders < 0 for slot in self._slots) or not all(
            slot.key for slot in cached
        ):
            raise ArithmeticError("slots: a hold was given back twice, or holds nothing")

    def _found(self, key: str, chosen: Sequence[int]) -> int:
        """The slot that has the expert already, or -1."""
        rows = enumerate(self._slots)
        return next((n for n, slot in rows if slot.key == key and n not in chosen), -1)

    def _free(self, chosen: Sequence[int]) -> int:
        free = [n for n, each in enumerate(self._slots) if not each.num_holders and n not in chosen]
        if not free:
            raise NoFreeSlotError(
                "no slot for another expert: retire a revision, or give more room"
            )
        return min(free, key=lambda n: (bool(self._slots[n].key), self._slots[n].released, n))
