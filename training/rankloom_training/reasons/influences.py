"""How much each event moves a score, measured by leaving the event out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Item
from rankloom_features.events import Event
from rankloom_features.provider import FeatureProvider, UserQuery
from rankloom_features.ranker import TreeRanker


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredScore:
    """``score``: the logit with all events. ``influences``: (m,) of the newest m events, oldest
    first: the score less what it would be without that event.
    """

    score: float
    influences: NDArray[np.float64]


class Influences(Protocol):
    """Measures what each event of a history does to the score of a candidate."""

    def measure(self, events: Sequence[Event], candidate: Item, newest: int) -> MeasuredScore:
        """``events``: all of the user's, oldest first; only the ``newest`` ones are measured."""
        ...


class TreeInfluences:
    """Measures on the collaborative model and the trees: no language model, so it is cheap.

    User vector, tabular features and logit are computed anew without each event. ``trees``
    must have been trained on the features of ``provider``.
    """

    def __init__(self, provider: FeatureProvider, trees: TreeRanker) -> None:
        self._provider, self._trees = provider, trees

    def measure(self, events: Sequence[Event], candidate: Item, newest: int) -> MeasuredScore:
        first = max(len(events) - newest, 0)
        variants = [tuple(events)]
        variants += [(*events[:at], *events[at + 1 :]) for at in range(first, len(events))]
        queries = [UserQuery(None, variant, (candidate,)) for variant in variants]
        features = self._provider.features_of_many(queries)
        logits = self._trees.logits(np.concatenate([each.tabular for each in features]))
        return MeasuredScore(float(logits[0]), logits[0] - logits[1:])
