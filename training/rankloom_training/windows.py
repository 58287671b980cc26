"""Packed training windows: one pass trains on many consecutive rows of a user.

A window's prefix is the user's visible events. Its candidates are the rows to train on;
each attends to the events before it. The server uses the same layout. It costs a fraction
of one prompt per row. Hidden events are not in the window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.packing import PackedRow, Segment, pack
from rankloom_engine.profile import MAX_PROFILE_EVENTS
from rankloom_engine.prompt import PromptAssembler, PromptCandidate, PromptEvent
from rankloom_features.catalogue import Catalogue
from rankloom_training.data import Interactions
from rankloom_training.visibility import View
from rankloom_training.words import Words

MAX_TARGETS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The model's inputs for each row of a view.

    ``vector``: (n, dim) the user's vector from the visible events. ``tabular``:
    (n, columns). ``tree_logits``: (n,) out of fold for training rows.
    """

    view: View
    vector: NDArray[np.float32]
    tabular: NDArray[np.float32]
    tree_logits: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One packed sequence to train on. ``label``, ``tree_logits``: (candidates,).

    ``rows``: (candidates,) index of each candidate's row in the inputs. ``words``: (words,) the
    tokens of all texts, ``word_of``: the candidate that each belongs to. The sequence is read
    where the candidates' verdicts are, and then before each word.
    """

    packed: PackedRow
    label: NDArray[np.float32]
    tree_logits: NDArray[np.float32]
    rows: NDArray[np.int64]
    words: NDArray[np.int64]
    word_of: NDArray[np.int64]


class WindowMaker:
    """Makes windows of one log. The server uses the same ``builder`` to make tokens."""

    def __init__(
        self,
        log: Interactions,
        catalogue: Catalogue,
        builder: PromptAssembler,
        words: Mapping[int, Words] | None = None,
    ) -> None:
        """``words``: row of the log → what to say about it, where all it cites stands before it."""
        self._log, self._catalogue, self._builder = log, catalogue, builder
        self._words = words or {}
        self._events: dict[tuple[int, bool], Segment] = {}

    def windows(self, inputs: Inputs) -> list[Window]:
        """Windows over the inputs; each row is a candidate of exactly one."""
        users = self._log.user[inputs.view.rows]
        firsts = np.flatnonzero(np.diff(users, prepend=-1))
        groups = np.split(np.arange(len(users)), firsts[1:]) if len(users) else []
        return [window for rows in groups for window in self._of_user(inputs, rows)]

    def event(self, row: int) -> Segment:
        """The tokens of a row of the log as an event of the history."""
        key = (int(self._log.item[row]), bool(self._log.liked[row]))
        if key not in self._events:
            event = PromptEvent(self._catalogue.items[key[0]], *key)
            self._events[key] = self._builder.event(event)
        return self._events[key]

    def _of_user(self, inputs: Inputs, rows: NDArray[np.int64]) -> Iterator[Window]:
        last = int(inputs.view.rows[rows[-1]])
        context = inputs.view.visible_before(self._log, last)
        seen = np.searchsorted(context, inputs.view.ends[rows])
        for start, chosen in _chunks(seen, self._builder.format.max_events):
            stop = int(seen[chosen[-1]])
            opening = self._opening(context[:start])
            yield self._window(
                inputs, rows[chosen], opening, context[start:stop], seen[chosen] - start
            )

    def _opening(self, earlier: NDArray[np.int64]) -> Segment:
        """What stands before a window's events. ``earlier``: rows of the events before them."""
        items, log = self._catalogue.items, self._log
        rows = earlier[-MAX_PROFILE_EVENTS:]
        return self._builder.opening(
            [(items[log.item[row]].attributes, bool(log.liked[row])) for row in rows]
        )

    def _window(
        self,
        inputs: Inputs,
        rows: NDArray[np.int64],
        opening: Segment,
        context: NDArray[np.int64],
        seen: NDArray[np.int64],
    ) -> Window:
        events = [opening, *(self.event(int(row)) for row in context)]
        lengths = np.cumsum([len(segment) for segment in events])
        targets = [self._target(inputs, int(row)) for row in rows]
        label = self._log.liked[inputs.view.rows[rows]]
        texts = [
            self._text(int(row), context[:num])
            for row, num in zip(inputs.view.rows[rows], seen, strict=True)
        ]
        answers = list(map(self._answer, targets, label, texts))
        num_words = [len(text.ids) if text else 0 for text in texts]
        return Window(
            packed=_read_before_words(
                pack(Segment.joined(events), answers, lengths[seen].tolist()),
                num_words,
                [len(text.given) if text else 0 for text in texts],
            ),
            label=label.astype(np.float32),
            tree_logits=inputs.tree_logits[rows].astype(np.float32),
            rows=rows,
            words=np.array([token for text in texts if text for token in text.ids], dtype=np.int64),
            word_of=np.repeat(np.arange(len(texts)), num_words),
        )

    def _text(self, row: int, before: NDArray[np.int64]) -> Words | None:
        """The words about a row, if they cite only items of the events before it."""
        words = self._words.get(row)
        if words is None or not words.known(self._log.item[before].tolist()):
            return None
        return words

    def _answer(self, target: Segment, liked: bool, words: Words | None) -> Segment:
        """The candidate, and where there are words, its verdict, the evidence and the words."""
        if words is None:
            return target
        verdict = self._builder.format.liked if liked else self._builder.format.disliked
        return Segment.joined([target, Segment.of_ids([verdict, *words.given, *words.ids[:-1]])])

    def _target(self, inputs: Inputs, row: int) -> Segment:
        index = int(self._log.item[inputs.view.rows[row]])
        candidate = PromptCandidate(self._catalogue.items[index], index)
        return self._builder.candidate(candidate, inputs.vector[row], inputs.tabular[row])


def _read_before_words(
    packed: PackedRow, num_words: Sequence[int], num_given: Sequence[int]
) -> PackedRow:
    """Reads the verdicts, which stand before evidence and words, and the token before each word."""
    ends = packed.read_at
    words = [np.arange(end - num, end) + 1 for end, num in zip(ends, num_words, strict=True)]
    verdicts = ends - np.add(num_words, num_given)
    return dataclasses.replace(packed, read_at=np.concatenate([verdicts, *words]))


def _chunks(seen: NDArray[np.int64], max_events: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Splits a user's rows into windows: the window's first event, and its rows.

    ``seen``: (rows,) how many events are visible to each row. Each row keeps at least
    its newest ``max_events // 2`` events, and at most ``max_events``.
    """
    half = max(max_events // 2, 1)
    part = np.maximum(seen // half - 1, 0)
    for index in np.unique(part):
        rows = np.flatnonzero(part == index)
        for at in range(0, len(rows), MAX_TARGETS):
            yield int(index) * half, rows[at : at + MAX_TARGETS]


def batches(
    windows: Sequence[Window], max_tokens: int, random: np.random.Generator
) -> list[list[Window]]:
    """Random batches of windows with at most ``max_tokens`` each, or one longer window."""
    made: list[list[Window]] = []
    room = 0
    for index in random.permutation(len(windows)):
        window = windows[int(index)]
        if not made or len(window.packed) > room:
            made.append([])
            room = max_tokens
        made[-1].append(window)
        room -= len(window.packed)
    return made
