"""ReasoningRec's rationales from the data alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.rationale import Rationale
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.profile import write_profile


class EvidenceRationales:
    """Summary of the prompt's events, reasons from their influences, profile from earlier ones."""

    name = EvidenceTeacher.name

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._teacher = seed, EvidenceTeacher(seed)

    def trace(self, case: TraceCase) -> Trace:
        trace = self._teacher.trace(case)
        rationale = Rationale(write_profile(case.opinions, self._seed), trace.text)
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
