"""Short ways to write commands in tests."""

from __future__ import annotations

import itertools
from typing import Any

from rankloom_adapters.rollout.states import (
    Ledger,
    Rollout,
    RolloutCommand,
    RolloutState,
    Verb,
    after,
)

_keys = itertools.count()


def command(
    verb: Verb,
    revision: int = 0,
    expected: int = 0,
    key: str | None = None,
    **fields: Any,  # noqa: ANN401
) -> RolloutCommand:
    """A command with a new key unless one is given."""
    name = f"key-{next(_keys)}" if key is None else key
    return RolloutCommand(verb, revision, expected, name, **fields)


def run(ledger: Ledger, verb: Verb, revision: int = 0, **fields: Any) -> Ledger:  # noqa: ANN401
    """The ledger after one more command, which expects the active revision."""
    return after(ledger, command(verb, revision, ledger.active, **fields))[0]


def staged_and_warmed(ledger: Ledger, digest: str = "d") -> tuple[Ledger, int]:
    ledger = run(ledger, Verb.STAGE, bundle_digest=digest)
    number = max(ledger.rollouts)
    return run(ledger, Verb.WARM, number), number


def serving() -> Ledger:
    """Revision 1 is active."""
    ledger, number = staged_and_warmed(Ledger(), "first")
    return run(ledger, Verb.PROMOTE, number)


def states(ledger: Ledger) -> dict[int, RolloutState]:
    return {number: each.state for number, each in ledger.rollouts.items()}


def in_state(ledger: Ledger, state: RolloutState) -> list[Rollout]:
    return [each for each in ledger.rollouts.values() if each.state is state]
