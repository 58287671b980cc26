"""Tables of events as files: Parquet and CSV, read and written in parts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankloom_features.events import MAX_TIME_S, MIN_TIME_S
from rankloom_features.wire import MAX_ID_CHARS

COLUMNS: Final = ("user_id", "item_id", "liked", "time")
EVENT_ID: Final = "event_id"
ENDINGS: Final = (".parquet", ".csv")
SCHEMA: Final = pa.schema(
    {
        "user_id": pa.string(), "item_id": pa.string(), "liked": pa.int8(), "time": pa.float64(),
        EVENT_ID: pa.string(),
    }
)  # fmt: skip
BATCH_ROWS: Final = 1 << 19
_BLOCK_BYTES: Final = 1 << 24
_ID_TYPES: Final = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
pc: Any = pyarrow.compute  # its functions are made at import, and so unknown to type checkers

Step = Callable[[int, int], None]  # done, total


class EventTableError(ValueError):
    """A file cannot be read as events: what is wrong, where, and what to do."""


def read_events(path: Path, step: Step) -> Iterator[pa.RecordBatch]:
    """The rows of a file in parts, with the columns of SCHEMA; EVENT_ID only where the file has it.

    Raises EventTableError, which names the column and the row, counted from 1.
    """
    first = 1
    for batch in _batches(path, step):
        yield _checked(batch, path, first)
        first += len(batch)


def _batches(path: Path, step: Step) -> Iterator[pa.RecordBatch]:
    try:
        yield from _of_csv(path, step) if path.suffix == ".csv" else _of_parquet(path, step)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        ending = path.suffix.removeprefix(".")
        raise EventTableError(f"{path}: is not a whole {ending} file; write it anew") from error


def _of_parquet(path: Path, step: Step) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        names, done = _chosen(file.schema_arrow.names, path), 0
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            yield batch
            done += len(batch)
            step(done, file.metadata.num_rows)


def _of_csv(path: Path, step: Step) -> Iterator[pa.RecordBatch]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        names = _chosen(next(csv.reader(text), []), path)
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=names
    )
    read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
    size = path.stat().st_size
    with pa.OSFile(str(path)) as file:
        for batch in pyarrow.csv.open_csv(file, read, convert_options=convert):
            yield batch
            step(file.tell(), size)


def _chosen(names: Sequence[str], path: Path) -> list[str]:
    if missing := [name for name in COLUMNS if name not in names]:
        raise EventTableError(
            f"{path}: lacks the column {missing[0]}; events have {', '.join(COLUMNS)} and perhaps "
            f"{EVENT_ID}, under these names: rename the columns of a training log"
        )
    return [*COLUMNS, *(name for name in (EVENT_ID,) if name in names)]


def _checked(batch: pa.RecordBatch, path: Path, first: int) -> pa.RecordBatch:
    """With the types of SCHEMA. ``first``: number of the first row. Raises EventTableError."""
    columns = {}
    for name in batch.schema.names:
        where = f"{path}: column {name}"
        columns[name] = _CHECKS.get(name, _ids)(batch.column(name), where, first)
    return pa.record_batch(columns)


def _ids(values: pa.Array, where: str, first: int) -> pa.Array:
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise EventTableError(f"{where} holds {kind}; write ids as texts or whole numbers")
    ids = values.cast(pa.string())
    lengths = _numbers(pc.fill_null(pc.utf8_length(ids), 0))
    _refuse(lengths == 0, where, first, "is empty; fill it in or drop the row")
    _refuse(lengths > MAX_ID_CHARS, where, first, f"is longer than {MAX_ID_CHARS} characters")
    return ids


def _likes(values: pa.Array, where: str, first: int) -> pa.Array:
    try:
        texts = values.cast(pa.string())
    except pa.ArrowException as error:
        raise EventTableError(f"{where} holds {values.type}; write 0 or 1") from error
    found = pc.index_in(texts, value_set=pa.array(["0", "1", "false", "true"]))
    remedy = "is neither 0 nor 1; a rating becomes one by a threshold that you choose"
    _refuse(_numbers(pc.is_null(found)).astype(np.bool_), where, first, remedy)
    return pa.array((_numbers(found) % 2).astype(np.int8))


def _times(values: pa.Array, where: str, first: int) -> pa.Array:
    seconds = _seconds(values, where)
    _refuse(~np.isfinite(seconds), where, first, "is not a number; write seconds since 1970")
    outside = (seconds < MIN_TIME_S) | (seconds > MAX_TIME_S)
    remedy = "is not in the years 1 to 9999; write seconds, not milliseconds"
    _refuse(outside, where, first, remedy)
    return pa.array(seconds)


def _seconds(values: pa.Array, where: str) -> NDArray[np.float64]:
    """(n,) NaN where a value is missing or not a number."""
    if pa.types.is_string(values.type):
        number = pc.match_substring_regex(values, r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$")
        values = pc.utf8_trim_whitespace(pc.if_else(number, values, None))
    elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise EventTableError(f"{where} holds {values.type}; write seconds since 1970 as numbers")
    return _numbers(values.cast(pa.float64(), safe=False))


def _numbers(values: pa.Array) -> NDArray[Any]:
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _refuse(wrong: NDArray[np.bool_], where: str, first: int, fault: str) -> None:
    if wrong.any():
        raise EventTableError(f"{where}, row {first + int(wrong.argmax())}: {fault}")


_CHECKS: Final = {"liked": _likes, "time": _times}


def writing(path: Path) -> Any:  # noqa: ANN401
    """What writes tables of SCHEMA to a file of this name, by its ending."""
    if path.suffix == ".csv":
        return pyarrow.csv.CSVWriter(str(path), SCHEMA)
    return pq.ParquetWriter(str(path), SCHEMA, compression="zstd")
