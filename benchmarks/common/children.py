"""Processes that a benchmark starts: cases of their own, and protection from Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common.machine import ROOT


class CaseError(Exception):
    """A case failed in its process; the message holds the last line that it printed."""


def run_case(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Any:  # noqa: ANN401
    """The JSON that ``python -m MODULE`` prints. Raises CaseError.

    For cases that differ in what holds for a whole process, such as the allocator's settings.
    """
    # In a session of its own, Ctrl-C reaches this process alone, which then kills the case.
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ if environment is None else environment,
        cwd=ROOT,
        start_new_session=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise CaseError(f"{module} {' '.join(arguments)} failed: {lines[-1]}")
    return json.loads(done.stdout)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes started in the block ignore Ctrl-C, which reaches all processes of a terminal.

    The process that starts them ends them. Has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def child_ids() -> set[int]:
    """Processes that this thread has started."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(map(int, path.read_text(encoding="utf-8").split()))
