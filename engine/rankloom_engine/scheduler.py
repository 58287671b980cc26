"""Which work goes into the next micro-batch: a token budget, earliest deadline first.

Pure policy, without torch and without a clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Job:
    """One packed row. ``key`` names it; ``deadline`` is on the caller's clock."""

    key: int
    num_tokens: int
    deadline: float = inf


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Jobs to run together, and jobs whose deadline has passed."""

    jobs: tuple[Job, ...]
    expired: tuple[Job, ...]


class Scheduler:
    """Waiting jobs. Not thread-safe: one event loop owns it."""

    def __init__(self, max_batch_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._waiting: dict[int, Job] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Lets a job wait."""
        self._waiting[job.key] = job

    def remove(self, key: int) -> None:
        """Forgets a job that nobody waits for any more, if it still waits."""
        self._waiting.pop(key, None)

    def take(self, now: float) -> MicroBatch:
        """Takes the next micro-batch and everything that has expired by ``now``.

        Rows are padded to the longest, so the budget counts rows × longest. A job over
        the budget runs alone. Equal deadlines keep the order of arrival.
        """
        expired = tuple(job for job in self._waiting.values() if job.deadline <= now)
        for job in expired:
            self.remove(job.key)
        jobs: list[Job] = []
        longest = 0
        for job in sorted(self._waiting.values(), key=lambda job: job.deadline):
            longest = max(longest, job.num_tokens)
            if jobs and (len(jobs) + 1) * longest > self._max_batch_tokens:
                break
            jobs.append(job)
        for job in jobs:
            self.remove(job.key)
        return MicroBatch(tuple(jobs), expired)
