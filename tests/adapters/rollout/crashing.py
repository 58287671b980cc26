"""A process that rolls out bundles, prints what was acknowledged, and kills itself at a line.

Each line of standard input starts one such process, by a fork, which saves the imports. One
line of JSON is the answer when it has ended:

    ["FOLDER", LINES]
    ["FOLDER", "LOCATION", TIMES]

It kills itself after LINES lines of rankloom_adapters, or when the line LOCATION has run TIMES
times: no handler runs and nothing is flushed. Otherwise it goes to its end and reports which
lines have run, and how often.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import rankloom_adapters
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_adapters.revision import Revisions
from rankloom_adapters.rollout.loaded import Loader
from rankloom_adapters.rollout.manager import RolloutManager
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import Rollout, RolloutCommand, RolloutState, Verb
from rankloom_adapters.store import BundleStore

_OURS = str(Path(rankloom_adapters.__file__).parent)


class CrashingServer:
    """A rollout manager on the files of a folder; a loaded bundle is the name in its metadata."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.revisions = Revisions[str]()
        self.registry = registry
        self.store = BundleStore(folder / "bundles")
        loader = Loader(self._load, lambda _: None)
        self.manager = RolloutManager(registry, self.store, self.revisions, loader)

    async def start(self) -> None:
        """As a server does."""
        await self.manager.start()
        await self.manager.resume()

    async def _load(self, folder: Path) -> str:
        bundle = open_bundle(folder)
        bundle.check()
        return str(bundle.metadata["name"])


@contextmanager
def opened(folder: Path) -> Iterator[CrashingServer]:
    with Registry(folder / "registry.sqlite") as registry:
        yield CrashingServer(registry, folder)


def write_bundle(folder: Path, name: str) -> Path:
    source = folder / f"source-{name}"
    if not source.exists():
        source.mkdir()
        (source / "part").write_text(name)
        (source / "same").write_text("in every bundle")
        seal(source, {"name": name})
    return source


async def roll_out(server: CrashingServer, folder: Path) -> None:
    """Rolls a second revision back, promotes a third one, and retires the first."""
    await server.start()
    await _stage(server, folder, "second", 1)
    await _change(server, Verb.SHADOW, 2, 1)
    await _change(server, Verb.CANARY, 2, 1, percent=20)
    await _change(server, Verb.PROMOTE, 2, 1)
    await _change(server, Verb.ROLL_BACK, 2, 2)
    await _stage(server, folder, "third", 1)
    await _change(server, Verb.PROMOTE, 3, 1)
    await _change(server, Verb.RETIRE, 1, 3)


async def _stage(server: CrashingServer, folder: Path, name: str, expected: int) -> None:
    acknowledge(await server.manager.stage(write_bundle(folder, name), expected, f"stage {name}"))


async def _change(
    server: CrashingServer, verb: Verb, revision: int, expected: int, percent: int = 0
) -> None:
    key = f"{verb.value} {revision}"
    forced = verb is Verb.PROMOTE
    command = RolloutCommand(verb, revision, expected, key, percent=percent, forced=forced)
    acknowledge(await server.manager.change(command))


def acknowledge(rollout: Rollout) -> None:
    print(rollout.revision, rollout.state.value, flush=True)


async def first_serving(server: CrashingServer, folder: Path) -> None:
    """Revision 1 is active."""
    await server.manager.stage(write_bundle(folder, "first"), 0, "stage first")
    active = await server.manager.change(RolloutCommand(Verb.PROMOTE, 1, 0, "promote 1"))
    assert active.state is RolloutState.ACTIVE


@cache
def _is_ours(file: str) -> bool:
    return file.startswith(_OURS)


@cache
def _location(code: CodeType, line: int) -> str:
    return f"{Path(code.co_filename).stem}.{code.co_name}:{line}"


class Killer:
    """Counts the lines that run in all threads, and kills the process at one of them."""

    def __init__(self, lines: int, location: str = "", times: int = 0) -> None:
        self.left, self.location, self.times = lines, location, times
        self.locations: Counter[str] = Counter()

    def begin(self) -> None:
        threading.settrace(self.trace)  # threads that start later
        sys.settrace(self.trace)

    def end(self) -> None:
        sys.settrace(None)
        threading.settrace(None)
        os.write(2, json.dumps(self.locations).encode())

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401
        if not _is_ours(frame.f_code.co_filename):
            return None
        if event == "line":
            self._count(frame)
        return self.trace

    def _count(self, frame: FrameType) -> None:
        location = _location(frame.f_code, frame.f_lineno)
        self.locations[location] += 1
        self.left -= 1
        if self.left < 0 or (location == self.location and self.locations[location] == self.times):
            os.write(2, location.encode())
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, where: Sequence[object], out: int, report: int) -> None:
    """A run in this process, which may kill it."""
    os.dup2(out, 1)
    os.dup2(report, 2)
    killer = Killer(1 << 30, *where) if len(where) == 2 else Killer(*where)  # type: ignore[arg-type]
    for name in ("second", "third"):
        write_bundle(folder, name)
    with opened(folder) as server:
        killer.begin()
        asyncio.run(roll_out(server, folder))
        killer.end()


def main() -> None:
    for line in sys.stdin:
        folder, *where = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as report:
            child = os.fork()
            if not child:
                run(Path(folder), where, out.fileno(), report.fileno())
                os._exit(0)
            _, status = os.waitpid(child, 0)
            texts = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, report)]
        print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)


if __name__ == "__main__":
    main()
