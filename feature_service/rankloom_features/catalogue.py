"""The catalogue: the items' text, and the numbers that features are computed from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ATTRIBUTE_COLUMNS = 32
MAX_YEAR = 9999


class CatalogueError(ValueError):
    """The catalogue is invalid; the message names the line."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item's text."""

    item_id: str
    title: str = ""
    year: int | None = None
    attributes: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ItemTraits:
    """Numbers of n items.

    ``index``: (n,) int64 catalogue index, -1 for an item that is not in the catalogue.
    ``year``: (n,) float32, NaN where unknown. ``attributes``: (n, A) float32, 0 or 1.
    """

    index: NDArray[np.int64]
    year: NDArray[np.float32]
    attributes: NDArray[np.float32]


class Catalogue:
    """Items in a fixed order, found by id. ``item_ids``: in that order. Immutable."""

    def __init__(self, items: Iterable[Item], columns: Sequence[str] | None = None) -> None:
        """``columns``: the attributes that are features; None: the most frequent ones.

        Raises CatalogueError.
        """
        self.items = tuple(items)
        self._index = {item.item_id: index for index, item in enumerate(self.items)}
        if len(self._index) != len(self.items):
            raise CatalogueError("the catalogue has a duplicate item id")
        self.item_ids = tuple(self._index)
        self.attribute_names = _most_frequent(self.items) if columns is None else tuple(columns)
        self._column = {name: column for column, name in enumerate(self.attribute_names)}
        self.traits = self._traits_of(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def index(self, item_id: str) -> int:
        """Catalogue index of an item, or -1."""
        return self._index.get(item_id, -1)

    def get(self, item_id: str) -> Item | None:
        """The item, or None if it is not in the catalogue."""
        index = self.index(item_id)
        return self.items[index] if index >= 0 else None

    def resolve(self, item: Item) -> Item:
        """The catalogue's item with that id, else the given item."""
        return self.get(item.item_id) or item

    def traits_of(self, items: Sequence[Item]) -> ItemTraits:
        """Traits of any items; the catalogue's text wins over the given text."""
        indices = np.array([self.index(item.item_id) for item in items], dtype=np.int64)
        if (indices >= 0).all():
            return self.traits_at(indices)
        return self._traits_of([self.resolve(item) for item in items])

    def traits_at(self, indices: NDArray[np.int64]) -> ItemTraits:
        """Traits of the items at (n,) catalogue indices, none of them negative."""
        return ItemTraits(indices, self.traits.year[indices], self.traits.attributes[indices])

    def _traits_of(self, items: Sequence[Item]) -> ItemTraits:
        attributes = np.zeros((len(items), len(self.attribute_names)), dtype=np.float32)
        for row, item in enumerate(items):
            for name in item.attributes:
                if name in self._column:
                    attributes[row, self._column[name]] = 1.0
        year = [np.nan if item.year is None else item.year for item in items]
        index = [self.index(item.item_id) for item in items]
        return ItemTraits(
            np.array(index, dtype=np.int64), np.array(year, dtype=np.float32), attributes
        )

    def to_bytes(self) -> bytes:
        """JSON lines, one item per line."""
        lines = (json.dumps(asdict(item), ensure_ascii=False) for item in self.items)
        return "".join(line + "\n" for line in lines).encode()

    @classmethod
    def from_bytes(cls, data: bytes, columns: bytes | None = None) -> Catalogue:
        """``columns``: of ``columns_to_bytes``. Raises CatalogueError, which names the line."""
        items = (_item_of(line, number) for number, line in enumerate(data.splitlines(), 1))
        return cls(items, None if columns is None else _columns_of(columns))

    def columns_to_bytes(self) -> bytes:
        """JSON: the attributes that are features."""
        return json.dumps(self.attribute_names).encode()


def _most_frequent(items: Sequence[Item]) -> tuple[str, ...]:
    counts = Counter(name for item in items for name in item.attributes)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(sorted(ranked[:MAX_ATTRIBUTE_COLUMNS]))


def _columns_of(data: bytes) -> list[str]:
    try:
        names = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CatalogueError("attribute columns: not valid JSON") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CatalogueError("attribute columns: not a list of attributes")
    if len(set(names)) != len(names) or len(names) > MAX_ATTRIBUTE_COLUMNS:
        raise CatalogueError(f"attribute columns: more than {MAX_ATTRIBUTE_COLUMNS}, or repeated")
    return names


def _item_of(line: bytes, number: int) -> Item:
    try:
        fields: dict[str, Any] = json.loads(line)
        if not isinstance(fields["attributes"], list):
            raise TypeError("attributes must be a list")
        fields["attributes"] = tuple(fields["attributes"])
        item = Item(**fields)
        _check_types(item)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CatalogueError(f"catalogue line {number} is not a valid item") from error
    return item


def _check_types(item: Item) -> None:
    """Raises TypeError, or ValueError for text that UTF-8 cannot encode."""
    "".join((item.item_id, item.title, item.description, *item.attributes)).encode()
    if item.year is not None and (type(item.year) is not int or not 0 <= item.year <= MAX_YEAR):
        raise TypeError(f"year must be an integer from 0 to {MAX_YEAR}")
