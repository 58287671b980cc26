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

    def __init__(self, num_slots: int, keys: Sequence[str] = ()) -> None:
        """``keys``: of the experts that the first slots have already."""
        empty = itertools.repeat("", num_slots - len(keys))
        self._slots = [_Slot(key) for key in itertools.chain(keys, empty)]
        self._clock = itertools.count(1)

    def take(self, keys: Sequence[str]) -> Taken:
        """A slot for each key; equal keys, which are one expert under two names, share one.

        Low slots first: a pass multiplies the whole span of slots that it uses. Raises
        NoFreeSlotError without taking any.
        """
        chosen = {key: self._found(key) for key in keys}
        for key, slot in chosen.items():
            if slot < 0:
                chosen[key] = self._free(chosen.values())
        new = frozenset(slot for key, slot in chosen.items() if self._slots[slot].key != key)
        slots = tuple(chosen[key] for key in keys)
        for slot, key in zip(slots, keys, strict=True):
            self._slots[slot].key = key
            self._slots[slot].num_users += 1
        return Taken(slots, new)

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

    def _found(self, key: str) -> int:
        """The slot that has the expert already; -1 if there is none."""
        return next((n for n, slot in enumerate(self._slots) if slot.key == key), -1)

    def _free(self, chosen: Collection[int]) -> int:
        free = [n for n, each in enumerate(self._slots) if not each.num_users and n not in chosen]
        if not free:
            raise NoFreeSlotError(
                "no slot for another expert: retire a revision, or give expert slots more memory"
            )
        return min(free, key=lambda n: (bool(self._slots[n].key), self._slots[n].last_used, n))
