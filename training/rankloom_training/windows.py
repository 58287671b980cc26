"""Packed training windows: one pass learns every row of a stretch of a user's log.

A window's prefix is the user's visible events; its candidates are the rows to learn
from, each of which sees the events before it. This is the layout that is served, at a
fraction of the cost of a prompt per row. Hidden events are not in the window at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.packing import PackedRow, Segment, pack
from rankloom_engine.prompt import PromptAssembler, PromptCandidate, PromptEvent
from rankloom_features.catalogue import Catalogue
from rankloom_training.data import Interactions
from rankloom_training.visibility import View

MAX_TARGETS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What is known of each row of a view before the language model sees it.

    ``vector``: (n, dim) the user's vector from the visible events. ``tabular``:
    (n, columns). ``tree_logits``: (n,) the trees' logit, out of fold for training rows.
    """

    view: View
    vector: NDArray[np.float32]
    tabular: NDArray[np.float32]
    tree_logits: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One packed sequence to learn from. ``label``, ``tree_logits``: (candidates,).

    ``places``: (candidates,) which rows of the inputs the candidates are.
    """

    packed: PackedRow
    label: NDArray[np.float32]
    tree_logits: NDArray[np.float32]
    places: NDArray[np.int64]


class WindowMaker:
    """Makes windows of one log. ``builder`` gives the tokens, as it does when serving."""

    def __init__(self, log: Interactions, catalogue: Catalogue, builder: PromptAssembler) -> None:
        self._log, self._catalogue, self._builder = log, catalogue, builder
        self._begin = Segment.of_ids(builder.format.begin)
        self._events: dict[tuple[int, bool], Segment] = {}

    def windows(self, inputs: Inputs) -> list[Window]:
        """All rows of the inputs, each in exactly one window."""
        users = self._log.user[inputs.view.rows]
        firsts = np.flatnonzero(np.diff(users, prepend=-1))
        groups = np.split(np.arange(len(users)), firsts[1:]) if len(users) else []
        return [window for places in groups for window in self._of_user(inputs, places)]

    def event(self, row: int) -> Segment:
        """One row of the log as a past event."""
        key = (int(self._log.item[row]), bool(self._log.liked[row]))
        if key not in self._events:
            event = PromptEvent(self._catalogue.items[key[0]], *key)
            self._events[key] = self._builder.event(event)
        return self._events[key]

    def _of_user(self, inputs: Inputs, places: NDArray[np.int64]) -> Iterator[Window]:
        last = int(inputs.view.rows[places[-1]])
        context = inputs.view.visible_before(self._log, last)
        seen = np.searchsorted(context, inputs.view.rows[places])
        for start, chosen in _chunks(seen, self._builder.format.max_events):
            stop = int(seen[chosen[-1]])
            yield self._window(inputs, places[chosen], context[start:stop], seen[chosen] - start)

    def _window(
        self,
        inputs: Inputs,
        places: NDArray[np.int64],
        context: NDArray[np.int64],
        seen: NDArray[np.int64],
    ) -> Window:
        events = [self._begin, *(self.event(int(row)) for row in context)]
        lengths = np.cumsum([len(segment) for segment in events])
        targets = [self._target(inputs, int(place)) for place in places]
        return Window(
            packed=pack(Segment.joined(events), targets, lengths[seen].tolist()),
            label=self._log.liked[inputs.view.rows[places]].astype(np.float32),
            tree_logits=inputs.tree_logits[places].astype(np.float32),
            places=places,
        )

    def _target(self, inputs: Inputs, place: int) -> Segment:
        index = int(self._log.item[inputs.view.rows[place]])
        candidate = PromptCandidate(self._catalogue.items[index], index)
        return self._builder.candidate(candidate, inputs.vector[place], inputs.tabular[place])


def _chunks(seen: NDArray[np.int64], max_events: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Parts rows by how many events they see: first event, and the rows' places.

    Every row sees at least the newest half of ``max_events`` of its events and never
    more than ``max_events``.
    """
    half = max(max_events // 2, 1)
    part = np.maximum(seen // half - 1, 0)
    for number in np.unique(part):
        rows = np.flatnonzero(part == number)
        for at in range(0, len(rows), MAX_TARGETS):
            yield int(number) * half, rows[at : at + MAX_TARGETS]


def batches(
    windows: Sequence[Window], max_tokens: int, random: np.random.Generator
) -> list[list[Window]]:
    """Random batches of windows, at most ``max_tokens`` together."""
    made: list[list[Window]] = []
    room = 0
    for place in random.permutation(len(windows)):
        window = windows[int(place)]
        if not made or len(window.packed) > room:
            made.append([])
            room = max_tokens
        made[-1].append(window)
        room -= len(window.packed)
    return made
