"""What must hold for a text before anything learns from it."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.grounding import Grounding, named_items
from rankloom_training.reasons.problems import MAX_TEXT_CHARS, TraceProblem


class TextCheck:
    """Checks texts about one catalogue's items."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._grounding = Grounding(catalogue)

    def problem(self, text: str, events: Sequence[Item], candidate: Item) -> TraceProblem | None:
        """The first fault of a text without its verdict. ``events``: items of the prompt."""
        if not text.strip():
            return TraceProblem.NO_TEXT
        if len(text) > MAX_TEXT_CHARS:
            return TraceProblem.TOO_LONG
        if problem := self._grounding.problem(text, (*events, candidate)):
            return problem
        return None if named_items(text, events) else TraceProblem.NO_EVENT

    def names_other(self, text: str, items: Sequence[Item]) -> bool:
        """Whether a text names what none of the items has."""
        return self._grounding.problem(text, items) is not None
