"""Checks a table of traces row by row against the log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rankloom_training.data import Dataset, Split
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.traces.cases import MAX_EVENTS
from rankloom_training.traces.foreign import ForeignTrace
from rankloom_training.visibility import Protocol, scoring_view


@dataclass(frozen=True, slots=True)
class CheckedTrace:
    """``problem``: why nothing may learn from the trace, or None."""

    trace: ForeignTrace
    problem: TraceProblem | None


@dataclass(frozen=True, slots=True)
class TraceReport:
    """``refused``: problem → numbers of the file's rows. ``distinct``: share of different pairs
    of neighbouring words in the sound texts.
    """

    num_rows: int
    refused: Mapping[TraceProblem, Sequence[int]]
    mean_words: float
    distinct: float

    @property
    def num_sound(self) -> int:
        return self.num_rows - sum(map(len, self.refused.values()))


class TraceChecker:
    """Checks traces of one log, in order: a second trace of a row is refused."""

    def __init__(self, data: Dataset, protocol: Protocol) -> None:
        self._data = data
        self._view = scoring_view(data.log, protocol, Split.TRAIN)
        self._texts = TextCheck(data.catalogue)

    def checked(self, traces: Iterable[ForeignTrace]) -> Iterator[CheckedTrace]:
        """Each trace with the first thing that is wrong with it."""
        seen: set[int] = set()
        for trace in traces:
            problem = self._of_row(trace, seen) or trace.problem
            problem = problem or self._of_verdict(trace) or self._of_text(trace)
            yield CheckedTrace(trace, problem)

    def events_of(self, row: int) -> list[int]:
        """The rows of the log that are the events in the row's prompt, oldest first."""
        return list(self._view.visible_before(self._data.log, row)[-MAX_EVENTS:].tolist())

    def _of_row(self, trace: ForeignTrace, seen: set[int]) -> TraceProblem | None:
        log, items = self._data.log, self._data.catalogue.items
        if trace.row < 0:
            return TraceProblem.NO_ROW
        if trace.item_id is not None and items[log.item[trace.row]].item_id != trace.item_id:
            return TraceProblem.OTHER_ITEM
        if trace.row in seen:
            return TraceProblem.REPEATED
        seen.add(trace.row)
        return None

    def _of_verdict(self, trace: ForeignTrace) -> TraceProblem | None:
        if None in trace.verdicts:
            return TraceProblem.NO_VERDICT
        right = bool(self._data.log.liked[trace.row])
        return None if set(trace.verdicts) == {right} else TraceProblem.WRONG_VERDICT

    def _of_text(self, trace: ForeignTrace) -> TraceProblem | None:
        log, items = self._data.log, self._data.catalogue.items
        events = [items[log.item[at]] for at in self.events_of(trace.row)]
        return self._texts.problem(trace.text, events, items[log.item[trace.row]])


def report_of(checked: Sequence[CheckedTrace]) -> TraceReport:
    """Counts of what is wrong, and figures of what is sound."""
    refused: dict[TraceProblem, list[int]] = defaultdict(list)
    for each in checked:
        if each.problem is not None:
            refused[each.problem].append(each.trace.number)
    texts = [each.trace.text.split() for each in checked if each.problem is None]
    pairs = Counter(pair for words in texts for pair in pairwise(words))
    return TraceReport(
        len(checked),
        refused,
        sum(map(len, texts)) / max(len(texts), 1),
        len(pairs) / max(pairs.total(), 1),
    )
