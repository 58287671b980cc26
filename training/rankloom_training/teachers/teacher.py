"""The interface of teachers."""

from __future__ import annotations

from typing import Protocol

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.trace import Trace


class TeacherError(ValueError):
    """The teacher cannot go on at all; what it finished stays. The message says what to do."""


class Teacher(Protocol):
    """Writes traces. Called from several threads at once."""

    @property
    def name(self) -> str:
        """Who writes, for the file."""
        ...

    def trace(self, case: TraceCase) -> Trace:
        """A trace of the row, or one with a problem. Raises TeacherError."""
        ...
