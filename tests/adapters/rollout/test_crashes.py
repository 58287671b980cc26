"""Killed at any line, a server restarts in the state of its last acknowledged command."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from adapters.rollout import crashing
from adapters.rollout.commands import in_state, states
from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.rollout.states import LOADED, Rollout, RolloutState

NUM_KILLS = 200
TIMES = 5
STEPS = {
    *("registry.carry_out", "registry._append"),
    *("store.put", "store._copy", "store._write", "store._sync", "store._linked", "store.remove"),
    *("store._move_into_place", "staging.stage", "staging._prune", "staging._warm"),
    *("manager._change", "manager._follow", "loaded.follow", "loaded.load"),
    *("writer.carry_out", "writer.carry_out_own"),
}
# The states of each revision in the order of the run.
COURSES = {
    1: [RolloutState.ACTIVE, RolloutState.WARMED, RolloutState.RETIRED],
    2: [
        RolloutState.WARMED,
        RolloutState.SHADOW,
        RolloutState.CANARY,
        RolloutState.ACTIVE,
        RolloutState.ROLLED_BACK,
    ],
    3: [RolloutState.WARMED, RolloutState.ACTIVE],
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a server whose first revision is active."""
    folder = tmp_path_factory.mktemp("serving")
    with crashing.opened(folder) as server:
        asyncio.run(crashing.first_serving(server, folder))
    return folder


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
    """Starts processes that kill themselves at a chosen line."""
    command = [sys.executable, crashing.__file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as maker:
        yield maker
        assert maker.stdin is not None
        maker.stdin.close()


Processes = subprocess.Popen[str]


def run(
    maker: Processes, folder: Path, *where: object
) -> tuple[int, list[tuple[int, RolloutState]], str]:
    """Exit status, acknowledged states, and the line where the process died."""
    assert maker.stdin is not None
    assert maker.stdout is not None
    maker.stdin.write(json.dumps([str(folder), *where]) + "\n")
    maker.stdin.flush()
    status, out, report = json.loads(maker.stdout.readline())
    rows = [line.split() for line in out.splitlines()]
    return status, [(int(n), RolloutState(state)) for n, state in rows], report


@pytest.fixture(scope="module")
def lines(processes: Processes, serving: Path) -> Counter[str]:
    """The lines of a whole run, and how often each ran."""
    folder = serving.with_name("counted")
    shutil.copytree(serving, folder)
    status, acknowledged, report = run(processes, folder, 1 << 30)
    assert (status, len(acknowledged)) == (0, 8)
    check(folder, acknowledged)
    return Counter(json.loads(report))


def killed(maker: Processes, serving: Path, *where: object) -> str:
    """Kills a run somewhere, starts from what it left, and gives the line."""
    folder = serving.with_name("killed")
    shutil.copytree(serving, folder)
    try:
        status, acknowledged, line = run(maker, folder, *where)
        assert status == -signal.SIGKILL
        check(folder, acknowledged)
    finally:
        shutil.rmtree(folder)
    return line


def check(folder: Path, acknowledged: list[tuple[int, RolloutState]]) -> None:
    """Restarts from the files of the dead process."""
    with crashing.opened(folder) as server:
        found = server.registry.ledger
        assert len(in_state(found, RolloutState.ACTIVE)) == 1
        follows(found.rollouts, acknowledged)
        asyncio.run(server.start())
        ledger = server.manager.ledger
        assert ledger.active == found.active
        with server.revisions.lease() as lease:
            assert lease.number == ledger.active
        loaded = {number for number, state in states(ledger).items() if state in LOADED}
        assert set(server.revisions.serving) == loaded
        for cut_short in in_state(
            ledger, RolloutState.STAGED
        ):  # it goes on when it is asked for again
            kept = server.store.folder_of(cut_short.bundle_digest)
            key = f"stage {open_bundle(kept).metadata['name']}"
            again = asyncio.run(server.manager.stage(kept, 1, key))
            assert (again.revision, again.state) == (cut_short.revision, RolloutState.WARMED)
        rollouts = ledger.rollouts.values()
        needed = {each.bundle_digest for each in rollouts if each.state is not RolloutState.RETIRED}
        assert server.store.digests == needed
        assert not list((folder / "bundles").glob(".*"))


def follows(rollouts: Mapping[int, Rollout], acknowledged: list[tuple[int, RolloutState]]) -> None:
    """Each revision is in its acknowledged state, or in a later one of the run."""
    for number, state in acknowledged:
        course = COURSES[number]
        assert course.index(rollouts[number].state) >= course.index(state)


def test_it_comes_back_from_wherever_it_dies(
    processes: Processes, serving: Path, lines: Counter[str]
) -> None:
    # Not up to the last line: the number of lines differs a little with the timing of threads.
    total, dice = lines.total() * 9 // 10, random.Random(0)
    died = {killed(processes, serving, at) for at in dice.sample(range(total), NUM_KILLS)}
    assert len(died) > NUM_KILLS // 2, "kills at few lines show little"


def test_it_comes_back_from_each_step_of_writing(
    processes: Processes, serving: Path, lines: Counter[str]
) -> None:
    """Kills it five times before each line of the functions that change files or state."""
    steps = [line for line in sorted(lines) if line.split(":")[0] in STEPS]
    assert len(steps) >= 40
    assert {line.split(":")[0] for line in steps} == STEPS, "a wrong name would kill nothing"
    for line in steps:
        times = lines[line]
        for turn in range(TIMES):
            assert killed(processes, serving, line, 1 + turn * (times - 1) // (TIMES - 1)) == line
