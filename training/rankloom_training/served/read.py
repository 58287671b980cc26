"""Reads the files that a server wrote with `--log-served`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankloom_ranker.served import KEY_BYTES, KEY_FILE, SCHEMA
from rankloom_training.data import DataError


def served_files(folder: Path) -> list[Path]:
    """The finished files, oldest first. Raises DataError where there are none."""
    files = sorted(folder.glob("served-*.parquet"))
    if not files:
        raise DataError(
            f"{folder}: holds no served rankings; give the folder of: rankloom serve --log-served"
        )
    return files


def served_tables(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    """These columns of each file. Raises DataError for a file that is something else."""
    for file in files:
        try:
            table = pq.read_table(file, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read; remove it, or restore it") from error
        if table.schema != pa.schema([SCHEMA.field(name) for name in columns]):
            raise DataError(f"{file}: has not the columns of served rankings; remove it")
        yield table


def user_key(folder: Path) -> bytes:
    """The key under which the folder's rows name users. Raises DataError."""
    path = folder / KEY_FILE
    try:
        key = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read; keep it beside the files of rankings") from error
    if len(key) != KEY_BYTES:
        raise DataError(f"{path}: is no key of {KEY_BYTES} bytes; restore it")
    return key
