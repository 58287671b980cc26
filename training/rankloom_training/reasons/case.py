"""One row of the log as a teacher sees it: the events before it, the candidate and the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankloom_features.catalogue import Item
from rankloom_training.reasons.trace import TraceEvent

MIN_EVENTS_FOR_LEVEL, RECENT_EVENTS = 5, 5
GENEROUS, PICKY = 0.7, 0.35  # share of likes from which, and up to which, it is said
SHIFT = 0.3  # difference between the recent and the earlier share of likes
Opinion = tuple[Item, bool]  # an item, and whether it was liked


@dataclass(frozen=True, slots=True)
class EventInfluence:
    """An event and its influence: the score with it less the score without it, in logits."""

    item: Item
    liked: bool
    influence: float


@dataclass(frozen=True, slots=True)
class TraceCase:
    """A row to explain.

    ``row``: its number in the sorted log. ``events``: those of the prompt, oldest first.
    ``liked``: the label. ``score``: the logit with all events. ``earlier``: items and opinions
    from before the prompt's events, oldest first.
    """

    row: int
    events: tuple[EventInfluence, ...]
    candidate: Item
    liked: bool
    score: float
    earlier: tuple[Opinion, ...] = ()

    def speaking_for(self, verdict: bool) -> tuple[EventInfluence, ...]:
        """Events with a title whose influence has the verdict's sign, the strongest first."""
        sign = 1.0 if verdict else -1.0
        found = [each for each in self.events if each.item.title and sign * each.influence > 0.0]
        return tuple(sorted(found, key=lambda each: -abs(each.influence)))

    @property
    def trace_events(self) -> tuple[TraceEvent, ...]:
        """The events as a trace keeps them."""
        return tuple(
            TraceEvent(each.item.item_id, each.liked, each.influence) for each in self.events
        )

    @property
    def opinions(self) -> tuple[Opinion, ...]:
        """The events without their influences."""
        return tuple((each.item, each.liked) for each in self.events)

    @property
    def items(self) -> tuple[Item, ...]:
        """The items that a text may name: those of the events, and the candidate."""
        return (*(each.item for each in self.events), self.candidate)

    @property
    def level(self) -> float | None:
        """Share of likes among the events; None if they are too few to speak of."""
        return _share(self.events) if len(self.events) >= MIN_EVENTS_FOR_LEVEL else None

    @property
    def shift(self) -> float:
        """Share of likes of the newest events less that of the earlier ones; 0 if unknown."""
        if len(self.events) < 2 * RECENT_EVENTS:
            return 0.0
        return _share(self.events[-RECENT_EVENTS:]) - _share(self.events[:-RECENT_EVENTS])

    def share_liked(self, attribute: str) -> tuple[float, int]:
        """Share of likes among the events with the attribute, and their number."""
        return share_liked(self.opinions, attribute)


def share_liked(opinions: Sequence[Opinion], attribute: str) -> tuple[float, int]:
    """Share of likes among the items with the attribute, and their number."""
    having = [liked for item, liked in opinions if attribute in item.attributes]
    return (sum(having) / len(having) if having else 0.0), len(having)


def _share(events: Sequence[EventInfluence]) -> float:
    return sum(each.liked for each in events) / len(events)
