from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from rankloom_features.item_columns import ItemColumns, ItemColumnsError

VALUES = np.array([[7.5, np.nan], [np.nan, 1.0], [3.0, 0.0]], dtype=np.float32)


@pytest.fixture
def columns() -> ItemColumns:
    return ItemColumns(("rating", "studio=Überfilm"), VALUES.copy())


def test_columns_survive_their_bytes(columns: ItemColumns) -> None:
    read = ItemColumns.from_bytes(columns.to_bytes(), 3)
    assert read.names == columns.names
    np.testing.assert_array_equal(read.values, VALUES)
    assert read.to_bytes() == columns.to_bytes()


def test_an_unknown_item_has_no_values(columns: ItemColumns) -> None:
    found = columns.at(np.array([2, -1, 0]))
    np.testing.assert_array_equal(found, [VALUES[2], [np.nan, np.nan], VALUES[0]])


def test_without_columns_any_catalogue_fits() -> None:
    none = ItemColumns.from_bytes(ItemColumns().to_bytes(), 5)
    assert len(none) == 0
    assert none.at(np.array([4, -1])).shape == (2, 0)


def test_values_cannot_be_changed(columns: ItemColumns) -> None:
    with pytest.raises(ValueError, match="read-only"):
        columns.values[0, 0] = 1.0


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("a", "a"), VALUES),
        (("a", ""), VALUES),
        (("a",), VALUES),
        (("a", "b"), VALUES.astype(np.float64)),
        (("a", "b"), np.full((3, 2), np.inf, np.float32)),
        (("a",), VALUES[:, 0]),
        (tuple(map(str, range(300))), np.zeros((1, 300), np.float32)),
    ],
)
def test_columns_that_do_not_fit_are_refused(names: tuple[str, ...], values: np.ndarray) -> None:
    with pytest.raises(ItemColumnsError):
        ItemColumns(names, values.copy())


def test_columns_of_another_catalogue_are_refused(columns: ItemColumns) -> None:
    with pytest.raises(ItemColumnsError, match="another catalogue"):
        ItemColumns.from_bytes(columns.to_bytes(), 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        safetensors.numpy.save({"values": VALUES}),
        safetensors.numpy.save({"values": VALUES, "names": np.frombuffer(b"[1, 2]", np.uint8)}),
        safetensors.numpy.save({"values": VALUES, "names": np.frombuffer(b'{"a', np.uint8)}),
    ],
)
def test_broken_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ItemColumnsError):
        ItemColumns.from_bytes(data, 3)
