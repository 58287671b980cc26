"""What may happen to the revisions of a server, as pure functions of what has happened.

    staged → warmed → shadow → canary → active
       ↓        └───────┴────────┴────────┴──→ rolled_back → retired
    quarantined ─────────────────────────────────────────────↗

What serves nobody can be retired: also what is staged, or warmed. A revision's number
is given when its bundle is staged and never used again. Promoting one puts the active one
back to warmed, from where rolling back returns to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType


class RolloutState(Enum):
    """Where a revision stands."""

    STAGED = "staged"
    WARMED = "warmed"
    SHADOW = "shadow"
    CANARY = "canary"
    ACTIVE = "active"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"
    QUARANTINED = "quarantined"


class Verb(Enum):
    """What can be asked of a revision; WARM and QUARANTINE are the server's own."""

    STAGE = "stage"
    WARM = "warm"
    QUARANTINE = "quarantine"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RETIRE = "retire"


# A part of the registry's format: which commands are known again depends on it.
MAX_RETIRED = 100

LOADED = frozenset(
    {RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY, RolloutState.ACTIVE}
)
ON_TRIAL = frozenset({RolloutState.SHADOW, RolloutState.CANARY})
_NEED_NO_OTHER_TRIAL = frozenset({Verb.SHADOW, Verb.CANARY, Verb.PROMOTE})
_FROM: Mapping[Verb, frozenset[RolloutState]] = {
    Verb.WARM: frozenset({RolloutState.STAGED}),
    Verb.QUARANTINE: frozenset({RolloutState.STAGED}),
    Verb.SHADOW: frozenset({RolloutState.WARMED}),
    Verb.CANARY: frozenset({RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY}),
    Verb.PROMOTE: frozenset({RolloutState.WARMED, RolloutState.SHADOW, RolloutState.CANARY}),
    Verb.ROLL_BACK: ON_TRIAL | {RolloutState.WARMED, RolloutState.ACTIVE},
    # From staged too: there may never be room for it.
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
    """The command changes nothing; the message says why."""


class UnknownRolloutError(RolloutError):
    """No revision has that number."""


class TransitionError(RolloutError):
    """The revision, or another one, stands where the command may not be given."""


class StaleError(RolloutError):
    """Another revision is active than the caller believes. ``current``: its number, or 0."""

    def __init__(self, current: int) -> None:
        super().__init__(f"revision {current} is active now; look at it, then ask again")
        self.current = current


class KeyReusedError(RolloutError):
    """The idempotency key belongs to another command."""


@dataclass(frozen=True, slots=True)
class RolloutCommand:
    """What somebody wants. ``revision``: 0 where one is to be staged.

    ``expected``: the revision that the caller believes to be active, 0 for none.
    ``percent``: of users, for a canary; of requests, for a shadow, 0 for all.
    ``bundle_digest``, ``origin``: of what is staged, and where it came from.
    ``gates``: what a trial must keep to, as text that this module does not read.
    ``forced``: a promotion that asks no gate.
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

    ``gates``: of its trial, as they were given.
    """

    revision: int
    bundle_digest: str
    state: RolloutState
    percent: int = 0
    reason: str = ""
    back_to: int = 0
    gates: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What has happened: rollouts by revision, and the commands about them by their keys.

    Of retired revisions the last MAX_RETIRED are kept, with their commands; the registry
    has them all. ``newest``: the largest number that was given.
    """

    rollouts: Mapping[int, Rollout] = field(default_factory=lambda: MappingProxyType({}))
    commands: Mapping[str, tuple[RolloutCommand, int]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    newest: int = 0

    @property
    def active(self) -> int:
        """The revision that answers all that no canary takes; 0 where there is none."""
        return self._one_in(frozenset({RolloutState.ACTIVE}))

    @property
    def on_trial(self) -> int:
        """The revision that is a shadow or a canary; 0 where there is none."""
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
        """What a command with this key came to before. Raises KeyReusedError."""
        if command.key not in self.commands:
            return None
        earlier, revision = self.commands[command.key]
        if earlier != command:
            raise KeyReusedError("the idempotency key was used for another command")
        return self.rollouts[revision]


def after(ledger: Ledger, command: RolloutCommand) -> tuple[Ledger, Rollout]:
    """The ledger once a command has been carried out, and the revision it is about.

    A command that was carried out before changes nothing. Raises RolloutError.
    """
    earlier = ledger.done(command)
    if earlier is not None:
        return ledger, earlier
    if command.expected != ledger.active:
        raise StaleError(ledger.active)
    changed = _changed(ledger, command)
    subject = changed[0]
    rollouts = {**ledger.rollouts, **{each.revision: each for each in changed}}
    commands = {**ledger.commands, command.key: (command, subject.revision)}
    return _without_oldest(rollouts, commands, subject), subject


def _without_oldest(
    rollouts: dict[int, Rollout], commands: dict[str, tuple[RolloutCommand, int]], subject: Rollout
) -> Ledger:
    """The ledger without retired revisions beyond MAX_RETIRED; the subject stays."""
    newest = max(rollouts)
    retired = sorted(n for n, each in rollouts.items() if each.state is RolloutState.RETIRED)
    forgotten = {*retired[:-MAX_RETIRED]} - {subject.revision}
    if forgotten:
        rollouts = {n: each for n, each in rollouts.items() if n not in forgotten}
        commands = {key: each for key, each in commands.items() if each[1] not in forgotten}
    return Ledger(MappingProxyType(rollouts), MappingProxyType(commands), newest)


def _changed(ledger: Ledger, command: RolloutCommand) -> list[Rollout]:
    """The revision that the command is about as it will be, then others that move with it."""
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
            f"revision {number} is {before.state.value}: no {verb.value} from there"
        )
    if verb in _NEED_NO_OTHER_TRIAL and ledger.on_trial not in (0, number):
        raise TransitionError(f"revision {ledger.on_trial} is on trial: end that first")
    if verb is Verb.CANARY and not 1 <= command.percent <= 99:
        raise TransitionError("a canary takes from 1 to 99 percent of the users")
    if verb is Verb.ROLL_BACK and before.state is RolloutState.ACTIVE:
        former = ledger.rollouts.get(before.back_to)
        if former is None or former.state is not RolloutState.WARMED:
            raise TransitionError(f"revision {number} has nothing loaded to go back to")
