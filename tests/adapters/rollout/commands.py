"""Commands for tests: short ways to write them."""

from __future__ import annotations

import itertools

from rankloom_adapters.rollout.states import Command, Ledger, Rollout, State, Verb, after

_keys = itertools.count()


def command(
    verb: Verb, generation: int = 0, expected: int = 0, key: str | None = None, **fields: object
) -> Command:
    """With a key of its own unless one is given."""
    name = f"key-{next(_keys)}" if key is None else key
    return Command(verb, generation, expected, name, **fields)  # type: ignore[arg-type]


def run(ledger: Ledger, verb: Verb, generation: int = 0, **fields: object) -> Ledger:
    """After one more command by somebody who knows what is active."""
    return after(ledger, command(verb, generation, ledger.active, **fields))[0]


def staged_and_warmed(ledger: Ledger, digest: str = "d") -> tuple[Ledger, int]:
    ledger = run(ledger, Verb.STAGE, bundle_digest=digest)
    number = max(ledger.rollouts)
    return run(ledger, Verb.WARM, number), number


def serving() -> Ledger:
    """Generation 1 is active."""
    ledger, number = staged_and_warmed(Ledger(), "first")
    return run(ledger, Verb.PROMOTE, number)


def states(ledger: Ledger) -> dict[int, State]:
    return {number: each.state for number, each in ledger.rollouts.items()}


def in_state(ledger: Ledger, state: State) -> list[Rollout]:
    return [each for each in ledger.rollouts.values() if each.state is state]
