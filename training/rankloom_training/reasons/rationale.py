"""ReasoningRec's rationale: what the user is like, and why the item is liked or not.

Both parts have at most MAX_WORDS words (ReasoningRec, arXiv 2410.23180). The label conditions
the text; the verdict is kept apart, and stands first when it is learned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rankloom_training.reasons.problems import TraceProblem

MAX_WORDS = 100
_PARTS = re.compile(r"Summary:(?P<summary>[^\n]+)\n+Reasons:(?P<reasons>[^\n]+)\Z")


@dataclass(frozen=True, slots=True)
class Rationale:
    """Two parts of a line each."""

    summary: str
    reasons: str

    @property
    def text(self) -> str:
        """As a trace keeps it; about few events there may be nothing to sum up."""
        return f"{self.summary}\n{self.reasons}".lstrip()

    @property
    def problem(self) -> TraceProblem | None:
        """Whether a part is too long."""
        longest = max(len(part.split()) for part in (self.summary, self.reasons))
        return TraceProblem.WORDY if longest > MAX_WORDS else None


def read_rationale(answer: str) -> Rationale | None:
    """The parts of an answer of exactly two lines, Summary: and Reasons:; else None."""
    found = _PARTS.match(answer.strip())
    return Rationale(found["summary"].strip(), found["reasons"].strip()) if found else None
