"""A trace: what a teacher wrote about a row, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rankloom_training.reasons.problems import TraceProblem


class TraceKind(StrEnum):
    """THINK: ThinkRec's reasons. RATIONALE: ReasoningRec's two parts, summary and reasons."""

    THINK = "think"
    RATIONALE = "rationale"


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """An event of a trace's prompt, and its influence on the score in logits."""

    item_id: str
    liked: bool
    influence: float


@dataclass(frozen=True, slots=True)
class Trace:
    """A verdict and the words that follow it.

    ``row``: the number of the row in the sorted log. ``verdict``: the label. ``text``: without
    the verdict. ``attempts``: how often the teacher answered; the first time it did not know the
    label: ``blind_verdict``, None if it gave none, and ``blind_text``. ``events``: those of the
    prompt, oldest first. ``profile``: of the user, in a rationale's prompt. ``problem``: why the
    trace must not be learned from.
    """

    row: int
    item_id: str
    verdict: bool
    text: str
    teacher: str
    prompt_digest: str
    written: datetime
    events: tuple[TraceEvent, ...]
    kind: TraceKind = TraceKind.THINK
    attempts: int = 1
    blind_verdict: bool | None = None
    blind_text: str = ""
    profile: str = ""
    problem: TraceProblem | None = None

    @property
    def repaired(self) -> bool:
        """Whether an earlier answer failed, so that the text was written with hints."""
        return self.attempts > 1
