"""Times in whatever unit a log has them. What is not sure is refused, since a wrong unit trains.

Numbers are counted from 1970, or are written dates such as 20240131 or 20240131235959. A unit
must put every row between the years 1 and LAST_YEAR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_features.events import MAX_TIME_S, MIN_TIME_S
from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.columns import Column
from rankloom_training.data.errors import DataError

LAST_YEAR = 2200  # of a number; a later one is rather in another unit
YEAR_S = 31_556_952  # of the Gregorian calendar, on average
# Unit → its parts per second, and the magnitude from which a number is in that unit: the next
# smaller one would put it beyond the year 5000.
_UNITS = (
    ("seconds", 1.0, 0.0),
    ("milliseconds", 1e3, 1e11),
    ("microseconds", 1e6, 1e14),
    ("nanoseconds", 1e9, 1e17),
)
# Written dates: digits → name. Each has the year in front.
_WRITTEN = {8: "YYYYMMDD", 12: "YYYYMMDDhhmm", 14: "YYYYMMDDhhmmss"}
_FIRST_WRITTEN_YEAR = 1900
# Seconds before it are in a written date's range; no log of seconds spans both sides.
_FIRST_SURE_SECOND = 1e8
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
_REMEDY = "write all times in one unit, as seconds since 1970 or as ISO dates"


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """``seconds``: (rows,) since 1970 UTC. ``unit``: how the file writes them."""

    seconds: NDArray[np.float64]
    unit: str


def read_times(column: Column) -> Times:
    """Raises DataError, which names the row and the year that it would be in."""
    column.refuse_missing()
    found = _read(column)
    outside = (found.seconds < MIN_TIME_S) | (found.seconds > MAX_TIME_S)
    column.refuse_rows(outside, f"is outside the years 1 to 9999; {_REMEDY}")
    return found


def year_of(seconds: float) -> int:
    return int(np.floor(1970 + seconds / YEAR_S))


def _read(column: Column) -> Times:
    kind = column.values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Times(_seconds_of(column.values), "dates")
    if not column.is_text:
        return _of_numbers(column, column.finite_numbers())
    numbers = column.numbers()
    numeric = ~np.isnan(numbers)
    if numeric.all():
        return _of_numbers(column, column.finite_numbers())
    if numeric.any():
        column.refuse_rows(~numeric, f"is not a number, and other rows are; {_REMEDY}")
    return Times(_iso_seconds(column), "ISO dates")


def _seconds_of(values: pa.Array) -> NDArray[np.float64]:
    kind = values.type
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    micros = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return np.asarray(micros.to_numpy(zero_copy_only=False) / 1e6)


def _of_numbers(column: Column, numbers: NDArray[np.float64]) -> Times:
    written = _written_dates(column, numbers)
    if written is not None:
        return written
    magnitude = np.abs(numbers)
    unit = np.searchsorted([least for _, _, least in _UNITS], magnitude, side="right") - 1
    name, per_second, _ = _UNITS[int(unit.max(initial=0))]
    seconds = numbers / per_second
    smaller = unit < unit.max(initial=0)
    if smaller.any():
        row = int(smaller.argmax())
        raise DataError(
            f"{column.where}: mixed units: as {name}, which other rows are in, row {row + 1} "
            f"would be in the year {year_of(seconds[row])}; {_REMEDY}"
        )
    late = seconds > (LAST_YEAR + 1 - 1970) * YEAR_S
    if late.any():
        row = int(late.argmax())
        raise DataError(
            f"{column.where}: row {row + 1} would be in the year {year_of(seconds[row])} "
            f"as {name}; {_REMEDY}"
        )
    return Times(seconds, name)


def _written_dates(column: Column, numbers: NDArray[np.float64]) -> Times | None:
    """Times if all numbers are written dates. Refuses a mixture with seconds."""
    if not len(numbers) or not (numbers == np.trunc(numbers)).all():
        return None
    digits = len(str(int(np.abs(numbers).max())))
    if digits in _WRITTEN:
        seconds, valid = _parse_written(numbers.astype(np.int64), digits)
        if valid.all():
            return Times(seconds, _WRITTEN[digits])
    small = np.abs(numbers) < _FIRST_SURE_SECOND
    if small.any() and not small.all():
        _, valid = _parse_written(numbers[small].astype(np.int64), 8)
        if valid.all():
            column.refuse_rows(small, f"is a date such as 20240131, and others are not; {_REMEDY}")
    return None


def _parse_written(
    numbers: NDArray[np.int64], digits: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Seconds since 1970, and whether each number is a date of so many digits."""
    date, clock = np.divmod(numbers, 10 ** (digits - 8))
    clock *= 10 ** (14 - digits)  # as hhmmss
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    valid = (year >= _FIRST_WRITTEN_YEAR) & (year <= LAST_YEAR) & (month >= 1) & (month <= 12)
    months = np.where(valid, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    valid &= (day >= 1) & (days.astype("datetime64[M]") == months)
    valid &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = days.astype(np.int64) * 86_400 + hour * 3600 + minute * 60 + second
    return seconds.astype(np.float64), valid


def _iso_seconds(column: Column) -> NDArray[np.float64]:
    """Without a time zone it is UTC. BigQuery writes `` UTC`` for ``Z``."""
    texts = pc.utf8_trim_whitespace(column.values)
    texts = pc.replace_substring_regex(texts, pattern=r"\s*UTC$", replacement="Z")
    zoned = pc.and_(pc.match_substring_regex(texts, _ZONE), pc.greater(pc.binary_length(texts), 10))
    try:
        with_zone = pc.if_else(zoned, texts, None).cast(pa.timestamp("us", "UTC"))
        naive = pc.if_else(zoned, None, texts).cast(pa.timestamp("us"))
    except pa.ArrowException:
        return _one_by_one(column, texts)
    both = pc.coalesce(with_zone.cast(pa.timestamp("us")), naive)
    return _seconds_of(both)


def _one_by_one(column: Column, texts: pa.Array) -> NDArray[np.float64]:
    """Rarer ISO forms, and the row that has none."""
    parse: Callable[[str], datetime] = datetime.fromisoformat
    seconds = np.empty(len(texts), dtype=np.float64)
    for row, text in enumerate(texts.to_pylist()):
        try:
            moment = parse(text)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds[row] = aware.timestamp()
        except (ValueError, OverflowError):
            raise DataError(f"{column.where}: row {row + 1} is not a time; {_REMEDY}") from None
    return seconds
