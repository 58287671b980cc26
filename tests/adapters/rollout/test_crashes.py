"""Killed at any line, a server comes back to where its last acknowledged command led."""

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
# The states of each revision in the order in which the run leads through them.
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
    """Makes processes that die where they are told to."""
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
    """Exit status, what was acknowledged, and where the process died."""
    assert maker.stdin is not None
    assert maker.stdout is not None
    maker.stdin.write(json.dumps([str(folder), *where]) + "\n")
    maker.stdin.flush()
    status, out, told = json.loads(maker.stdout.readline())
    rows = [line.split() for line in out.splitlines()]
    return status, [(int(n), RolloutState(state)) for n, state in rows], told


@pytest.fixture(scope="module")
def places(processes: Processes, serving: Path) -> Counter[str]:
    """The lines that a whole run goes through, and how often."""
    folder = serving.with_name("counted")
    shutil.copytree(serving, folder)
    status, acknowledged, told = run(processes, folder, 1 << 30)
    assert (status, len(acknowledged)) == (0, 8)
    check(folder, acknowledged)
    return Counter(json.loads(told))


def killed(maker: Processes, serving: Path, *where: object) -> str:
    """Kills a run somewhere, starts from what it left, and gives the place."""
    folder = serving.with_name("killed")
    shutil.copytree(serving, folder)
    try:
        status, acknowledged, place = run(maker, folder, *where)
        assert status == -signal.SIGKILL
        check(folder, acknowledged)
    finally:
        shutil.rmtree(folder)
    return place


def check(folder: Path, acknowledged: list[tuple[int, RolloutState]]) -> None:
    """Starts from what the dead process left."""
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
    """Each acknowledged state is there, or one that a later command of the run leads to."""
    for number, state in acknowledged:
        course = COURSES[number]
        assert course.index(rollouts[number].state) >= course.index(state)


def test_it_comes_back_from_wherever_it_dies(
    processes: Processes, serving: Path, places: Counter[str]
) -> None:
    # A few lines short: how far threads come before one another differs a little.
    total, dice = places.total() * 9 // 10, random.Random(0)
    died = {killed(processes, serving, at) for at in dice.sample(range(total), NUM_KILLS)}
    assert len(died) > NUM_KILLS // 2, "kills at few places show little"


def test_it_comes_back_from_each_step_of_writing(
    processes: Processes, serving: Path, places: Counter[str]
) -> None:
    """Before each line that writes, registers, links, moves, syncs or lets go: five times each."""
    steps = [place for place in sorted(places) if place.split(":")[0] in STEPS]
    assert len(steps) >= 40
    assert {place.split(":")[0] for place in steps} == STEPS, "a name that is none kills nothing"
    for place in steps:
        times = places[place]
        for turn in range(TIMES):
            assert killed(processes, serving, place, 1 + turn * (times - 1) // (TIMES - 1)) == place
