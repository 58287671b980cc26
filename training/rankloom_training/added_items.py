"""A bundle's features with items that came later, at the end of its catalogue.

They are what an item without a training row is: no latent vector, no popularity, nothing rated
together. The bundle knows their text, and a request that names them is one like any other. The
columns of the features stay, so that trees, projector and experts still fit; what is new in the
items' attributes and categories is no feature, and is told to the language model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.encoder import Encoder
from rankloom_features.export import with_items
from rankloom_features.item_columns import ItemColumns
from rankloom_features.item_index import IndexedVectors
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import statistics_from_bytes, statistics_to_bytes
from rankloom_features.scorer import scorer_from_bytes
from rankloom_features.user_model import UserModel
from rankloom_features.vector_space import CollaborativeSpace
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.data import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class AddedItems:
    """The items of a data set that a bundle does not know.

    ``catalogue``: the bundle's items and then these. ``rows``: (new,) their indices in ``data``.
    """

    loaded: LoadedBundle
    data: Dataset
    catalogue: Catalogue
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, loaded: LoadedBundle, data: Dataset) -> AddedItems:
        known, items = loaded.catalogue, data.catalogue.items
        new = [row for row, item in enumerate(items) if known.index(item.item_id) < 0]
        added: list[Item] = [items[row] for row in new]
        catalogue = Catalogue((*known.items, *added), known.attribute_names)
        return cls(loaded, data, catalogue, np.array(new, dtype=np.int64))

    @property
    def is_new(self) -> NDArray[np.bool_]:
        """(items,) of the grown catalogue."""
        return np.arange(len(self.catalogue)) >= len(self.loaded.catalogue)

    def bundle_parts(self) -> dict[str, bytes]:
        """The parts of the bundle that have a row for each item."""
        bundle, num = self.loaded.bundle, len(self.rows)
        vectors = _grown(self.loaded.provider.scorer.vectors, num)
        statistics = statistics_from_bytes(
            bundle.read(parts.ITEM_STATISTICS), len(self.loaded.catalogue)
        )
        made = {
            parts.CATALOGUE: self.catalogue.to_bytes(),
            parts.ATTRIBUTE_COLUMNS: self.catalogue.columns_to_bytes(),
            parts.ENCODER: with_items(bundle.read(parts.ENCODER), num),
            parts.ITEM_VECTORS: bytes(safetensors.numpy.save({"vectors": vectors})),
            parts.ITEM_STATISTICS: statistics_to_bytes(_unrated(statistics, num)),
        }
        made[parts.ITEM_INDEX] = self.item_index(made)
        if parts.USER_MODEL in bundle.parts:
            users = UserModel.from_bytes(bundle.read(parts.USER_MODEL), len(self.loaded.catalogue))
            made[parts.USER_MODEL] = users.with_items(num).to_bytes()
        if parts.ITEM_COLUMNS in bundle.parts:
            before = ItemColumns.from_bytes(
                bundle.read(parts.ITEM_COLUMNS), len(self.loaded.catalogue)
            )
            grown = grown_columns(before, self.data.item_columns, self.rows)
            made[parts.ITEM_COLUMNS] = grown.to_bytes()
        return made

    def item_index(self, made: Mapping[str, bytes]) -> bytes:
        """Of new parts, and of the bundle's own where they are not new."""
        bundle, num = self.loaded.bundle, len(self.catalogue)
        encoder, vectors, statistics = (
            made.get(part) or bundle.read(part)
            for part in (parts.ENCODER, parts.ITEM_VECTORS, parts.ITEM_STATISTICS)
        )
        rows = statistics_from_bytes(statistics, num).rows
        scorer = scorer_from_bytes(Encoder(encoder), vectors, num)
        space = CollaborativeSpace(scorer, rows, sampled=bool(bundle.metadata.get("implicit")))
        index = self.loaded.retriever.index.grown(space.items)
        return index.to_bytes(IndexedVectors.of(space, self.catalogue.item_ids))


def grown_columns(before: ItemColumns, given: ItemColumns, rows: NDArray[np.int64]) -> ItemColumns:
    """The columns of ``before``, with the rows of ``given`` behind: NaN where it lacks a column."""
    unknown = np.full(len(rows), np.nan, np.float32)
    new = [
        given.values[rows, given.names.index(name)] if name in given.names else unknown
        for name in before.names
    ]
    return ItemColumns(before.names, np.concatenate([before.values, np.stack(new, axis=1)]))


def _grown(rows: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """``num`` rows of zeros behind the others."""
    return np.concatenate([rows, np.zeros((num, *rows.shape[1:]), rows.dtype)])


def _unrated(statistics: ItemStatistics, num: int) -> ItemStatistics:
    return ItemStatistics(
        _grown(statistics.rows, num),
        _grown(statistics.likes, num),
        _grown(statistics.co_liking, num),
        _grown(statistics.co_rating, num),
        None if statistics.co_session is None else _grown(statistics.co_session, num),
    )
