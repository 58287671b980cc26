"""One family in a process of its own, within limits of time and memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.bases.exam import FamilyResult, examine
from benchmarks.bases.families import config_of

_MAX_BYTES = 12 << 30  # of addresses; a small model and the libraries take 3 GB of them


@dataclass(frozen=True, slots=True)
class Outcome:
    """``failure``: how the trial ended without a verdict."""

    family: str
    verdict: FamilyResult | None
    failure: str = ""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the family works, or is refused with a cause."""
        return self.verdict is not None and not self.verdict.is_wrong

    def line(self) -> str:
        """For the terminal."""
        if self.verdict is None:
            text = f"FAILED {self.failure}"
        elif self.verdict.cause is not None:
            text = f"refused: {self.verdict.cause}"
        else:
            text = f"{'WRONG' if self.verdict.is_wrong else 'works'}, {self.verdict.error:.1e}"
        return f"{self.family} ({self.seconds:.1f} s): {text}"


def guarded(family: str, seconds: float) -> Outcome:
    """Examines a family in a forked process, and ends that after ``seconds``."""
    context = multiprocessing.get_context("fork")  # transformers takes 10 s to import
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_examine, args=(family, theirs))
    began = time.monotonic()
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(seconds) else f"no verdict after {seconds:.0f} s"
    except EOFError:
        found = "its process ended"
    took = time.monotonic() - began
    process.kill()
    process.join()
    if isinstance(found, FamilyResult):
        return Outcome(family, found, seconds=took)
    return Outcome(family, None, str(found), took)


def _examine(family: str, answers: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    try:
        found: FamilyResult | str = examine(family, config_of(family))
    except Exception:
        found = traceback.format_exc(limit=-3)
    answers.send(found)
