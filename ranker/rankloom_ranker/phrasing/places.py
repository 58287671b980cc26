"""Which sentences hold of an explanation, place by place: the model chooses among them.

For the verdict, what the cited events and the candidate have in common, what outweighs them, and
an end. The same explanation is offered the same wordings; another is offered others, so that texts
differ though every model has its favourites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rankloom_engine.phrased import SentencePlace
from rankloom_features.catalogue import Item
from rankloom_ranker.phrasing.statements import Statement
from rankloom_ranker.phrasing.wording import Phrasing, listed, quoted, shared_attributes

WORDINGS = 3  # offered at a place: the fewer, the more texts differ
CANDIDATE = ("this one", "this title", "this pick")
NAMES = (*CANDIDATE, "this choice", "this item")  # of the candidate; the last are not taught


@dataclass(frozen=True, slots=True)
class CitedItem:
    """An item of an event that words cite. ``speaks_for``: a like."""

    item: Item
    liked: bool
    speaks_for: bool


def sentence_places(
    candidate: Item, cited: Sequence[CitedItem], *, liked: bool
) -> tuple[SentencePlace, ...]:
    """The places of a text for this verdict. ``cited``: the strongest first, as ``to_cite`` has it.

    Events without a title cannot be cited, and are left out.
    """
    titled = [each for each in cited if each.item.title.strip()]
    return tuple(_Sentences(candidate, titled, liked).places())


class _Sentences:
    """The sentences that hold of one explanation."""

    def __init__(self, candidate: Item, cited: Sequence[CitedItem], liked: bool) -> None:
        self._side = "YES" if liked else "NO"
        self._for = [each for each in cited if each.speaks_for == liked]
        self._against = [each for each in cited if each.speaks_for != liked]
        items = [each.item for each in self._for]
        alike = all(each.liked == liked for each in self._for)
        self._shared = shared_attributes(candidate, items) if alike else []
        told = repr((candidate.item_id, liked, [each.item.item_id for each in cited]))
        seed = int.from_bytes(hashlib.sha256(told.encode()).digest()[:8])
        self._phrasing = Phrasing(np.random.default_rng(seed))

    def places(self) -> Iterator[SentencePlace]:
        if self._for:
            yield self._place(f"FOR_{_opinion(self._for[0])}", self._for)
            if self._shared:
                yield self._place("SHARED", self._for, is_optional=True)
            for each in self._against:
                yield self._place(f"AGAINST_{_opinion(each)}", [each])
        elif self._against:
            yield self._place("THIN", self._against)
        yield self._place("END", (), is_optional=bool(self._for or self._against))

    def _place(
        self, name: str, cited: Sequence[CitedItem], *, is_optional: bool = False
    ) -> SentencePlace:
        wanted = Statement[f"{self._side}_{name}"]
        blanks = {
            "titles": listed([quoted(each.item.title) for each in cited]) if cited else "",
            "shared": listed(self._shared) if self._shared else "",
        }

        def filled(blank: str) -> str:
            return blanks.get(blank) or self._phrasing.pick(NAMES)

        wordings = (self._phrasing.say(wanted, filled) for _ in range(WORDINGS))
        return SentencePlace(tuple(dict.fromkeys(wordings)), is_optional)


def _opinion(event: CitedItem) -> str:
    return "LIKED" if event.liked else "DISLIKED"
