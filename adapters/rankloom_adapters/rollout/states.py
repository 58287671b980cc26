"""The states of a server's revisions, and the commands that change them, as pure functions.

    staged → warmed → shadow → canary → active
       ↓        └───────┴────────┴────────┴──→ rolled_back → retired
    quarantined ─────────────────────────────────────────────↗

A revision without traffic can be retired, also from staged or warmed. Staging gives a revision
its number, which is never used again. Promoting one moves the active one back to warmed; a
rollback makes it active again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType


class RolloutState(Enum):
    STAGED = "staged"
    WARMED = "warmed"
    SHADOW = "shadow"
    CANARY = "canary"
    ACTIVE = "active"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"
    QUARANTINED = "quarantined"


class Verb(Enum):
    """The commands; only the server itself gives WARM and QUARANTINE."""

    STAGE = "stage"
    WARM = "warm"
    QUARANTINE = "quarantine"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RETIRE = "retire"


# Part of the registry's format: it decides which idempotency keys are still known.
MAX_RETIRED = 100
MAX_REASON_CHARS = 300

LOADED = frozenset(
    {RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY, RolloutState.ACTIVE}
)
ON_TRIAL = frozenset({RolloutState.SHADOW, RolloutState.CANARY})
# They send requests to a revision; for that, no other one may be on trial.
SENDING = frozenset({Verb.SHADOW, Verb.CANARY, Verb.PROMOTE})
_FROM: Mapping[Verb, frozenset[RolloutState]] = {
    Verb.WARM: frozenset({RolloutState.STAGED}),
    Verb.QUARANTINE: frozenset({RolloutState.STAGED}),
    Verb.SHADOW: frozenset({RolloutState.WARMED}),
    Verb.CANARY: frozenset({RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY}),
    Verb.PROMOTE: frozenset({RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY}),
    Verb.ROLL_BACK: ON_TRIAL | {RolloutState.WARMED, RolloutState.ACTIVE},
    # From staged too: it may never find room in memory.
    Verb.RETIRE: frozenset(
        {
            RolloutState.STAGED,
            RolloutState.WARMED,
            RolloutState.ROLLED_BACK,
            RolloutState.QUARANTINED,
        }
    ),
}
_TO: Mapping[Verb, RolloutState] = {
    Verb.STAGE: RolloutState.STAGED,
    Verb.WARM: RolloutState.WARMED,
    Verb.QUARANTINE: RolloutState.QUARANTINED,
    Verb.SHADOW: RolloutState.SHADOW,
    Verb.CANARY: RolloutState.CANARY,
    Verb.PROMOTE: RolloutState.ACTIVE,
    Verb.ROLL_BACK: RolloutState.ROLLED_BACK,
    Verb.RETIRE: RolloutState.RETIRED,
}


class RolloutError(Exception):
    """The command is refused and changes nothing; the message says why."""


class UnknownRolloutError(RolloutError):
    """There is no revision with that number."""


class TransitionError(RolloutError):
    """The state of this or another revision does not allow the command."""


class StaleError(RolloutError):
    """The active revision is not the expected one. ``current``: its number, or 0."""

    def __init__(self, current: int) -> None:
        super().__init__(f"revision {current} is active now; look at it, then ask again")
        self.current = current


class KeyReusedError(RolloutError):
    """The idempotency key was used for another command."""


@dataclass(frozen=True, slots=True)
class RolloutCommand:
    """A command by an operator or by the server. ``revision``: 0 for STAGE.

    ``expected``: the revision that the caller expects to be active, 0 for none.
    ``percent``: of users, for a canary; of requests, for a shadow, 0 for all.
    ``bundle_digest``, ``origin``: the bundle to stage, and where it comes from.
    ``gates``: the bounds of a trial, as text that this module does not read.
    ``forced``: a promotion without gates.
    """

    verb: Verb
    revision: int
    expected: int
    key: str
    percent: int = 0
    bundle_digest: str = ""
    reason: str = ""
    gates: str = ""
    forced: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One revision. ``back_to``: the one that was active before it, 0 for none.

    ``gates``: the bounds of its trial, as in the command. ``has_served``: whether requests were
    ever sent to it, a shadow's among them.
    """

    revision: int
    bundle_digest: str
    state: RolloutState
    percent: int = 0
    reason: str = ""
    back_to: int = 0
    gates: str = ""
    has_served: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    """The result of all commands: rollouts by revision, and commands by idempotency key.

    It keeps the last MAX_RETIRED retired revisions and their commands; the registry has them
    all. ``newest``: the largest number of a revision.
    """

    rollouts: Mapping[int, Rollout] = field(default_factory=lambda: MappingProxyType({}))
    commands: Mapping[str, tuple[RolloutCommand, int]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    newest: int = 0

    @property
    def active(self) -> int:
        """The revision that serves all users outside the canary; 0 for none."""
        return self._one_in(frozenset({RolloutState.ACTIVE}))

    @property
    def on_trial(self) -> int:
        """The revision that is a shadow or a canary; 0 for none."""
        return self._one_in(ON_TRIAL)

    def _one_in(self, states: frozenset[RolloutState]) -> int:
        return next((n for n, each in self.rollouts.items() if each.state in states), 0)

    def rollout(self, revision: int) -> Rollout:
        """Raises UnknownRolloutError."""
        if revision not in self.rollouts:
            if 0 < revision <= self.newest:
                raise UnknownRolloutError(f"revision {revision} was retired long ago")
            raise UnknownRolloutError(f"there is no revision {revision}")
        return self.rollouts[revision]

    def done(self, command: RolloutCommand) -> Rollout | None:
        """The result of an earlier command with this key. Raises KeyReusedError."""
        if command.key not in self.commands:
            return None
        earlier, revision = self.commands[command.key]
        if earlier != command:
            raise KeyReusedError("the idempotency key was used for another command")
        return self.rollouts[revision]


def after(ledger: Ledger, command: RolloutCommand) -> tuple[Ledger, Rollout]:
    """Returns the ledger after a command, and the revision that the command is about.

    A repeated command changes nothing. Raises RolloutError.
    """
    earlier = ledger.done(command)
    if earlier is not None:
        return ledger, earlier
    if command.expected != ledger.active:
        raise StaleError(ledger.active)
    changed = _changed(ledger, command)
    rollout = changed[0]
    rollouts = {**ledger.rollouts, **{each.revision: each for each in changed}}
    commands = {**ledger.commands, command.key: (command, rollout.revision)}
    return _without_oldest(rollouts, commands, rollout), rollout


def _without_oldest(
    rollouts: dict[int, Rollout], commands: dict[str, tuple[RolloutCommand, int]], rollout: Rollout
) -> Ledger:
    """Drops the oldest retired revisions above MAX_RETIRED, but never this rollout."""
    newest = max(rollouts)
    retired = sorted(n for n, each in rollouts.items() if each.state is RolloutState.RETIRED)
    forgotten = {*retired[:-MAX_RETIRED]} - {rollout.revision}
    if forgotten:
        rollouts = {n: each for n, each in rollouts.items() if n not in forgotten}
        commands = {key: each for key, each in commands.items() if each[1] not in forgotten}
    return Ledger(MappingProxyType(rollouts), MappingProxyType(commands), newest)


def _changed(ledger: Ledger, command: RolloutCommand) -> list[Rollout]:
    """The new state of the command's revision, then of others that change with it."""
    if command.verb is Verb.STAGE:
        return [Rollout(ledger.newest + 1, command.bundle_digest, RolloutState.STAGED)]
    before = ledger.rollout(command.revision)
    _check(ledger, before, command)
    moved = replace(
        before,
        state=_TO[command.verb],
        percent=command.percent,
        reason=command.reason,
        gates=command.gates,
        has_served=before.has_served or command.verb in SENDING,
    )
    if command.verb is Verb.PROMOTE and ledger.active:
        former = ledger.rollouts[ledger.active]
        return [replace(moved, back_to=former.revision), replace(former, state=RolloutState.WARMED)]
    if command.verb is Verb.ROLL_BACK and before.state is RolloutState.ACTIVE:
        former = ledger.rollouts[before.back_to]
        return [moved, replace(former, state=RolloutState.ACTIVE)]
    return [moved]


def _check(ledger: Ledger, before: Rollout, command: RolloutCommand) -> None:
    """Raises TransitionError."""
    number, verb = before.revision, command.verb
    if before.state not in _FROM[verb]:
        raise TransitionError(
            f"revision {number} is {before.state.value}; {verb.value} is not possible from there"
        )
    if verb in SENDING and ledger.on_trial not in (0, number):
        raise TransitionError(f"revision {ledger.on_trial} is on trial; end that first")
    if verb is Verb.CANARY and not 1 <= command.percent <= 99:
        raise TransitionError(
            f"percent is {command.percent}; a canary takes 1 to 99 percent of the users"
        )
    if verb is Verb.ROLL_BACK and before.state is RolloutState.ACTIVE:
        former = ledger.rollouts.get(before.back_to)
        if former is None or former.state is not RolloutState.WARMED:
            raise TransitionError(
                f"revision {number} cannot be rolled back: no earlier revision is loaded"
            )
