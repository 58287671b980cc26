"""The Parquet file of rationales: one row for each review, with its writer, source and time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from rankloom_training.data import DataError
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.answer import AnswerProblem

_MARK = {b"rankloom.reccot": b"1"}  # the format's version
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("time", pa.float64()),
        pa.field("text_digest", pa.string()),
        pa.field("think", pa.string()),
        pa.field("answer", pa.float64()),
        pa.field("problem", pa.string()),
        pa.field("repaired", pa.bool_()),
        pa.field("fold", pa.int64()),
        pa.field("generator", pa.string()),
        pa.field("prompt_digest", pa.string()),
        pa.field("written", pa.timestamp("us", "UTC")),
    ],
    metadata=_MARK,
)


@dataclass(frozen=True, slots=True)
class ReviewRationale:
    """Why a review's user rated an item as they did.

    ``think`` is empty, and ``answer`` None, where ``problem`` says why. ``fold``: which of the
    cross-fitted generators wrote it. ``written``: when, UTC.
    """

    user_id: str
    item_id: str
    time: float
    text_digest: str
    think: str
    answer: float | None
    problem: AnswerProblem | None
    repaired: bool
    fold: int
    generator: str
    prompt_digest: str
    written: datetime

    @property
    def text(self) -> str:
        """As a text encoder reads it; empty if there is none."""
        return "" if self.answer is None else f"{self.think} Rating: {self.answer:g}"


def text_digest(text: str) -> str:
    """Half of a SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_rationales(path: Path, rationales: Sequence[ReviewRationale]) -> None:
    """Writes all at once or nothing, in place of an earlier file of rationales."""
    check_rationale_file(path, may_be_missing=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    parquet.write_table(
        pa.Table.from_pylist([asdict(one) for one in rationales], SCHEMA), unfinished
    )
    os.replace(unfinished, path)


def read_rationales(path: Path) -> list[ReviewRationale]:
    """Raises DataError for another kind of file."""
    check_rationale_file(path)
    return [
        ReviewRationale(
            **row | {"problem": AnswerProblem(row["problem"]) if row["problem"] else None}
        )
        for row in parquet.read_table(path).to_pylist()
    ]


def rationales_of(path: Path, reviews: Reviews) -> list[ReviewRationale]:
    """One for each row of the reviews, in their order. Raises DataError if it is not of them."""
    found = read_rationales(path)
    keys = [(one.user_id, one.item_id, one.time, one.text_digest) for one in found]
    if keys != [key_of(reviews, row) for row in range(len(reviews))]:
        raise DataError(
            f"{path}: is not of these reviews; write it anew with `rankloom reccot generate`"
        )
    return found


def key_of(reviews: Reviews, row: int) -> tuple[str, str, float, str]:
    """User, item, time and digest of the text of a row."""
    return (
        reviews.user_ids[reviews.user[row]],
        reviews.catalogue.items[reviews.item[row]].item_id,
        float(reviews.time[row]),
        text_digest(reviews.texts[row]),
    )


def check_rationale_file(path: Path, *, may_be_missing: bool = False) -> None:
    """Raises DataError if ``path`` is not a file of rationales in this format."""
    if may_be_missing and not path.exists():
        return
    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException):
        schema = pa.schema([])
    if not (schema.metadata or {}).items() >= _MARK.items() or schema.names != SCHEMA.names:
        raise DataError(
            f"{path}: is not a file of rationales; choose another, or write one with "
            f"`rankloom reccot generate`"
        )
