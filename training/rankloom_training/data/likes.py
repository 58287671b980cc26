"""Which rows are likes: labels, votes or ratings above a threshold that is always stated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.columns import Column
from rankloom_training.data.errors import DataError
from rankloom_training.data.settings import DataSettings
from rankloom_training.data.tables import SourceTable

LIKE_ABOVE = 3.0  # of five stars; other scales need a stated threshold
STARS = 5.0
_SHOWN_VALUES = 11  # a histogram shows each value of so few, else this many ranges less one
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True)
class LikeRule:
    """``like_above``: None for labels and votes. ``low`` and ``high``: the scale's ends.

    ``column``: None where every row is a like. ``unknown``: rows with the value 0, which say
    nothing and are left out.
    """

    column: str | None
    like_above: float | None
    low: float
    high: float
    unknown: int = 0

    def __str__(self) -> str:
        if self.column is None:
            return "every row is a like"
        unknown = f"; {self.unknown:,} rows of 0 are unknown" if self.unknown else ""
        if self.like_above is None:
            return f"{self.column} is {self.high:g} and not {self.low:g}{unknown}"
        scale = f"on a scale from {self.low:g} to {self.high:g}"
        return f"{self.column} above {self.like_above:g} {scale}{unknown}"


@dataclass(frozen=True, slots=True, eq=False)
class Likes:
    """``liked`` and ``known``: (rows,). Rows that are not known have no label."""

    liked: NDArray[np.bool_]
    known: NDArray[np.bool_]
    rule: LikeRule
    warnings: tuple[str, ...] = ()


def read_likes(table: SourceTable, settings: DataSettings) -> Likes:
    """Raises DataError, which names the column, and the row or the histogram."""
    if not table.has("label") and not table.has("rating"):
        return _all_likes(table, settings)
    is_label = table.has("label")
    column = table.column("label" if is_label else "rating")
    name = table.theirs("label" if is_label else "rating")
    values = _values(column)
    known = values != 0.0 if settings.zero_is_unknown else np.ones(len(values), dtype=np.bool_)
    if not known.any():
        raise DataError(f"{column.where}: every row is 0, which zero_is_unknown leaves out")
    scale, unknown = values[known], int((~known).sum())
    low, high = float(scale.min()), float(scale.max())
    if _are_labels(scale):
        rule, warnings = LikeRule(name, None, low, high, unknown), _unused(table, settings)
        return Likes(values > 0.0, known, rule, warnings)
    if is_label:
        raise DataError(
            f"{column.where} has values other than 0 and 1, or -1 and 1 "
            f"({histogram(scale)}); use those, name the column rating, or put zero_is_unknown into "
            f"columns.json if 0 is no vote"
        )
    above = settings.like_above
    if above is None:
        above = _usual_threshold(column, scale)
    rule = LikeRule(name, above, low, high, unknown)
    return Likes(values > above, known, rule, _zeros(column, scale))


def _all_likes(table: SourceTable, settings: DataSettings) -> Likes:
    """Clicks or purchases: there is no column that says what was liked."""
    if settings.implicit is None:
        raise DataError(
            f"{table.name}: no column for rating or label; add one, or name it in columns.json; "
            f"if every row is a like, such as a click, sample negatives with --implicit N"
        )
    every = np.ones(len(table), dtype=np.bool_)
    return Likes(every, every, LikeRule(None, None, 1.0, 1.0))


def _values(column: Column) -> NDArray[np.float64]:
    column.refuse_missing()
    numbers = column.numbers()
    if column.is_text and np.isnan(numbers).all():
        words = [_WORDS.get(text.lower(), np.nan) for text in column.texts()]
        numbers = np.array(words, dtype=np.float64)
    column.refuse_rows(~np.isfinite(numbers), "is not a number; write it with a decimal point")
    return numbers


def _are_labels(scale: NDArray[np.float64]) -> bool:
    """0 and 1, or votes: -1 and 1."""
    values = set(np.unique(scale).tolist())
    return values <= {0.0, 1.0} or values <= {-1.0, 1.0}


def _usual_threshold(column: Column, scale: NDArray[np.float64]) -> float:
    """Refuses a scale other than five stars."""
    low, high = scale.min(), scale.max()
    if low >= 0.0 and high <= STARS and low <= LIKE_ABOVE < high:
        return LIKE_ABOVE
    zeros = (scale == 0.0).any() and low == 0.0
    hint = ", and zero_is_unknown if 0 means not rated" if zeros else ""
    raise DataError(
        f"{column.where} is not a scale of five stars ({histogram(scale)}); say what a like is "
        f"with --like-above X, or with like_above in columns.json{hint}"
    )


def _zeros(column: Column, scale: NDArray[np.float64]) -> tuple[str, ...]:
    """Zeros that lie apart from the other values often mean "not rated"."""
    zeros, others = int((scale == 0.0).sum()), scale[scale != 0.0]
    if not zeros or not len(others) or others.min() < 1.0:
        return ()
    return (
        f"{column.where}: {zeros:,} rows are 0 and count as dislikes; if 0 means not rated, put "
        f'"zero_is_unknown": true into columns.json',
    )


def _unused(table: SourceTable, settings: DataSettings) -> tuple[str, ...]:
    warnings = []
    if settings.like_above is not None:
        warnings.append(f"{table.name}: the values are labels already, so like-above is not used")
    if table.has("label") and table.has("rating"):
        warnings.append(
            f"{table.name}: column {table.theirs('rating')} is not used, since "
            f"{table.theirs('label')} is there"
        )
    return tuple(warnings)


def histogram(values: NDArray[np.float64]) -> str:
    """Shares of each value, or of ten ranges, in one line."""
    found, counts = np.unique(values, return_counts=True)
    if len(found) <= _SHOWN_VALUES:
        names = [f"{value:g}" for value in found]
    else:
        counts, edges = np.histogram(values, bins=_SHOWN_VALUES - 1)
        names = [f"{a:g} to {b:g}" for a, b in pairwise(edges)]
    shares = 100 * counts / max(len(values), 1)
    return ", ".join(f"{name}: {share:.1f} %" for name, share in zip(names, shares, strict=True))
