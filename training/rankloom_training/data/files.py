"""Finds a folder's files, and reads them as Arrow tables: columns stay columns.

Text is read as text, so that item "007" is not item "7" and a refusal can name the row.
"""

from __future__ import annotations

import csv as python_csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, dataset, parquet
from pyarrow import json as arrow_json

from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.encodings import TextEncoding, encoding_of, open_lines, open_text
from rankloom_training.data.errors import DataError

LOG_FILES, ITEM_FILES = ("interactions", "ratings"), ("items", "movies")
_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
_DAT_HEADERS = {
    "ratings.dat": ["user_id", "item_id", "rating", "timestamp"],
    "movies.dat": ["item_id", "title", "genres"],
}
_BLOCK_BYTES = 8 << 20  # also the longest row
_NO_TEXT = "\x01"  # a character that no text has
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

Choose = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class FileContent:
    """``how``: the format or encoding, as people write it."""

    table: pa.Table
    how: str


def find_files(folder: Path, stems: Sequence[str]) -> list[Path]:
    """The files that could be a table: the first is read, and hides the others.

    Raises DataError if there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass the folder that holds the log")
    names = [f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES]
    names += [name for name in _DAT_HEADERS if name.partition(".")[0] in stems]
    names += stems  # folders of Parquet files
    found = [folder / name for name in names if _is_table(folder / name)]
    if not found:
        raise DataError(
            f"{folder}: no file of {stems[0]}; add {stems[0]}.csv, or {' or '.join(stems)} as one "
            f"of {', '.join(_SUFFIXES)} or a folder of Parquet files"
        )
    return found


def files_of(path: Path) -> tuple[Path, ...]:
    """The path itself, or the files of a folder of Parquet files but those that Spark hides."""
    if not path.is_dir():
        return (path,)
    found = sorted(path.rglob("*.parquet"))
    return tuple(
        file
        for file in found
        if not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
    )


def read_file(path: Path, choose: Choose) -> FileContent:
    """Reads the columns that ``choose`` picks from the header. Raises DataError."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    is_parquet = path.is_dir() or kind == "parquet"
    try:
        if is_parquet:
            return FileContent(_read_parquet(path, choose), "Parquet")
        return _read_text(path, kind, choose)
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if is_parquet and (fault := _part_fault(path)):
            raise DataError(f"{path.name}: {fault}") from error
        kind = "Parquet" if is_parquet else kind
        raise DataError(f"{path.name}: cannot be read as {kind}; write the file anew") from error


def _is_table(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and bool(files_of(path)))


def _read_parquet(path: Path, choose: Choose) -> pa.Table:
    """One file, or a folder as Spark writes it: ``KEY=VALUE`` folders within it are columns."""
    files = [str(file) for file in files_of(path)]
    if path.is_dir():
        parts = dataset.dataset(
            files, format="parquet", partitioning="hive", partition_base_dir=str(path)
        )
    else:
        parts = dataset.dataset(files, format="parquet")
    return parts.to_table(columns=choose(parts.schema.names))


def _part_fault(path: Path) -> str:
    """Which part of a folder cannot be read, or differs from the first one."""
    kinds: dict[str, tuple[pa.DataType, str]] = {}
    for file in files_of(path):
        part = file.relative_to(path.parent).as_posix()
        try:
            schema = parquet.read_schema(file)
        except (pa.ArrowException, OSError):
            return f"{part} cannot be read as Parquet; write it anew"
        for field in schema:
            kind, first = kinds.setdefault(field.name, (field.type, part))
            if field.type != kind:
                return (
                    f"column {field.name} is {field.type} in {part} and {kind} in {first}; "
                    f"write all parts alike"
                )
    return ""


def _read_text(path: Path, kind: str, choose: Choose) -> FileContent:
    encoding = encoding_of(path)
    how = encoding.name + (", gzip" if path.suffix == ".gz" else "")
    if kind == "jsonl":
        return FileContent(_read_jsonl(path, encoding, choose), how)
    if kind == "dat":
        return FileContent(_read_dat(path, encoding, choose), how)
    table, delimiter = _read_csv(path, encoding, choose, tabs=kind == "tsv")
    usual = delimiter == ("\t" if kind == "tsv" else ",")
    return FileContent(table, how if usual else f"{how}, parted by {_DELIMITERS[delimiter]}")


def _read_csv(
    path: Path, encoding: TextEncoding, choose: Choose, *, tabs: bool
) -> tuple[pa.Table, str]:
    """The table, and what parts its fields."""
    delimiter = "\t" if tabs else _delimiter(path, encoding)
    header = _header(path, encoding, delimiter)
    chosen = choose([name.strip() for name in header])
    names = [name for name in header if name.strip() in chosen]
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=names
    )
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        with open_text(path, encoding) as stream:
            read = csv.ReadOptions(block_size=_BLOCK_BYTES)
            table = csv.read_csv(stream, read, parse, options)
    except pa.ArrowInvalid as error:
        raise _csv_fault(path, encoding, parse, options, error) from error
    return table.rename_columns([name.strip() for name in names]), delimiter


