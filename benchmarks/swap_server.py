"""A server with a state, in a process of its own, and what that process holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_S = 30.0
EXPERT_CACHE_MIB = 1  # full before memory is looked at
ROLLOUT_SERVICE = "rankloom.v1.RolloutService"


class ServerError(Exception):
    """The server did not start, or did not stop as it should; the message says more."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds at one moment."""

    rss_mib: float
    fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it ranks, where it takes rollouts, and its process."""

    ranking: str
    rollout: str
    pid: int
    state: Path

    def holding(self) -> Holding:
        """What it holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        rss_mib = int(fields["VmRSS"].split()[0]) / 1024
        fds = len(os.listdir(f"/proc/{self.pid}/fd"))
        return Holding(rss_mib, fds, int(fields["Threads"]))

    def num_bundles(self) -> int:
        """How many it keeps on disk."""
        return sum(not path.name.startswith(".") for path in (self.state / "bundles").iterdir())


@contextmanager
def serving(bundle: Path, state: Path, *, threads: int, cache_mib: int) -> Iterator[Server]:
    """Runs ``rankloom serve``; it is stopped, and waited for, when the body ends.

    Raises ServerError.
    """
    process = started(bundle, state, threads=threads, cache_mib=cache_mib)
    try:
        yield serving_by(process, state)
    finally:
        _stop(process)
    if process.returncode:
        raise ServerError(f"the server ended with {process.returncode}")


def started(bundle: Path, state: Path, *, threads: int, cache_mib: int) -> subprocess.Popen[bytes]:
    """The process of a server, which does not serve yet."""
    flags = {"bundle": bundle, "state": state, "threads": threads, "port": 0, "rollout-port": 0}
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    caches = {"PREFIX": cache_mib, "EXPERT": EXPERT_CACHE_MIB}
    return subprocess.Popen(
        [sys.executable, "-m", "rankloom", "serve", *given],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Ctrl-C reaches the whole terminal group; this process decides when the server stops.
        start_new_session=True,
        env=os.environ | {f"RANKLOOM_{k}_CACHE_MIB": str(mib) for k, mib in caches.items()},
    )


def serving_by(process: subprocess.Popen[bytes], state: Path) -> Server:
    """The server, once it serves. Raises ServerError."""
    if process.stderr is None:
        raise ServerError("the server has no log")
    ranking, rollout = _addresses(process.stderr)
    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
    return Server(ranking, rollout, process.pid, state)


def _addresses(log: IO[bytes]) -> tuple[str, str]:
    found: dict[str, str] = {}
    last = "it said nothing"
    for line in log:
        last = line.decode(errors="replace").strip()
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if fields.get("event") == "serving":
            found[fields.get("service", "")] = fields["address"]
        if len(found) == 2:
            return found[""], found[ROLLOUT_SERVICE]
    raise ServerError(f"the server did not start: {last}")


def _drain(log: IO[bytes]) -> None:
    """Reads on, so that the server never waits for room in the pipe."""
    with suppress(ValueError):  # closed by who has ended the process
        while log.read(1 << 16):
            pass


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
