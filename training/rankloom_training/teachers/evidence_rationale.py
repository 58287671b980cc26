"""ReasoningRec's rationales from the data alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.grounding import named_items
from rankloom_training.reasons.rationale import Rationale
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.profile import write_profile, write_summary


class EvidenceRationales:
    """Summary of the prompt's events, reasons from their influences, profile from earlier ones.

    ``cited_only``: it names nothing but the cited events, their labels and the candidate's.
    """

    name = EvidenceTeacher.name

    def __init__(self, seed: int = 0, *, cited_only: bool = False) -> None:
        self._seed, self._cited_only = seed, cited_only
        self._teacher = EvidenceTeacher(seed, cited_only=cited_only)

    def trace(self, case: TraceCase) -> Trace:
        trace = self._teacher.trace(case)
        rationale = Rationale(self._summary(case, trace.text), trace.text)
        return replace(
            trace,
            kind=TraceKind.RATIONALE,
            text=rationale.text if trace.text else "",
            profile=write_profile(case.earlier, self._seed),
            prompt_digest=hashlib.sha256(repr((self._seed, case)).encode()).hexdigest(),
            attempts=1,
            blind_verdict=None,
            blind_text="",
        )

    def _summary(self, case: TraceCase, reasons: str) -> str:
        if not self._cited_only:
            return write_profile(case.opinions, self._seed)
        cited = named_items(reasons, [each.item for each in case.events])
        labels = {label for item in (*cited, case.candidate) for label in item.attributes}
        return write_summary(case.opinions, labels, self._seed)
