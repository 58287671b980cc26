"""Which items may be retrieved: by what the user has seen, by id and by attribute."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue

MAX_COMPARED: Final = 1_000  # attributes that a misspelt one is compared with: some milliseconds


class UnknownAttributeError(ValueError):
    """No item has the attribute. ``field``: of ItemSelection; ``index``: of its place there."""

    def __init__(self, field: str, index: int, near: str | None) -> None:
        meant = f"; did you mean {near!r}?" if near else ""
        super().__init__(f"no item of this revision has this attribute{meant}")
        self.field, self.index = field, index


@dataclass(frozen=True, slots=True)
class ItemSelection:
    """Everything that is set must hold.

    ``exclude_seen``: without the items of the user's events. ``exclude_item_ids``: without these.
    ``with_attributes``: with at least one of them, if there are any. ``without_attributes``: with
    none of them.
    """

    exclude_seen: bool = True
    exclude_item_ids: tuple[str, ...] = ()
    with_attributes: tuple[str, ...] = ()
    without_attributes: tuple[str, ...] = ()


ALL_UNSEEN: Final = ItemSelection()


class ItemSelector:
    """Finds the items of one catalogue that a selection allows. Immutable."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._having = _items_by_attribute(catalogue)

    def allowed(self, selection: ItemSelection, seen: Iterable[str]) -> NDArray[np.bool_]:
        """(items,). ``seen``: ids of the user's events. Raises UnknownAttributeError."""
        wanted = [
            self._items("with_attributes", selection.with_attributes, index)
            for index in range(len(selection.with_attributes))
        ]
        allowed = np.full(len(self._catalogue), not wanted)
        for items in wanted:
            allowed[items] = True
        for index in range(len(selection.without_attributes)):
            allowed[self._items("without_attributes", selection.without_attributes, index)] = False
        left_out = (*selection.exclude_item_ids, *(seen if selection.exclude_seen else ()))
        indices = np.array([self._catalogue.index(each) for each in left_out], dtype=np.int64)
        allowed[indices[indices >= 0]] = False
        return allowed

    def _items(self, field: str, attributes: Sequence[str], index: int) -> NDArray[np.int64]:
        attribute = attributes[index]
        if attribute not in self._having:
            near = difflib.get_close_matches(attribute, islice(self._having, MAX_COMPARED), n=1)
            raise UnknownAttributeError(field, index, near[0] if near else None)
        return self._having[attribute]


def _items_by_attribute(catalogue: Catalogue) -> dict[str, NDArray[np.int64]]:
    having: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(catalogue.items):
        for attribute in item.attributes:
            having[attribute].append(index)
    return {name: np.array(items, dtype=np.int64) for name, items in having.items()}
