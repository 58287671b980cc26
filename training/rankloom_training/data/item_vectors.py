"""Vectors of items beside the item table: what a model makes of their text, images or sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from rankloom_features.catalogue import Catalogue
from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.errors import DataError

FILE_NAME = "item_vectors.parquet"
ID, VECTOR = "item_id", "vector"
MAX_NUMBERS = 4096
_WRITE = "; write them with `rankloom items embed`, or as docs/data.md says"


def read_item_vectors(folder: Path, catalogue: Catalogue) -> NDArray[np.float32] | None:
    """(items, dim) from the folder's file, in catalogue order; zero for an item that it lacks.

    None without a file. What it says of other items is left out. Raises DataError.
    """
    if not (folder / FILE_NAME).exists():
        return None
    table = _table(folder / FILE_NAME)
    ids = table.column(ID)
    _refuse(ids.null_count > 0, "an item has no id")
    _refuse(pc.count_distinct(ids).as_py() < len(ids), "an item occurs twice")
    index = np.array([catalogue.index(name) for name in ids.to_pylist()], np.int64)
    vectors = _matrix(table.column(VECTOR).combine_chunks())
    found = np.zeros((len(catalogue), vectors.shape[1]), np.float32)
    found[index[index >= 0]] = vectors[index >= 0]
    return found


def read_vector_rows(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a file of vectors. Raises DataError where they cannot be read."""
    try:
        return parquet.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _fault(f"cannot be read as Parquet with {' and '.join(columns)}") from error


def _table(path: Path) -> pa.Table:
    table = read_vector_rows(path, (ID, VECTOR))
    kinds = {field.name: field.type for field in table.schema}
    _refuse(set(kinds) != {ID, VECTOR}, f"needs the columns {ID} and {VECTOR}")
    _refuse(not _is_text(kinds[ID]), f"column {ID} must be text")
    _refuse(not _is_vector(kinds[VECTOR]), f"column {VECTOR} must have a list of floats a row")
    _refuse(not table.num_rows, "has no rows")
    return table


def _matrix(lists: pa.Array) -> NDArray[np.float32]:
    """(rows, dim)"""
    lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
    _refuse(len(lengths) != 1 or not lengths[0], "all vectors must have as many numbers, and some")
    _refuse(lengths[0] > MAX_NUMBERS, f"a vector has more than {MAX_NUMBERS:,} numbers")
    values = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        found: NDArray[np.float32] = values.astype(np.float32).reshape(len(lists), lengths[0])
    _refuse(not np.isfinite(found).all(), "a number is missing, NaN or infinite")
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_vector(kind: pa.DataType) -> bool:
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _refuse(is_wrong: bool, reason: str) -> None:
    if is_wrong:
        raise _fault(reason)


def _fault(reason: str) -> DataError:
    return DataError(f"{FILE_NAME}: {reason}{_WRITE}")
