"""Reads any table of traces: ours, or one that others made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import DataError, Dataset
from rankloom_training.data.columns import Column
from rankloom_training.data.settings import LOG_COLUMNS
from rankloom_training.data.tables import SourceTable
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.reasons.verdicts import split_verdict

TRACE_COLUMNS = {
    "text": ("text", "trace", "reason", "explanation", "output", "response"),
    "row": ("row",),
    "user": LOG_COLUMNS["user"],
    "item": LOG_COLUMNS["item"],
    "verdict": ("verdict", "prediction", "label", "liked"),
    "problem": ("problem",),
}
_VERDICTS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class ForeignTrace:
    """``number``: of the row in the file, from 1. ``row``: of the log, -1 if there is none.

    ``item_id``: None if the file has no items. ``verdicts``: what column and text say; None if
    one says nothing that can be understood. ``problem``: which the file itself states.
    """

    number: int
    row: int
    item_id: str | None
    verdicts: tuple[bool | None, ...]
    text: str
    problem: TraceProblem | None = None


def read_foreign(path: Path, data: Dataset) -> Iterator[ForeignTrace]:
    """Raises DataError if the file cannot be read, or says not which rows it is about."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; pass a table of traces")
    table = SourceTable(path, TRACE_COLUMNS, {})
    table.theirs("text")  # refuses a table without texts
    texts, problems = table.texts("text"), [*map(_stated, table.texts("problem"))]
    items = table.texts("item") if table.has("item") else [None] * len(table)
    given = table.texts("verdict") if table.has("verdict") else None
    for at, (row, item, text) in enumerate(zip(_rows(table, data), items, texts, strict=True)):
        verdict, rest = split_verdict(text)
        found = () if given is None else (_VERDICTS.get(given[at].strip().lower()),)
        said = found if verdict is None and found else (*found, verdict)
        yield ForeignTrace(at + 1, int(row), item, said, rest, problems[at])


def _stated(problem: str) -> TraceProblem | None:
    known = {str(each): each for each in TraceProblem}
    return known.get(problem, TraceProblem.REFUSED) if problem else None


def _rows(table: SourceTable, data: Dataset) -> NDArray[np.int64]:
    """(rows,) of the sorted log, -1 where there is none: as given, or by user and item."""
    if table.has("row"):
        return _known(table.column("row"), len(data.log))
    if not (table.has("user") and table.has("item")):
        raise DataError(
            f"{table.name}: no column row, and none for user and item; add the number of each "
            f"row in the sorted log, or both ids"
        )
    log, items = data.log, data.catalogue.items
    by_ids = {
        (log.user_ids[user], items[item].item_id): row
        for row, (user, item) in enumerate(zip(log.user.tolist(), log.item.tolist(), strict=True))
    }
    pairs = zip(table.texts("user"), table.texts("item"), strict=True)
    return np.array([by_ids.get(pair, -1) for pair in pairs], dtype=np.int64)


def _known(column: Column, num_rows: int) -> NDArray[np.int64]:
    numbers = column.numbers()
    known = (numbers >= 0) & (numbers < num_rows) & (numbers == np.floor(numbers))
    return np.where(known, numbers, -1).astype(np.int64)
