"""Finds a folder's files, and reads them as Arrow tables: columns stay columns.

Text is read as text, so that item "007" is not item "7" and a refusal can name the row.
"""

from __future__ import annotations

import csv as python_csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, dataset, parquet

from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.encodings import TextEncoding, encoding_of, open_lines, open_text
from rankloom_training.data.errors import DataError
from rankloom_training.data.json_lines import read_json_lines

LOG_FILES, ITEM_FILES = ("interactions", "ratings", "reviews"), ("items", "movies")
_AMAZON_ITEMS = "meta_"  # Amazon Reviews 2023: NAME.jsonl has reviews, meta_NAME.jsonl their items
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
    """``how``: the format or encoding, as people write it. ``faults``: of chosen columns that the
    table lacks since they cannot be read.
    """

    table: pa.Table
    how: str
    faults: Mapping[str, str] = field(default_factory=dict)


def find_files(folder: Path, stems: Sequence[str]) -> list[Path]:
    """The files that could be a table: the first is read, and hides the others.

    Raises DataError if there is none.
    """
    if not folder.is_dir():
        fault = "this is a file" if folder.is_file() else "no such folder"
        raise DataError(f"{folder}: {fault}; pass the folder that holds the log")
    names = [f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES]
    names += [name for name in _DAT_HEADERS if name.partition(".")[0] in stems]
    names += stems  # folders of Parquet files
    found = [folder / name for name in names if _is_table(folder / name)]
    found += _amazon_files(folder, stems)
    if not found:
        raise DataError(
            f"{folder}: no file of {stems[0]}; add {stems[0]}.csv, or {' or '.join(stems)} as one "
            f"of {', '.join(_SUFFIXES)} or a folder of Parquet files"
        )
    return found


def _amazon_files(folder: Path, stems: Sequence[str]) -> list[Path]:
    """Reviews or items of Amazon's data set, where a folder has both under their usual names."""
    items = sorted(folder.glob(f"{_AMAZON_ITEMS}*.jsonl*"))
    reviews = [path.with_name(path.name.removeprefix(_AMAZON_ITEMS)) for path in items]
    pairs = [pair for pair in zip(reviews, items, strict=True) if pair[0].is_file()]
    return [pair[stems == ITEM_FILES] for pair in pairs]


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
        for name, own in zip(schema.names, schema.types, strict=True):
            kind, first = kinds.setdefault(name, (own, part))
            if own != kind:
                return (
                    f"column {name} is {own} in {part} and {kind} in {first}; write all parts alike"
                )
    return ""


def _read_text(path: Path, kind: str, choose: Choose) -> FileContent:
    encoding = encoding_of(path)
    how = encoding.name + (", gzip" if path.suffix == ".gz" else "")
    if kind == "jsonl":
        table, faults = read_json_lines(path, encoding, choose)
        return FileContent(table, how, faults)
    if kind == "dat":
        return FileContent(_read_dat(path, encoding, choose), how)
    table, delimiter = _read_csv(path, encoding, choose, tabs=kind == "tsv")
    usual = delimiter == ("\t" if kind == "tsv" else ",")
    return FileContent(table, how if usual else f"{how}, separated by {_DELIMITERS[delimiter]}")


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
    """MovieLens' text, whose fields are separated by ``::``."""
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
            f"{path.name}: row {row} does not have {len(header)} fields separated by '::' "
            f"({encoding.name}); mend the row"
        )
    return pa.table({name: pc.list_element(parts, header.index(name)) for name in choose(header)})
