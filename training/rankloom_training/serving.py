"""Runs a ranking server in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STOP_S = 30.0


class ServerStartError(RuntimeError):
    """The server ended before it was ready. The message has the last line of its log."""


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[str]:
    """Runs ``rankloom serve`` on a free port and yields its address once it is ready.

    The server is stopped when the block ends. Raises ServerStartError.
    """
    with _running(bundle, options, num_ports=1) as [address]:
        yield address


@contextmanager
def serving_rollouts(bundle: Path, state: Path, *more: str) -> Iterator[tuple[str, str]]:
    """Like ``serving``, with rollouts. Yields the addresses for rankings and for rollouts.

    ``more``: further options of ``rankloom serve``.
    """
    options = ("--state", str(state), "--rollout-port", "0", *more)
    with _running(bundle, options, num_ports=2) as [address, rollouts]:
        yield address, rollouts


@contextmanager
def _running(bundle: Path, options: Sequence[str], num_ports: int) -> Iterator[list[str]]:
    command = [sys.executable, "-m", "rankloom", "serve", "--bundle", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C would reach the whole process group, but this process stops the server.
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )
    try:
        log = process.stderr
        if log is None:
            raise ServerStartError("the server process has no stderr pipe")
        addresses = [_await_address(log) for _ in range(num_ports)]
        threading.Thread(target=_drain, args=(log,), daemon=True).start()
        yield addresses
    finally:
        _stop(process)


def _await_address(log: IO[str]) -> str:
    last = "its log is empty"
    for line in log:
        last = line.strip()
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if fields.get("event") == "serving":
            return str(fields["address"])
    raise ServerStartError(f"the server did not start: {last}")


def _drain(log: IO[str]) -> None:
    """Reads the rest, so that the server never blocks on a full pipe."""
    for _ in log:
        pass


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
