"""The Parquet file of item texts, beside the data that they are of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from rankloom_training.data import DataError
from rankloom_training.item_texts.item_text import ItemText

FILE_NAME = "item_texts.parquet"
_MARK = {b"rankloom.item_texts": b"1"}  # the format's version
SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("keywords", pa.list_(pa.string())),
        pa.field("description", pa.string()),
        pa.field("teacher", pa.string()),
        pa.field("prompt_digest", pa.string()),
        pa.field("written", pa.timestamp("us", "UTC")),
    ],
    metadata=_MARK,
)


def write_item_texts(path: Path, texts: Iterable[ItemText]) -> None:
    """Writes all at once or nothing, in place of an earlier file of item texts."""
    check_replaceable(path)
    unfinished = path.with_name(path.name + ".tmp")
    parquet.write_table(pa.Table.from_pylist([asdict(each) for each in texts], SCHEMA), unfinished)
    os.replace(unfinished, path)


def read_item_texts(path: Path) -> dict[str, ItemText]:
    """Texts by item id; none if there is no file. Raises DataError for another kind of file."""
    if not path.exists():
        return {}
    check_replaceable(path)
    rows = parquet.read_table(path).to_pylist()
    texts = (ItemText(**row | {"keywords": tuple(row["keywords"])}) for row in rows)
    return {text.item_id: text for text in texts}


def check_replaceable(path: Path) -> None:
    """Raises DataError if another kind of file is there."""
    if path.exists() and not _is_ours(path):
        raise DataError(f"{path}: is not a file of item texts; move it away")


def _is_ours(path: Path) -> bool:
    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException):
        return False
    return (schema.metadata or {}).items() >= _MARK.items() and schema.names == SCHEMA.names
