"""Features of items in blocks: a kernel between items is a weighted sum of the blocks' products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from rankloom_features.item_statistics import ItemStatistics
from rankloom_training.data import Dataset
from rankloom_training.item_factors import item_factors
from rankloom_training.user_models.labels import Labels
from rankloom_training.user_models.variances import NUM_MEAN_BLOCKS

Float64s = NDArray[np.float64]
YEAR_SCALE = 8.0
NUM_CO_FACTORS = 16
NUM_VECTOR_FACTORS = 64  # of the items' vectors, which have hundreds of numbers
SHRINKAGE = 3.0  # added to an item's number of rows in the cosine of items rated together


@dataclass(frozen=True, slots=True, eq=False)
class ItemFeatures:
    """Attributes, year, item columns, item vectors, items rated together, items liked together.

    ``blocks``: (items, d) each. Where a value is unknown, the item's row of the block is zero.
    """

    blocks: tuple[Float64s, ...]

    @classmethod
    def of(cls, data: Dataset, statistics: ItemStatistics, labels: Labels) -> ItemFeatures:
        """``statistics``, ``labels``: without the users who will be modelled with the features."""
        traits, num = data.catalogue.traits, len(data.catalogue)
        return cls(
            (
                _attributes(traits.attributes),
                _years(traits.year),
                _standardised(data.item_columns.at(np.arange(num))),
                _directions(data.item_vectors, num),
                _unit_rows(_rated_together(labels, num)),
                _unit_rows(statistics.co_liking),
            )
        )

    @property
    def of_means(self) -> ItemFeatures:
        """The features that an item's mean may depend on.

        Which items are liked together depends on the labels that the mean is the mean of: from an
        item that few rated, its label could be read.
        """
        return ItemFeatures(self.blocks[:NUM_MEAN_BLOCKS])

    def weighted(self, variances: Sequence[float]) -> Float64s:
        """(items, sum of d) whose products are the kernel with a variance for each block."""
        scaled = zip(variances, self.blocks, strict=True)
        return np.concatenate([np.sqrt(variance) * block for variance, block in scaled], axis=1)

    @property
    def block_of(self) -> NDArray[np.int64]:
        """(sum of d,) which block each column of the weighted features is of."""
        return np.repeat(np.arange(len(self.blocks)), [block.shape[1] for block in self.blocks])


def strongest(features: Float64s, rank: int) -> Float64s:
    """(items, at most ``rank``) whose products are nearest to those of ``features``, (items, d)."""
    _, vectors = np.linalg.eigh(features.T @ features)  # the strongest come last
    return np.asarray(features @ vectors[:, ::-1][:, :rank])


def _attributes(flags: NDArray[np.float32]) -> Float64s:
    num = np.maximum(flags.sum(axis=1, keepdims=True, dtype=np.float64), 1.0)
    return np.asarray(flags / np.sqrt(num))


def _years(year: NDArray[np.floating]) -> Float64s:
    """Rows whose products are exp(-(difference / YEAR_SCALE)²)."""
    known = ~np.isnan(year)
    years, which = np.unique(year[known], return_inverse=True)
    gaps = (years[:, None] - years) / YEAR_SCALE
    strength, vectors = np.linalg.eigh(np.exp(-(gaps**2)))
    rows = np.zeros((len(year), len(years)))
    rows[known] = (vectors * np.sqrt(np.maximum(strength, 0.0)))[which]
    return rows


def _rated_together(labels: Labels, num_items: int) -> NDArray[np.float32]:
    """(items, k) factors of who rated what, whatever they said of it."""
    ones, at = np.ones(len(labels.user)), (labels.user, labels.item)
    num_users = int(labels.user.max(initial=-1)) + 1
    return item_factors(csr_matrix((ones, at), shape=(num_users, num_items)), SHRINKAGE)


def _directions(vectors: NDArray[np.float32] | None, num_items: int) -> Float64s:
    """(items, k) the strongest factors of the vectors less their mean, of length 1."""
    if vectors is None:
        return np.zeros((num_items, 0))
    known = vectors.any(axis=1)
    centred = np.zeros(vectors.shape)
    centred[known] = vectors[known] - vectors[known].mean(axis=0, dtype=np.float64)
    return _of_length_one(strongest(centred, NUM_VECTOR_FACTORS))


def _unit_rows(factors: NDArray[np.float32]) -> Float64s:
    return _of_length_one(factors[:, -NUM_CO_FACTORS:].astype(np.float64))  # strongest come last


def _of_length_one(rows: Float64s) -> Float64s:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))


def _standardised(values: NDArray[np.float32]) -> Float64s:
    """Columns of mean 0 and one variance, so that a row's products are about 1; 0 where unknown."""
    known = ~np.isnan(values)
    num = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - np.where(known, values, 0.0).sum(axis=0) / num, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / num * max(values.shape[1], 1))
    found = np.divide(centred, spread, out=np.zeros(values.shape), where=spread > 0)
    return np.asarray(found)
