"""Reads a file with a JSON object per line; columns of several kinds are faults of their own.

Arrow reads a regular file. Public dumps often are not: a price is a number here and a text there.
Then the lines are looked through one by one, and Arrow reads the columns that are of one kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import json as arrow_json

from rankloom_training.data.encodings import TextEncoding, open_lines, open_text
from rankloom_training.data.errors import DataError

_BLOCK_BYTES = 8 << 20  # also the longest line
_REMEDY = "write an object a line"
_MAX_INT = 2**63 - 1
_LISTS = pa.list_(pa.string())
_KINDS = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_WORDS = {
    pa.string(): "a text",
    pa.bool_(): "true or false",
    pa.int64(): "a number",
    pa.float64(): "a number",
    _LISTS: "a list of texts",
    None: "an object",
}


def read_json_lines(
    path: Path, encoding: TextEncoding, choose: Callable[[Sequence[str]], list[str]]
) -> tuple[pa.Table, Mapping[str, str]]:
    """The chosen columns, and a fault for each that cannot be read. Raises DataError."""
    try:
        table = _read(path, encoding, _schema_of_texts(path, encoding), "infer")
    except (AttributeError, ValueError, RecursionError):  # Arrow's errors are ValueErrors
        lines = _looked_through(path, encoding)
        chosen = choose(list(lines.kinds))
        whole = [name for name in chosen if name not in lines.faults]
        schema = pa.schema([(name, lines.kinds[name]) for name in whole])
        try:
            return _read(path, encoding, schema, "ignore"), lines.faults
        except ValueError as error:
            raise DataError(f"{path.name}: cannot be read as JSON lines; {_REMEDY}") from error
    return table.select(choose(table.column_names)), {}


def _read(path: Path, encoding: TextEncoding, schema: pa.Schema, others: str) -> pa.Table:
    parse = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others)
    with open_text(path, encoding) as stream:
        return arrow_json.read_json(stream, arrow_json.ReadOptions(block_size=_BLOCK_BYTES), parse)


def _schema_of_texts(path: Path, encoding: TextEncoding) -> pa.Schema:
    """Texts of the first line stay texts: Arrow alone would read some of them as dates."""
    with open_lines(path, encoding) as lines:
        first = json.loads(next((line for line in lines if line.strip()), ""))
    return pa.schema([(key, pa.string()) for key, value in first.items() if isinstance(value, str)])


@dataclass(slots=True)
class _Lines:
    """``kinds``: each column's type so far. ``faults``: what is wrong with a column."""

    kinds: dict[str, pa.DataType | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def _looked_through(path: Path, encoding: TextEncoding) -> _Lines:
    """Raises DataError for a line that is no object."""
    found = _Lines()
    with open_lines(path, encoding) as lines:
        for row, line in enumerate(filter(str.strip, lines), 1):
            for name, value in _object_of(path, row, line).items():
                if value is not None:
                    _note(found, row, name, _kind_of(value))
    found.faults |= {name: _WORDS[None] for name, kind in found.kinds.items() if kind is None}
    return found


def _object_of(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line, object_pairs_hook=_each_once)
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name}: row {row} is not JSON, has a column twice or half a character; {_REMEDY}"
        ) from error
    if not isinstance(fields, dict):
        raise DataError(f"{path.name}: row {row} is not an object; {_REMEDY}")
    return fields


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name twice")
    return fields


def _kind_of(value: object) -> pa.DataType | None:
    if isinstance(value, list):
        return _LISTS if all(isinstance(one, str) for one in value) else None
    if isinstance(value, int) and abs(value) > _MAX_INT:
        return pa.float64()
    return _KINDS.get(type(value))


def _note(found: _Lines, row: int, name: str, kind: pa.DataType | None) -> None:
    known = found.kinds.setdefault(name, kind)
    if {known, kind} == {pa.int64(), pa.float64()}:
        found.kinds[name] = pa.float64()
    elif known != kind:
        found.faults.setdefault(
            name,
            f"row {row} is {_WORDS[kind]}, and an earlier row is {_WORDS[known]}; write it one way",
        )
