"""Kills a server at random times, and holds what comes back to what was acknowledged."""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from measure import progress
from serve_bundle import calls_of
from swap_operator import Experts, Operator, OperatorError, operating
from swap_server import Server, serving_by, started

from rankloom_proto.v1 import rollout_pb2

ASKED_S = 5.0  # within which a tiny bundle is to serve again
KILLED_AFTER_S = (0.05, 1.5)
BACK_OF_TURNS = 3  # every third promotion is rolled back
SEED = 0
_STAY = (rollout_pb2.ROLLOUT_STATE_ACTIVE, rollout_pb2.ROLLOUT_STATE_RETIRED)


@dataclass(slots=True)
class Truth:
    """What was acknowledged. ``asked``: where a promotion or rollback under way leads."""

    active: int = 1
    asked: int = 1
    retired: set[int] = field(default_factory=set[int])
    num_acknowledged: int = 0


@dataclass(frozen=True, slots=True)
class Study:
    """``seconds``: from each start to the first answer. ``lost``: what should not have been."""

    seconds: Sequence[float]
    num_acknowledged: int
    lost: Sequence[str] = field(default_factory=list[str])


def study(bundle: Path, folder: Path, num_kills: int) -> Study:
    """Raises ServerError where a server does not come back, OperatorError where it refuses."""
    dice, truth = random.Random(SEED), Truth()
    experts = Experts(bundle, ["global"], folder / "expert")
    call, seconds, lost = calls_of(bundle)[0], list[float](), list[str]()
    for number in range(num_kills + 1):
        began = time.monotonic()
        process = started(bundle, folder / "state", threads=1, cache_mib=1)
        try:
            server = serving_by(process, folder / "state")
            with operating(server.ranking, server.rollout, [call], f"start-{number}") as operator:
                told = _first_answer(operator, truth)
                seconds.append(time.monotonic() - began)
                lost += [f"start {number}: {each}" for each in told]
                if number < num_kills:
                    _killed(server, operator, experts, truth, dice.uniform(*KILLED_AFTER_S))
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        progress(f"kill {number} of {num_kills}: back after {seconds[-1]:.1f} s")
    return Study(seconds[1:], truth.num_acknowledged, lost)


def _first_answer(operator: Operator, truth: Truth) -> list[str]:
    """What is wrong with the state that a server came back with."""
    [answer] = operator.rank()
    found = operator.revisions()
    wrong = faults(truth, answer.revision.number, found)
    truth.active = truth.asked = found.active
    return wrong


def faults(truth: Truth, answered_by: int, found: rollout_pb2.Revisions) -> list[str]:
    """What of the revisions that are there was not acknowledged."""
    states = {each.revision: each.state for each in found.rollouts}
    num_active = sum(state == rollout_pb2.ROLLOUT_STATE_ACTIVE for state in states.values())
    back = [n for n in truth.retired if states.get(n, _STAY[1]) != _STAY[1]]
    wrong = {
        f"{num_active} revisions are active": num_active != 1,
        f"{answered_by} answers, {found.active} is active": answered_by != found.active,
        f"{found.active} is active, {truth.active} was acknowledged": (
            found.active not in (truth.active, truth.asked)
        ),
        f"{back} are not retired any more": bool(back),
    }
    return [told for told, is_so in wrong.items() if is_so]


def _killed(server: Server, operator: Operator, experts: Experts, truth: Truth, s: float) -> None:
    """Rolls out on a thread until the server is gone. Raises OperatorError."""
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
    time.sleep(s)
    is_gone.set()
    os.kill(server.pid, signal.SIGKILL)
    thread.join()
    if failures:
        raise failures[0]


def _clear(operator: Operator, truth: Truth) -> None:
    """Lets go of what the last kill left half done."""
    for each in operator.revisions().rollouts:
        if each.state not in _STAY:
            _retire(operator, truth, each.revision)


def _roll_out(operator: Operator, experts: Experts, truth: Truth) -> None:
    """Stages, promotes, rolls some back, and lets go of what is not active."""
    before = truth.active
    new = operator.stage(*experts.write(truth.num_acknowledged), before)
    truth.num_acknowledged += 1
    _lead(truth, new, partial(operator.promote, new, before))
    over = before
    if new % BACK_OF_TURNS == 0:
        _lead(truth, before, partial(operator.roll_back, new))
        over = new
    _retire(operator, truth, over)


def _lead(truth: Truth, to: int, command: Callable[[], None]) -> None:
    truth.asked = to
    command()
    truth.active = to
    truth.num_acknowledged += 1


def _retire(operator: Operator, truth: Truth, number: int) -> None:
    operator.retire(number, truth.active)
    truth.retired.add(number)
    truth.num_acknowledged += 1


def figures(study: Study) -> dict[str, object]:
    """Everything that was found, as it goes into the JSON file."""
    return {
        "kills": len(study.seconds),
        "lost": len(study.lost),
        "examples": list(study.lost[:10]),
        "acknowledged": study.num_acknowledged,
        "start_s": {
            "p50": round(statistics.median(study.seconds), 2),
            "least": round(min(study.seconds), 2),
            "most": round(max(study.seconds), 2),
            "over": sum(each > ASKED_S for each in study.seconds),
        },
        "seconds": [round(each, 3) for each in study.seconds],
    }


def table(study: Study) -> str:
    """Markdown: what was found and what is asked."""
    seconds = study.seconds
    over = sum(each > ASKED_S for each in seconds)
    return "\n".join(
        [
            "| kill -9 at random | | asked |",
            "|---|---|---|",
            f"| kills | {len(seconds)} | |",
            f"| commands acknowledged | {study.num_acknowledged} | |",
            f"| lost, or not as acknowledged | {len(study.lost)} | 0 |",
            f"| exec to the first answer, median | {statistics.median(seconds):.1f} s | |",
            f"| least and most | {min(seconds):.1f} to {max(seconds):.1f} s | |",
            f"| over {ASKED_S:.0f} s | {over} | 0 |",
        ]
    )
