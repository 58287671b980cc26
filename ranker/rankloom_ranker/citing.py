"""Which events the words of an explanation cite: the strongest that speak for the verdict."""

from __future__ import annotations

from collections.abc import Iterable

from rankloom_ranker.answers import EventEvidence

MAX_CITED = 2
WORTH_CITING = 0.3  # share of the strongest event's influence


def to_cite(evidence: Iterable[EventEvidence], *, liked: bool) -> tuple[EventEvidence, ...]:
    """The strongest events for the verdict, of one opinion; then the strongest one against it.

    Events of one opinion, so that one sentence can speak of them. An event against the verdict
    is cited where it weighs more than any for it.
    """
    sign = 1.0 if liked else -1.0
    ranked = sorted(evidence, key=lambda each: -sign * each.influence)
    supporting = [each for each in ranked if sign * each.influence > 0.0]
    opposing = [each for each in reversed(ranked) if sign * each.influence < 0.0][:1]
    if not supporting:
        return tuple(opposing)
    strongest = supporting[0]
    alike = [each for each in supporting if _goes_with(each, strongest)][:MAX_CITED]
    stronger = [each for each in opposing if abs(each.influence) >= abs(strongest.influence)]
    return (*alike, *stronger)


def _goes_with(event: EventEvidence, strongest: EventEvidence) -> bool:
    alike = event.liked == strongest.liked
    return alike and abs(event.influence) >= WORTH_CITING * abs(strongest.influence)
