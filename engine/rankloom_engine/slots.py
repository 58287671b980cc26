"""Which expert is in which slot of a slab, and how many revisions use it. Pure policy."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rankloom_engine.errors import NoFreeSlotError


@dataclass(slots=True)
class _Slot:
    """``key``: of the expert in it, "" for none. ``last_used``: when a revision last left it."""

    key: str = ""
    num_users: int = 0
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Slots of one revision's experts, in their order; ``new`` ones have still to be written."""

    slots: tuple[int, ...]
    new: frozenset[int] = field(default_factory=frozenset)


class Slots:
    """The slots of one slab. Not thread-safe: one event loop owns it.

    An expert that no revision uses stays in its slot until another one needs the room; the
    least recently used one goes first. An expert in use never goes.
    """

    def __init__(self, num_slots: int) -> None:
        self._slots = [_Slot() for _ in range(num_slots)]
        self._clock = itertools.count(1)

    def take(self, keys: Sequence[str]) -> Taken:
        """A slot for each key, no slot twice.

        Low slots first: a pass multiplies the whole span of slots that it uses. Raises
        NoFreeSlotError without taking any.
        """
        chosen: list[int] = []
        for key in keys:
            chosen.append(self._found(key, chosen))
        for index, slot in enumerate(chosen):
            if slot < 0:
                chosen[index] = self._free(chosen)
        new = frozenset(s for s, key in zip(chosen, keys, strict=True) if self._slots[s].key != key)
        for slot, key in zip(chosen, keys, strict=True):
            self._slots[slot].key = key
            self._slots[slot].num_users += 1
        return Taken(tuple(chosen), new)

    def give_back(self, slots: Sequence[int], *, unwritten: Collection[int] = ()) -> None:
        """Ends a revision's use. ``unwritten``: slots whose expert was never written."""
        now = next(self._clock)
        for slot in slots:
            self._slots[slot].num_users -= 1
            self._slots[slot].last_used = now
        for slot in unwritten:
            self._slots[slot].key, self._slots[slot].last_used = "", 0

    @property
    def num_used(self) -> int:
        """Slots that a revision uses."""
        return sum(slot.num_users > 0 for slot in self._slots)

    def check_integrity(self) -> None:
        """Raises ArithmeticError if a slot was given back twice, or is used without an expert."""
        for index, slot in enumerate(self._slots):
            if slot.num_users < 0 or (slot.num_users and not slot.key):
                raise ArithmeticError(
                    f"slot {index}: given back twice, or used without an expert; "
                    "restart the server and report it"
                )

    def _found(self, key: str, chosen: Sequence[int]) -> int:
        """The slot that has the expert already; -1 if there is none."""
        rows = enumerate(self._slots)
        return next((n for n, slot in rows if slot.key == key and n not in chosen), -1)

    def _free(self, chosen: Sequence[int]) -> int:
        free = [n for n, each in enumerate(self._slots) if not each.num_users and n not in chosen]
        if not free:
            raise NoFreeSlotError(
                "no slot for another expert: retire a revision, or give expert slots more memory"
            )
        return min(free, key=lambda n: (bool(self._slots[n].key), self._slots[n].last_used, n))
