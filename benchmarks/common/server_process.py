"""A server with a state folder in its own process, and the resources that it uses."""

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
EXPERT_CACHE_MIB = 1  # so small that it is full before memory is measured
ROLLOUT_SERVICE = "rankloom.v1.RolloutService"


class ServerProcessError(Exception):
    """The server did not start, or did not stop cleanly; the message says more."""


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """Memory, file descriptors and threads of a process at one moment."""

    rss_mib: float
    fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server: addresses of rankings and rollouts, process id and state folder."""

    ranking: str
    rollout: str
    pid: int
    state: Path

    def resource_use(self) -> ResourceUse:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        rss_mib = int(fields["VmRSS"].split()[0]) / 1024
        fds = len(os.listdir(f"/proc/{self.pid}/fd"))
        return ResourceUse(rss_mib, fds, int(fields["Threads"]))

    def num_bundles(self) -> int:
        """How many bundles it keeps on disk."""
        return sum(not path.name.startswith(".") for path in (self.state / "bundles").iterdir())


@contextmanager
def serving(bundle: Path, state: Path, *, threads: int, cache_mib: int) -> Iterator[ServerProcess]:
    """Runs ``rankloom serve``; stops it and waits for it when the block ends.

    Raises ServerProcessError.
    """
    process = start_server(bundle, state, threads=threads, cache_mib=cache_mib)
    try:
        yield await_serving(process, state)
    finally:
        _stop(process)
    if process.returncode:
        raise ServerProcessError(f"the server ended with {process.returncode}")


def start_server(
    bundle: Path, state: Path, *, threads: int, cache_mib: int
) -> subprocess.Popen[bytes]:
    """Starts a server; ``await_serving`` waits until it serves."""
    flags = {"bundle": bundle, "state": state, "threads": threads, "port": 0, "rollout-port": 0}
    flags["dtype"] = "float32"  # on every machine, so that figures can be compared
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    caches = {"PREFIX": cache_mib, "EXPERT": EXPERT_CACHE_MIB}
    return subprocess.Popen(
        [sys.executable, "-m", "rankloom", "serve", *given],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Ctrl-C reaches the whole terminal group; this process alone decides when the server stops.
        start_new_session=True,
        env=os.environ | {f"RANKLOOM_{k}_CACHE_MIB": str(mib) for k, mib in caches.items()},
    )


def await_serving(process: subprocess.Popen[bytes], state: Path) -> ServerProcess:
    """Returns once the server listens on both ports. Raises ServerProcessError."""
    if process.stderr is None:
        raise ServerProcessError("the server has no log")
    ranking, rollout = _addresses(process.stderr)
    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
    return ServerProcess(ranking, rollout, process.pid, state)


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
    raise ServerProcessError(f"the server did not start: {last}")


def _drain(log: IO[bytes]) -> None:
    """Keeps reading, so that the server never waits for room in the pipe."""
    with suppress(ValueError):  # the pipe is closed once the process has ended
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
