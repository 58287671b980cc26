"""Writes commands to the registry from the event loop, and tells all that wait for a change."""

from __future__ import annotations

import asyncio

from rankloom_adapters.rollout.current_trial import CurrentTrial
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import (
    MAX_REASON_CHARS,
    Ledger,
    Rollout,
    RolloutCommand,
    Verb,
)

_OWN = "\0"  # begins the keys of the server's own commands; a caller's keys are printable


class LedgerWriter:
    """The only writer of the registry. It owns the lock of registry and traffic.

    Hold ``lock`` from the look at the ledger that decides about a command until the traffic
    follows it.
    """

    def __init__(self, registry: Registry, current: CurrentTrial) -> None:
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()
        """Set at the next change; another event stands here then."""
        self._registry, self._current = registry, current

    @property
    def ledger(self) -> Ledger:
        """All that has happened."""
        return self._registry.ledger

    async def carry_out(self, command: RolloutCommand) -> Rollout:
        """Under the lock. Raises RolloutError or RegistryError; nothing has changed then.

        The row is written in a thread of its own, not behind the reading of bundles: a caller
        waits for it.
        """
        found = await asyncio.to_thread(self._registry.carry_out, command)
        self._current.follow(self.ledger)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        return found

    async def carry_out_own(self, verb: Verb, number: int, reason: str = "") -> Rollout:
        """A command of the server itself, under the lock; each comes once for a revision."""
        key = f"{_OWN}{verb.value} {number}"
        reason = reason[:MAX_REASON_CHARS]
        return await self.carry_out(
            RolloutCommand(verb, number, self.ledger.active, key, reason=reason)
        )
