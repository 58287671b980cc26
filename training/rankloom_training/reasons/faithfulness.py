"""Does a text name what moved the score? Measured on influences, not on another text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankloom_features.catalogue import Catalogue
from rankloom_training.reasons.grounding import title_positions
from rankloom_training.reasons.trace import Trace, TraceEvent

STRONGEST = 3


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Of ``num_texts`` texts with measured influences and a named event.

    ``agreeing``: share whose first named event has an influence of the verdict's sign.
    ``strongest``: share that name one of the STRONGEST events of the largest influence.
    """

    num_texts: int
    agreeing: float
    strongest: float


def faithfulness(traces: Sequence[Trace], catalogue: Catalogue) -> Faithfulness | None:
    """None if no trace has measured influences and names an event."""
    pairs = [(trace, _named(trace, catalogue)) for trace in traces if _measured(trace)]
    known = [(trace, named) for trace, named in pairs if named]
    if not known:
        return None
    agreeing = sum((named[0].influence > 0.0) == trace.verdict for trace, named in known)
    strongest = sum(bool(set(named) & set(_heaviest(trace))) for trace, named in known)
    return Faithfulness(len(known), agreeing / len(known), strongest / len(known))


def _measured(trace: Trace) -> bool:
    return any(event.influence and not math.isnan(event.influence) for event in trace.events)


def _heaviest(trace: Trace) -> list[TraceEvent]:
    return sorted(trace.events, key=lambda event: -abs(event.influence))[:STRONGEST]


def _named(trace: Trace, catalogue: Catalogue) -> list[TraceEvent]:
    """The events whose titles the text has, in the order of the text."""
    found: dict[int, TraceEvent] = {}
    for event in trace.events:
        item = catalogue.get(event.item_id)
        if item is not None and item.title:
            found |= dict.fromkeys(title_positions(trace.text, item.title), event)
    return [found[at] for at in sorted(found)]
