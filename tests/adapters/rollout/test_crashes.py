"""Killed at any line, a server comes back to where its last acknowledged command led."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.rollout import crashing
from adapters.rollout.commands import in_state, states
from rankloom_adapters.rollout.states import LOADED, Rollout, State

NUM_KILLS = 120
# The states of each generation in the order in which the run leads through them.
COURSES = {
    1: [State.ACTIVE, State.WARMED, State.RETIRED],
    2: [State.WARMED, State.SHADOW, State.CANARY, State.ACTIVE, State.ROLLED_BACK],
    3: [State.WARMED, State.ACTIVE],
}
_COMMAND = [sys.executable, crashing.__file__]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a server whose first generation is active."""
    folder = tmp_path_factory.mktemp("serving")
    with crashing.opened(folder) as server:
        asyncio.run(crashing.first_serving(server, folder))
    return folder


def run(folder: Path, lines: int) -> tuple[int, list[tuple[int, State]], str]:
    """Exit status, what was acknowledged, and where the process died."""
    done = subprocess.run([*_COMMAND, str(folder), str(lines)], capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return done.returncode, [(int(n), State(state)) for n, state in rows], done.stderr.strip()


def num_lines(folder: Path) -> int:
    """How many lines a whole run has, to a few."""
    low, high = 0, 1 << 14
    while high - low > 8:
        middle = (low + high) // 2
        copy = folder.with_name("counted")
        shutil.copytree(folder, copy)
        low, high = (middle, high) if run(copy, middle)[0] else (low, middle)
        shutil.rmtree(copy)
    return low


def check(folder: Path, acknowledged: list[tuple[int, State]]) -> None:
    """Starts from what the dead process left."""
    with crashing.opened(folder) as server:
        found = server.registry.ledger
        assert len(in_state(found, State.ACTIVE)) == 1
        follows(found.rollouts, acknowledged)
        asyncio.run(server.manager.start())
        ledger = server.manager.ledger
        assert ledger.active == found.active
        with server.generations.lease() as lease:
            assert lease.number == ledger.active
        loaded = {number for number, state in states(ledger).items() if state in LOADED}
        assert set(server.generations.serving) == loaded
        assert not in_state(ledger, State.STAGED), "taken up again"
        rollouts = ledger.rollouts.values()
        needed = {each.bundle_digest for each in rollouts if each.state is not State.RETIRED}
        assert server.store.digests == needed
        assert not list((folder / "bundles").glob(".*"))


def follows(rollouts: Mapping[int, Rollout], acknowledged: list[tuple[int, State]]) -> None:
    """Each acknowledged state is there, or one that a later command of the run leads to."""
    for number, state in acknowledged:
        course = COURSES[number]
        assert course.index(rollouts[number].state) >= course.index(state)


def test_it_comes_back_from_wherever_it_dies(serving: Path) -> None:
    total, dice = num_lines(serving), random.Random(0)
    places = set()
    for lines in sorted(dice.sample(range(total), NUM_KILLS)):
        folder = serving.with_name(f"killed-{lines}")
        shutil.copytree(serving, folder)
        status, acknowledged, place = run(folder, lines)
        assert status == -signal.SIGKILL
        places.add(place)
        check(folder, acknowledged)
        shutil.rmtree(folder)
    assert len(places) >= 40


def test_a_run_that_is_left_alone_acknowledges_all(serving: Path) -> None:
    folder = serving.with_name("whole")
    shutil.copytree(serving, folder)
    status, acknowledged, _ = run(folder, 1 << 30)
    assert (status, len(acknowledged)) == (0, 8)
    check(folder, acknowledged)
