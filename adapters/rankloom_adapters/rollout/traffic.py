"""Whom a ledger sends where, and what must be loaded for that. Pure policy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rankloom_adapters.revision import Traffic
from rankloom_adapters.rollout.states import LOADED, Ledger, RolloutCommand, RolloutState, Verb

_SENDS = frozenset({Verb.SHADOW, Verb.CANARY, Verb.PROMOTE})


def traffic_of(ledger: Ledger) -> Traffic:
    """Who is sent where; a shadow is sent nobody."""
    traffic, trial = Traffic(ledger.active), ledger.rollouts.get(ledger.on_trial)
    if trial is None or trial.state is not RolloutState.CANARY:
        return traffic
    return replace(traffic, canary=trial.revision, percent=trial.percent, salt=trial.bundle_digest)


def needed_by(ledger: Ledger, command: RolloutCommand) -> int:
    """The revision that requests go to once a command is carried out; 0 where none changes."""
    if command.verb in _SENDS:
        return command.revision
    subject = ledger.rollouts.get(command.revision)
    is_active = subject is not None and subject.state is RolloutState.ACTIVE
    return subject.back_to if subject and is_active and command.verb is Verb.ROLL_BACK else 0


def unloaded(ledger: Ledger, loaded: Collection[int]) -> list[int]:
    """What should be in memory and is not, in the order in which it may be needed.

    First what rolling back leads to, and what is on trial; then the newest.
    """
    active = ledger.rollouts.get(ledger.active)
    soon = (active.back_to if active else 0, ledger.on_trial)
    held = [number for number, each in ledger.rollouts.items() if each.state in LOADED]
    missing = [number for number in held if number not in loaded]
    return sorted(missing, key=lambda number: (number not in soon, -number))
