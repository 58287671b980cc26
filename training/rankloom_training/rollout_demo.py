"""The demonstration's last part: an expert is rolled out and back while clients rank."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from rich.console import Console
from rich.table import Table

import rankloom
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_ranker.loaded import bundled_experts, load_features
from rankloom_training.serving import serving_rollouts
from rankloom_training.user_events import events_of_bundle

EXPERT, CHANGE = "global", 1.05
NUM_CALLERS, NUM_CANDIDATES = 2, 6
PERCENT, MIN_USERS, MAX_USERS = 50, 5, 60
MAX_LATENCY_RATIO = 2.0  # two clients on a busy machine wait for each other
TRIAL_S, TURN_S, TIMEOUT_S = 90.0, 2.0, 10.0


@dataclass(eq=False)
class DemoTraffic:
    """Counts answers by revision. Thread-safe.

    ``serving``: the revision that must answer calls from now on; 0 if either may.
    """

    num_users: int
    serving: int = 1
    answered: Counter[int] = field(default_factory=Counter)
    num_failed: int = 0
    num_stale: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, expected: int, found: int | None) -> None:
        """One call: the revision that had to answer (0: any), and that did (None: it failed)."""
        with self.lock:
            self.num_failed += found is None
            self.num_stale += found is not None and expected not in (0, found)
            self.answered[found or 0] += found is not None

    def row(self) -> tuple[str, ...]:
        """Table cells: answers by revision 1 and 2, failed calls, stale answers."""
        with self.lock:
            counts = (self.answered[1], self.answered[2], self.num_failed, self.num_stale)
            return tuple(map(str, counts))


def roll_out(bundle: Path, console: Console) -> None:
    """Rolls a new expert out on a server under load, and prints what the clients got."""
    console.rule("a new expert, live")
    with tempfile.TemporaryDirectory() as folder:
        expert = _new_expert(open_bundle(bundle), Path(folder) / "expert")
        with (
            serving_rollouts(bundle, Path(folder) / "state") as (address, rollouts),
            rankloom.RolloutClient(rollouts) as operator,
            _ranking(bundle, address) as traffic,
        ):
            console.print(_course(operator, traffic, expert, _gates(traffic.num_users)))


def _gates(num_users: int) -> rankloom.GateSpec:
    """A canary of PERCENT = 50 gets half of the users; half of them suffice for a verdict."""
    enough = max(MIN_USERS, min(MAX_USERS, num_users // 4))
    return rankloom.GateSpec(min_samples=enough, max_latency_ratio=MAX_LATENCY_RATIO)


def _new_expert(bundle: Bundle, folder: Path) -> Path:
    """A stand-in for a retrained expert: the bundle's own with slightly larger weights."""
    folder.mkdir()
    [expert] = bundled_experts(bundle, [EXPERT])
    tensors = safetensors.numpy.load(expert.weights.read())
    grown = {name: np.asarray(array * CHANGE) for name, array in tensors.items()}
    (folder / CONFIG_FILE).write_bytes(expert.config.read())
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(grown))
    return folder


def _course(
    operator: rankloom.RolloutClient, traffic: DemoTraffic, expert: Path, gates: rankloom.GateSpec
) -> Table:
    """Stage, canary, promote, roll back. Each table row has the traffic counts so far."""
    table = Table("step", "state", "by 1", "by 2", "failed", "stale")

    def note(step: str, rollout: rankloom.Rollout) -> None:
        time.sleep(TURN_S)
        table.add_row(step, rollout.state.value, *traffic.row())

    staged = operator.stage_expert(EXPERT, str(expert))
    revision = staged.revision
    note(f"stage a new {EXPERT} expert", staged)
    traffic.serving = 0
    note(f"canary of {PERCENT} %", operator.start_canary(revision, PERCENT, gates=gates))
    judged = _judged(operator, revision)
    if judged.state is not rankloom.RolloutState.CANARY or not _passed(judged):
        note(
            f"not promoted: {judged.judgement.reason if judged.judgement else judged.reason}",
            judged,
        )
        return table
    note(f"gates passed after {_num_users(judged)} users", judged)
    promoted = operator.promote(revision)
    traffic.serving = revision
    note("promote", promoted)
    traffic.serving = 0
    rolled_back = operator.roll_back(revision, reason="end of the demonstration")
    traffic.serving = 1
    note("roll back", rolled_back)
    return table


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
def _ranking(bundle: Path, address: str) -> Iterator[DemoTraffic]:
    """Clients that rank for one user after the other until the block ends."""
    provider, stop = load_features(open_bundle(bundle)).provider, threading.Event()
    with events_of_bundle(bundle) as events:
        users = list(events.users())
    traffic = DemoTraffic(len(users))
    items = [item.item_id for item in provider.catalogue.items]
    threads = [
        threading.Thread(
            target=_call,
            args=(address, users[n::NUM_CALLERS], items[:NUM_CANDIDATES], traffic, stop),
        )
        for n in range(NUM_CALLERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield traffic
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
