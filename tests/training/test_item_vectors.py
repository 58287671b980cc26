"""Vectors of items beside the item table: read as they are, or refused with what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import DataError, load_dataset
from rankloom_training.data.item_vectors import FILE_NAME, MAX_NUMBERS
from rankloom_training.data.report import report_lines
from rankloom_training.stages.fingerprint import data_digest
from training.small_log import folder_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


def write(data: Path, ids: object, vectors: object, **more: object) -> None:
    parquet.write_table(pa.table({"item_id": ids, "vector": vectors, **more}), data / FILE_NAME)


def item_ids(data: Path) -> list[str]:
    return [item.item_id for item in load_dataset(data).catalogue.items]


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float16(), 2)])
def test_vectors_are_found_by_id_and_an_item_without_one_has_zeros(
    data: Path, kind: pa.DataType
) -> None:
    first, second, *others = item_ids(data)
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2).cast(kind)
    write(data, ["elsewhere", second, first], vectors, note=["", "", ""])
    dataset = load_dataset(data)
    assert dataset.item_vectors is not None
    assert dataset.item_vectors.dtype == np.float32
    assert dataset.item_vectors[:2].tolist() == [[5.0, 6.0], [3.0, 4.0]]
    assert dataset.item_vectors[2:].tolist() == [[0.0, 0.0]] * len(others)
    assert ("item vectors", f"2 of {2 + len(others)} items, 2 numbers each") in report_lines(
        dataset
    )
    assert data / FILE_NAME in dataset.files


def test_other_vectors_are_other_data(data: Path) -> None:
    plain = load_dataset(data)
    assert plain.item_vectors is None
    vectors = np.eye(len(plain.catalogue), 3, dtype=np.float32)
    one, other = (dataclasses.replace(plain, item_vectors=each) for each in (vectors, -vectors))
    assert len({data_digest(each) for each in (plain, one, other)}) == 3


@pytest.mark.parametrize(
    ("ids", "vectors", "reason"),
    [
        (["a", "a"], [[1.0], [2.0]], "an item occurs twice"),
        (["a", "b"], [[1.0], [2.0, 3.0]], "all vectors must have as many numbers"),
        (["a", "b"], [[1.0], None], "all vectors must have as many numbers"),
        (["a", "b"], [[1.0], [None]], "a number is missing"),
        (["a", "b"], [[1.0], [float("nan")]], "NaN"),
        (["a", "b"], [[1.0], [1e300]], "infinite"),
        (["a", "b"], pa.array([[], []], pa.list_(pa.float32())), "and some"),
        (["a"], [[0.0] * (MAX_NUMBERS + 1)], "more than 4,096 numbers"),
        (["a", None], [[1.0], [2.0]], "an item has no id"),
        ([1, 2], [[1.0], [2.0]], "column item_id must be text"),
        (["a"], [1.0], "column vector must have a list of floats a row"),
        (["a"], [[1]], "column vector must have a list of floats a row"),
        (pa.array([], pa.string()), pa.array([], pa.list_(pa.float32())), "has no rows"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused(
    data: Path, ids: object, vectors: object, reason: str
) -> None:
    write(data, ids, vectors)
    with pytest.raises(DataError, match=f"{FILE_NAME}: .*{reason}.*rankloom items embed"):
        load_dataset(data)


@pytest.mark.parametrize("content", [b"", b"not a table"])
def test_what_is_no_parquet_is_refused(data: Path, content: bytes) -> None:
    (data / FILE_NAME).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_dataset(data)


def test_missing_columns_are_named(data: Path) -> None:
    parquet.write_table(pa.table({"item": ["a"], "embedding": [[1.0]]}), data / FILE_NAME)
    with pytest.raises(DataError, match="item_id and vector"):
        load_dataset(data)
