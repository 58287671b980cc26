"""A trained bundle with a catalogue of any size, made in memory: all but its items is real.

Items are generated around those of the bundle, so that their vectors and counts are about as alike
as those of items are. No events are about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.item_columns import ItemColumns
from rankloom_features.item_index import ItemIndex
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import statistics_from_bytes
from rankloom_features.provider import FeatureProvider
from rankloom_features.scorer import Scorer
from rankloom_features.tabular import TabularFeatures
from rankloom_features.user_model import UserModel
from rankloom_features.vector_space import CollaborativeSpace
from rankloom_ranker.loaded import BundleFeatures, LoadedBundle, load_bundle
from rankloom_ranker.retrieving import Retriever

SPREAD = 0.5  # of generated vectors around trained ones, in standard deviations of these
Grow = Callable[[LoadedBundle], LoadedBundle]


@contextmanager
def serving_grown(num_items: int) -> Iterator[None]:
    """Servers that start in the block have so many items."""

    def load(*arguments: object) -> LoadedBundle:
        return grown(load_bundle(*arguments), num_items)  # type: ignore[arg-type]

    with patch("rankloom_server.revision_loader.load_bundle", load):
        yield


def grown(loaded: LoadedBundle, num_items: int) -> LoadedBundle:
    """The bundle with ``num_items`` items, more than it has."""
    new = num_items - len(loaded.catalogue)
    items = (Item(f"generated-{n}", f"Generated {n}", 1950 + n % 70) for n in range(new))
    catalogue = Catalogue((*loaded.catalogue.items, *items), loaded.catalogue.attribute_names)
    near = np.random.default_rng(0).integers(0, len(loaded.catalogue), new)
    scorer = _more_vectors(loaded.provider.scorer, near)
    provider = FeatureProvider(
        catalogue,
        loaded.provider.encoder,
        scorer,
        _tabular(loaded, catalogue, new),
        loaded.provider.events,
    )
    popularity = np.append(loaded.features.popularity, loaded.features.popularity[near])
    space = CollaborativeSpace(scorer, popularity, sampled=False)
    retriever = Retriever(catalogue, space, ItemIndex(space.items), popularity)
    retriever.warm()
    features = BundleFeatures(provider, popularity, loaded.features.info)
    return replace(loaded, features=features, retriever=retriever)


def _more_vectors(scorer: Scorer, near: NDArray[np.int64]) -> Scorer:
    """``near``: (new,) the item that each new one is generated around."""
    spread, shape = SPREAD * scorer.vectors.std(), (len(near), scorer.vectors.shape[1])
    noise = np.random.default_rng(1).normal(0.0, spread, shape)
    vectors = np.concatenate([scorer.vectors, scorer.vectors[near] + noise]).astype(np.float32)
    return Scorer(vectors, np.append(scorer.bias, scorer.bias[near]).astype(np.float32))


def _tabular(loaded: LoadedBundle, catalogue: Catalogue, new: int) -> TabularFeatures:
    bundle, known = loaded.bundle, len(loaded.catalogue)
    before = statistics_from_bytes(bundle.read(parts.ITEM_STATISTICS), known)
    statistics = ItemStatistics(
        *(_padded(each, new) for each in (before.rows, before.likes)),
        *(_padded(each, new) for each in (before.co_liking, before.co_rating)),
    )
    users = UserModel.from_bytes(bundle.read(parts.USER_MODEL), known).with_items(new)
    columns = ItemColumns()
    if parts.ITEM_COLUMNS in bundle.parts:
        given = ItemColumns.from_bytes(bundle.read(parts.ITEM_COLUMNS), known)
        columns = ItemColumns(given.names, _padded(given.values, new))
    return TabularFeatures(catalogue, statistics, users, columns)


def _padded(rows: NDArray[np.float32], new: int) -> NDArray[np.float32]:
    return np.concatenate([rows, np.zeros((new, *rows.shape[1:]), np.float32)])
