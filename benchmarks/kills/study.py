"""Kills a server at random times, and compares what comes back with what was acknowledged."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.common.bundles import calls_of
from benchmarks.common.rollout_operator import (
    ExpertWriter,
    OperatorError,
    RolloutOperator,
    operating,
)
from benchmarks.common.server_process import ServerProcess, await_serving, start_server
from benchmarks.common.timing import progress
from rankloom_proto.v1 import rollout_pb2

KILLED_AFTER_S = (0.05, 1.5)
ROLLED_BACK = 3  # every third promotion is rolled back
SEED = 0
_FINAL = (rollout_pb2.ROLLOUT_STATE_ACTIVE, rollout_pb2.ROLLOUT_STATE_RETIRED)


@dataclass(slots=True)
class AcknowledgedState:
    """What was acknowledged. ``pending``: where a promotion or rollback under way leads."""

    active: int = 1
    pending: int = 1
    retired: set[int] = field(default_factory=set[int])
    num_acknowledged: int = 0


@dataclass(frozen=True, slots=True)
class KillStudy:
    """``seconds``: from each start to the first answer. ``lost``: what should not have happened."""

    seconds: Sequence[float]
    num_acknowledged: int
    lost: Sequence[str] = field(default_factory=list[str])


def run_kill_study(bundle: Path, folder: Path, num_kills: int) -> KillStudy:
    """Raises ServerProcessError or OperatorError if a server fails to start or refuses."""
    dice, truth = random.Random(SEED), AcknowledgedState()
    experts = ExpertWriter(bundle, ["global"], folder / "expert")
    call, seconds, lost = calls_of(bundle)[0], list[float](), list[str]()
    for number in range(num_kills + 1):
        began = time.monotonic()
        process = start_server(bundle, folder / "state", threads=1, cache_mib=1)
        try:
            server = await_serving(process, folder / "state")
            with operating(server.ranking, server.rollout, [call], f"start-{number}") as operator:
                wrong = _first_answer(operator, truth)
                seconds.append(time.monotonic() - began)
                lost += [f"start {number}: {each}" for each in wrong]
                if number < num_kills:
                    delay_s = dice.uniform(*KILLED_AFTER_S)
                    _kill_after(delay_s, server, operator, experts, truth)
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        progress(f"kill {number} of {num_kills}: back after {seconds[-1]:.1f} s")
    return KillStudy(seconds[1:], truth.num_acknowledged, lost)


def _first_answer(operator: RolloutOperator, truth: AcknowledgedState) -> list[str]:
    """Ranks once; returns what is wrong with the state after the restart."""
    [answer] = operator.rank()
    found = operator.revisions()
    wrong = faults(truth, answer.revision.number, found)
    truth.active = truth.pending = found.active
    return wrong


def faults(truth: AcknowledgedState, answered_by: int, found: rollout_pb2.Revisions) -> list[str]:
    """How the server's revisions differ from what was acknowledged."""
    states = {each.revision: each.state for each in found.rollouts}
    num_active = sum(state == rollout_pb2.ROLLOUT_STATE_ACTIVE for state in states.values())
    back = [n for n in truth.retired if states.get(n, _FINAL[1]) != _FINAL[1]]
    wrong = {
        f"{num_active} revisions are active": num_active != 1,
        f"revision {answered_by} answers, {found.active} is active": answered_by != found.active,
        f"revision {found.active} is active, {truth.active} was acknowledged": (
            found.active not in (truth.active, truth.pending)
        ),
        f"revisions {back} are no longer retired": bool(back),
    }
    return [fault for fault, is_so in wrong.items() if is_so]


def _kill_after(
    seconds: float,
    server: ServerProcess,
    operator: RolloutOperator,
    experts: ExpertWriter,
    truth: AcknowledgedState,
) -> None:
    """Rolls out on a thread until the server is killed. Raises OperatorError."""
    failures, is_gone = list[OperatorError](), threading.Event()

    def operate() -> None:
        try:
            _clear(operator, truth)
            while True:
                _roll_out(operator, experts, truth)
        except OperatorError as error:
            if not is_gone.is_set():
                failures.append(error)

    thread = threading.Thread(target=operate)
    thread.start()
    try:
        time.sleep(seconds)
    finally:  # after Ctrl-C too, so that the thread ends
        is_gone.set()
        os.kill(server.pid, signal.SIGKILL)
        thread.join()
    if failures:
        raise failures[0]


def _clear(operator: RolloutOperator, truth: AcknowledgedState) -> None:
    """Retires what the last kill left half done."""
    for each in operator.revisions().rollouts:
        if each.state not in _FINAL:
            _retire(operator, truth, each.revision)


def _roll_out(operator: RolloutOperator, experts: ExpertWriter, truth: AcknowledgedState) -> None:
    """Stages, promotes, rolls some back, and retires the revision that is not active."""
    before = truth.active
    new = operator.stage(*experts.write(truth.num_acknowledged), before)
    truth.num_acknowledged += 1
    _switch(truth, new, partial(operator.promote, new, before))
    inactive = before
    if new % ROLLED_BACK == 0:
        _switch(truth, before, partial(operator.roll_back, new, new))
        inactive = new
    _retire(operator, truth, inactive)


def _switch(truth: AcknowledgedState, to: int, command: Callable[[], None]) -> None:
    truth.pending = to
    command()
    truth.active = to
    truth.num_acknowledged += 1


def _retire(operator: RolloutOperator, truth: AcknowledgedState, revision: int) -> None:
    operator.retire(revision, truth.active)
    truth.retired.add(revision)
    truth.num_acknowledged += 1
