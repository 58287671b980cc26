"""Chooses rows of the log, and makes cases of them: what a teacher sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import Event
from rankloom_training.data import Dataset, Split
from rankloom_training.reasons.case import EventInfluence, TraceCase
from rankloom_training.reasons.influences import Influences
from rankloom_training.visibility import Protocol, View, scoring_view

MAX_EVENTS = 20  # as many as a prompt has
# A profile is of up to so many events before the prompt's (ReasoningRec). It moves on in steps,
# so that rows near each other share one.
PROFILE_EVENTS, PROFILE_STEP = 15, 10


@dataclass(frozen=True, slots=True)
class CaseOptions:
    """Which rows are explained: ``rows`` of the split at most, drawn with ``seed``.

    ``newest``: how many events of each case are measured, and may be cited.
    """

    rows: int = 2000
    split: Split = Split.TRAIN
    protocol: Protocol = Protocol.P1
    seed: int = 0
    newest: int = MAX_EVENTS


class CaseMaker:
    """Makes cases of one log's rows, each with the events that a server would see."""

    def __init__(self, data: Dataset, influences: Influences, options: CaseOptions) -> None:
        self._data, self._influences = data, influences
        self._newest = options.newest
        self._view = scoring_view(data.log, options.protocol, options.split)
        self.rows = _drawn(self._view, data, options)

    def cases(self) -> Iterator[TraceCase]:
        """In the order of ``rows``."""
        return map(self.case, self.rows.tolist())

    def case(self, row: int) -> TraceCase:
        """The case of a row of the sorted log."""
        log, items = self._data.log, self._data.catalogue.items
        before = self._view.visible_before(log, row)
        candidate = items[log.item[row]]
        events = [
            Event(items[log.item[at]].item_id, bool(log.liked[at]), float(log.time[at]))
            for at in before
        ]
        measured = self._influences.measure(events, candidate, self._newest)
        newest = before[-self._newest :].tolist()
        num_earlier = (len(before) - len(newest)) // PROFILE_STEP * PROFILE_STEP
        earlier = before[:num_earlier][-PROFILE_EVENTS:].tolist()
        return TraceCase(
            row=row,
            events=tuple(
                EventInfluence(items[log.item[at]], bool(log.liked[at]), float(influence))
                for at, influence in zip(newest, measured.influences, strict=True)
            ),
            candidate=candidate,
            liked=bool(log.liked[row]),
            score=measured.score,
            earlier=tuple((items[log.item[at]], bool(log.liked[at])) for at in earlier),
        )


def _drawn(view: View, data: Dataset, options: CaseOptions) -> NDArray[np.int64]:
    """Rows with an earlier event, ascending: a smaller draw is a part of a larger one."""
    histories = view.histories(data.log)
    having = view.rows[histories.end > histories.first]
    order = np.random.default_rng(options.seed).permutation(len(having))
    return np.sort(having[order[: options.rows]])
