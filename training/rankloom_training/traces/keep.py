"""Sound traces of any table as a file of traces that training reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from rankloom_features.catalogue import Item
from rankloom_training.data import Dataset
from rankloom_training.reasons.trace import Trace, TraceEvent
from rankloom_training.traces.check import CheckedTrace, TraceChecker
from rankloom_training.traces.trace_file import is_trace_file, read_traces


def kept_traces(
    path: Path, data: Dataset, checker: TraceChecker, checked: Iterable[CheckedTrace]
) -> list[Trace]:
    """The sound ones: as they are in a file of ours, else with the file's name as teacher."""
    good = [each.trace for each in checked if each.problem is None]
    if is_trace_file(path):
        ours = read_traces(path)
        return [ours[each.number - 1] for each in good]
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return [
        Trace(
            row=each.row,
            item_id=_item_of(data, each.row),
            verdict=bool(data.log.liked[each.row]),
            text=each.text,
            teacher=path.name,
            prompt_digest="",
            written=written,
            events=_events(data, checker, each.row),
        )
        for each in good
    ]


def _events(data: Dataset, checker: TraceChecker, row: int) -> tuple[TraceEvent, ...]:
    """The prompt's events; nobody measured their influences."""
    return tuple(
        TraceEvent(_item_of(data, at), bool(data.log.liked[at]), math.nan)
        for at in checker.events_of(row)
    )


def _item_of(data: Dataset, row: int) -> str:
    item: Item = data.catalogue.items[data.log.item[row]]
    return item.item_id