def _csv_fault(
    path: Path,
    encoding: TextEncoding,
    parse: csv.ParseOptions,
    options: csv.ConvertOptions,
    error: pa.ArrowInvalid,
) -> DataError:
    """Which row is wrong. Arrow knows the row only if it reads on one thread."""
    text = str(error)
    try:
        with open_text(path, encoding) as stream:
            read = csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
            csv.read_csv(stream, read, parse, options)
    except pa.ArrowInvalid as again:
        text = str(again)
    if fields := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
        row, wanted, got = map(int, fields.groups())
        return DataError(
            f"{path.name}: row {row - 1} has {got} fields instead of {wanted} ({encoding.name}); "
            f"put fields that hold a delimiter or a line break between quotes"
        )
    if "straddling" in text or "block boundaries" in text:
        size = _BLOCK_BYTES >> 20
        return DataError(f"{path.name}: a row is longer than {size} MiB; close its last quote")
    return DataError(f"{path.name}: cannot be read as {encoding.name}; write the file anew")


def _header(path: Path, encoding: TextEncoding, delimiter: str) -> list[str]:
    with open_lines(path, encoding) as lines:
        rows = python_csv.reader(lines, delimiter=delimiter)
        header = next((row for row in rows if row), None)
    if header is None:
        raise DataError(f"{path.name}: is empty; write a header and rows")
    return header


def _delimiter(path: Path, encoding: TextEncoding) -> str:
    """A comma, or what a header without commas has instead."""
    with open_lines(path, encoding) as lines:
        line = lines.readline()
    return "," if "," in line else max(_DELIMITERS, key=line.count)


def _read_dat(path: Path, encoding: TextEncoding, choose: Choose) -> pa.Table:
    """MovieLens' text, whose fields are parted by ``::``."""
    header = _DAT_HEADERS[path.name]
    read = csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=["line"])
    parse = csv.ParseOptions(delimiter=_NO_TEXT, quote_char=False)
    options = csv.ConvertOptions(column_types={"line": pa.large_string()})
    with open_text(path, encoding) as stream:
        lines = csv.read_csv(stream, read, parse, options).column("line").combine_chunks()
    parts = pc.split_pattern(lines, "::")
    wrong = pc.not_equal(pc.list_value_length(parts), len(header))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py() + 1
        raise DataError(
            f"{path.name}: row {row} does not have {len(header)} fields parted by '::' "
            f"({encoding.name}); mend the row"
        )
    return pa.table({name: pc.list_element(parts, header.index(name)) for name in choose(header)})


def _read_jsonl(path: Path, encoding: TextEncoding, choose: Choose) -> pa.Table:
    """One object per line. Texts stay texts: Arrow alone would read some of them as dates."""
    with open_lines(path, encoding) as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        found = json.loads(first)
        texts = [key for key, value in found.items() if isinstance(value, str)]
        parse = arrow_json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.string()) for name in texts])
        )
        with open_text(path, encoding) as stream:
            read = arrow_json.ReadOptions(block_size=_BLOCK_BYTES)
            table = arrow_json.read_json(stream, read, parse)
    except (AttributeError, ValueError, RecursionError) as error:  # Arrow's are ValueErrors
        raise _jsonl_fault(path, encoding) from error
    return table.select(choose(table.column_names))


def _jsonl_fault(path: Path, encoding: TextEncoding) -> DataError:
    """Which line is wrong: no object, or one whose value is of another kind than before."""
    kinds: dict[str, str] = {}
    with open_lines(path, encoding) as lines:
        for row, line in enumerate(filter(str.strip, lines), 1):
            if fault := _line_fault(line, row, kinds):
                return DataError(f"{path.name}: {fault}")
    return DataError(f"{path.name}: cannot be read as JSON lines; write an object a line")


def _line_fault(line: str, row: int, kinds: dict[str, str]) -> str:
    """Empty for a good line. ``kinds``: of the columns so far."""
    try:
        pairs = json.loads(line, object_pairs_hook=lambda pairs: pairs)
        json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return f"row {row} is not JSON, or has half a character; write an object a line"
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return f"row {row} is not an object; write an object a line"
    if len(dict(pairs)) != len(pairs):
        return f"row {row} gives a column twice; give each one once"
    for name, value in pairs:
        kind = _json_kind(value)
        if kind and kinds.setdefault(name, kind) != kind:
            return (
                f"column {name}: row {row} is {kind}, and an earlier row is {kinds[name]}; "
                f"write it one way"
            )
    return ""


def _json_kind(value: object) -> str:
    names = {str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "")
