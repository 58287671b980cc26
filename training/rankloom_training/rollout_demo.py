"""The rollout of the demonstration: a bundle replaces another, and back, while clients rank."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

import rankloom
from rankloom_adapters.bundle import open_bundle
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.loaded import load_features
from rankloom_training.serving import serving_rollouts
from rankloom_training.user_events import events_of_bundle

FIRST = 1  # the revision that a server begins with
NUM_CALLERS, NUM_CANDIDATES = 2, 6
PERCENT, MIN_USERS, MAX_USERS = 50, 5, 60
# Experts of groups that had none are meant to move the scores: what is judged is errors, latency,
# ties and calibration. Two clients on a busy machine wait for each other.
GATES: Final = rankloom.GateSpec(
    max_ks=1.0, max_psi=100.0, max_agreement_shift=2.0, max_latency_ratio=2.0
)
TRIAL_S, TURN_S, TIMEOUT_S = 90.0, 2.0, 10.0


@dataclass(eq=False)
class DemoTraffic:
    """Counts answers by revision. Thread-safe.

    ``serving``: the revision that must answer calls from now on; 0 if either may.
    A rule binds the calls that it outlasts: one that is on its way when the rule changes may
    reach the server before the change or after it.
    """

    num_users: int
    serving: int
    answered: Counter[int] = field(default_factory=Counter)
    num_failed: int = 0
    num_stale: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, expected: int, found: int | None) -> None:
        """One call: ``serving`` as it began, and the revision that answered (None: it failed)."""
        with self.lock:
            binding = expected == self.serving != 0
            self.num_failed += found is None
            self.num_stale += binding and found not in (None, expected)
            self.answered[found or 0] += found is not None

    def row(self) -> tuple[str, ...]:
        """Table cells: answers by revision 1 and 2, failed calls, stale answers."""
        with self.lock:
            counts = (self.answered[1], self.answered[2], self.num_failed, self.num_stale)
            return tuple(map(str, counts))


class Course:
    """Changes of revision under traffic: a table of the states, and the traffic's counts so far."""

    def __init__(self, traffic: DemoTraffic) -> None:
        self.traffic = traffic
        self.table = Table("step", "state", "by 1", "by 2", "failed", "stale")

    def note(self, step: str, rollout: rankloom.Rollout) -> None:
        """Adds a row, after some more traffic."""
        time.sleep(TURN_S)
        self.table.add_row(step, rollout.state.value, *self.traffic.row())


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A running server: the bundle that it began with, and where it takes rankings and rollouts."""

    bundle: Path
    address: str
    operator: rankloom.RolloutClient


@contextmanager
def served(bundle: Path) -> Iterator[DemoServer]:
    """Runs a server of the bundle, with the events beside it. Raises ServerStartError."""
    events = ("--events", str(events_beside(bundle)))
    with (
        tempfile.TemporaryDirectory() as state,
        serving_rollouts(bundle, Path(state), *events) as (address, rollouts),
        rankloom.RolloutClient(rollouts) as operator,
    ):
        yield DemoServer(bundle, address, operator)


def roll_out(server: DemoServer, bundle: Path, console: Console) -> int | None:
    """Rolls a bundle out while clients rank, and prints what they got. Returns its revision.

    It is staged, half of the users are moved to it, and the rest follow if it passes its gates;
    None if it does not.
    """
    console.rule("new experts, live")
    with _ranking(server, FIRST) as course:
        promoted = _promoted(server.operator, course, bundle)
    console.print(course.table)
    return promoted


def roll_back(server: DemoServer, revision: int, console: Console) -> None:
    """Takes a promotion back while clients rank, and prints what they got."""
    console.rule("and back")
    with _ranking(server, revision) as course:
        course.traffic.serving = 0
        rolled_back = server.operator.roll_back(revision, reason="end of the demonstration")
        course.traffic.serving = FIRST
        course.note("roll back", rolled_back)
    console.print(course.table)


def _promoted(operator: rankloom.RolloutClient, course: Course, bundle: Path) -> int | None:
    """Stage, canary, promote."""
    staged = operator.stage(str(bundle.resolve()))
    revision = staged.revision
    course.note("stage the new bundle", staged)
    course.traffic.serving = 0
    gates = _gates(course.traffic.num_users)
    canary = operator.start_canary(revision, PERCENT, gates=gates)
    course.note(f"canary of {PERCENT} %", canary)
    judged = _judged(operator, revision)
    if judged.state is not rankloom.RolloutState.CANARY or not _passed(judged):
        reason = judged.judgement.reason if judged.judgement else judged.reason
        course.note(f"not promoted: {reason}", judged)
        return None
    course.note(f"gates passed after {_num_users(judged)} users", judged)
    promoted = operator.promote(revision)
    course.traffic.serving = revision
    course.note("promote", promoted)
    return revision


def _gates(num_users: int) -> rankloom.GateSpec:
    """A canary of PERCENT = 50 gets half of the users; half of them suffice for a verdict."""
    enough = max(MIN_USERS, min(MAX_USERS, num_users // 4))
    return dataclasses.replace(GATES, min_samples=enough)


def _judged(operator: rankloom.RolloutClient, revision: int) -> rankloom.Rollout:
    """The revision once its trial has a verdict, or after TRIAL_S."""
    end = time.monotonic() + TRIAL_S
    while True:
        found = operator.get(revision)
        canary = found.state is rankloom.RolloutState.CANARY
        if not canary or _passed(found) or time.monotonic() > end:
            return found
        time.sleep(0.2)


def _passed(rollout: rankloom.Rollout) -> bool:
    judgement = rollout.judgement
    return judgement is not None and judgement.outcome is rankloom.GateOutcome.PASSED


def _num_users(rollout: rankloom.Rollout) -> int:
    gates = rollout.judgement.gates if rollout.judgement else ()
    return min((gate.samples for gate in gates if not gate.group), default=0)


@contextmanager
def _ranking(server: DemoServer, serving: int) -> Iterator[Course]:
    """Clients that rank for one user after the other until the block ends.

    ``serving``: the revision that must answer them.
    """
    provider, stop = load_features(open_bundle(server.bundle)).provider, threading.Event()
    with events_of_bundle(server.bundle) as events:
        users = list(events.users())
    traffic = DemoTraffic(len(users), serving)
    items = provider.catalogue.item_ids
    threads = [
        threading.Thread(
            target=_call,
            args=(server.address, users[n::NUM_CALLERS], items[:NUM_CANDIDATES], traffic, stop),
        )
        for n in range(NUM_CALLERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield Course(traffic)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _call(
    address: str,
    users: Sequence[str],
    items: Sequence[str],
    traffic: DemoTraffic,
    stop: threading.Event,
) -> None:
    with rankloom.Client(address, timeout_s=TIMEOUT_S) as client:
        for user in itertools.cycle(users):
            if stop.is_set():
                return
            expected = traffic.serving
            try:
                found = client.rank(items, user=user).revision.number
            except rankloom.RankloomError:
                found = None
            traffic.count(expected, found)
