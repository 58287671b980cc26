"""Where a ledger sends requests, and what must be loaded for that, as pure functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rankloom_adapters.revision import Traffic
from rankloom_adapters.rollout.states import (
    LOADED,
    SENDING,
    Ledger,
    RolloutCommand,
    RolloutState,
    Verb,
)


def traffic_of(ledger: Ledger) -> Traffic:
    """The traffic that the ledger asks for; a shadow gets only requests that name it.

    What has served can be named as long as it is loaded: answers of it may have to be explained.
    """
    served = frozenset(number for number, each in ledger.rollouts.items() if each.has_served)
    traffic, trial = Traffic(ledger.active, pinnable=served), ledger.rollouts.get(ledger.on_trial)
    if trial is None or trial.state is not RolloutState.CANARY:
        return traffic
    return replace(traffic, canary=trial.revision, percent=trial.percent, salt=trial.bundle_digest)


def needed_by(ledger: Ledger, command: RolloutCommand) -> int:
    """The revision that a command sends requests to, 0 if it sends them nowhere new."""
    if command.verb in SENDING:
        return command.revision
    rollout = ledger.rollouts.get(command.revision)
    if rollout is None or rollout.state is not RolloutState.ACTIVE:
        return 0
    return rollout.back_to if command.verb is Verb.ROLL_BACK else 0


def unloaded(ledger: Ledger, loaded: Collection[int]) -> list[int]:
    """Revisions that should be in memory and are not, the most urgent first.

    First the target of a rollback and the revision on trial, then the newest.
    """
    active = ledger.rollouts.get(ledger.active)
    soon = (active.back_to if active else 0, ledger.on_trial)
    needed = [number for number, each in ledger.rollouts.items() if each.state in LOADED]
    missing = [number for number in needed if number not in loaded]
    return sorted(missing, key=lambda number: (number not in soon, -number))
