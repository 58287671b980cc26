"""The item index: finds the items with the largest inner products with a user's vector.

The item vectors themselves belong to the model. An index adds which vectors and items it was made
for, and for large catalogues cells (inverted lists): then only the cells nearest to the user are
searched. Safetensors hold all of it, so that nothing is unpickled or parsed by faiss.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_features.vector_space import VectorSpace

# Its stubs describe the C++ methods, not the Python ones that take arrays.
faiss: Any = import_module("faiss")

MIN_RECALL: Final = 0.95  # of an approximate index, over the users that it is fitted to
FITTED_RECALL: Final = 0.97  # so that other users have MIN_RECALL too
RECALL_AT: Final = 100
# Items that are passed over after a search: a selector makes each comparison of the search slower.
MAX_PASSED_OVER: Final = 256
_ITERATIONS, _POINTS_PER_CELL, _SEED = 10, 64, 0  # of k-means


class ItemIndexError(ValueError):
    """The item index cannot be used; the message says why, and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"item index: {reason}; train the bundle again")


@dataclass(frozen=True, slots=True)
class IndexedVectors:
    """What an index was made for. ``space``: name of the model.

    ``items``, ``vectors``: SHA-256 of the item ids and of the float32 matrix, in catalogue order.
    """

    space: str
    dim: int
    items: str
    vectors: str

    @classmethod
    def of(cls, space: VectorSpace, item_ids: Sequence[str]) -> IndexedVectors:
        """Describes a space's vectors of these items."""
        ids = json.dumps(list(item_ids)).encode()
        return cls(
            space=space.name,
            dim=space.items.shape[1],
            items=hashlib.sha256(ids).hexdigest(),
            vectors=hashlib.sha256(space.items.tobytes()).hexdigest(),
        )

    def check(self, expected: IndexedVectors) -> None:
        """Raises ItemIndexError where the index was made for other vectors than ``expected``."""
        if self.space != expected.space:
            raise ItemIndexError("of another model's vectors")
        if self.items != expected.items:
            raise ItemIndexError("of other items than the catalogue's")
        if self.dim != expected.dim:
            raise ItemIndexError(f"of dimension {self.dim}, the users' vectors have {expected.dim}")
        if self.vectors != expected.vectors:
            raise ItemIndexError("its digest is not that of the item vectors")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where an approximate index looks. ``centroids``: (cells, dim) float32.

    ``cell``: (items,) int64. ``num_probes``: cells that are searched for one user.
    """

    centroids: NDArray[np.float32]
    cell: NDArray[np.int64]
    num_probes: int


class ItemIndex:
    """Searches vectors, exactly without ``cells``. Immutable, and safe from several threads."""

    def __init__(self, vectors: NDArray[np.float32], cells: Cells | None = None) -> None:
        """``vectors``: (items, dim) float32, C-contiguous."""
        self.vectors, self.cells = vectors, cells
        self._index = _exact(vectors) if cells is None else _inverted(vectors, cells)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, user: NDArray[np.float32], num: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most ``num`` catalogue indices, best first, and their inner products.

        ``user``: (dim,). ``allowed``: (items,), None for all. Of equal items, the first in the
        catalogue comes first. Scores do not depend on the kind of the index.
        """
        num_left_out = 0 if allowed is None else len(self) - int(np.count_nonzero(allowed))
        num = min(num, len(self) - num_left_out)
        if not num:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        items = self._nearest(user, num, allowed, num_left_out)
        if len(items) < num:  # the cells searched have too few that are allowed
            items = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        scores = (self.vectors[items] * user).sum(axis=1)
        order = np.lexsort((items, -scores))[:num]
        return items[order], scores[order]

    def _nearest(
        self,
        user: NDArray[np.float32],
        num: int,
        allowed: NDArray[np.bool_] | None,
        num_left_out: int,
    ) -> NDArray[np.int64]:
        """``num`` indices, or fewer where the cells searched have too few that are allowed."""
        if num_left_out > MAX_PASSED_OVER:
            _, found = self._index.search(user[None], num, params=self._parameters(allowed))
            return np.asarray(found[0][found[0] >= 0])
        more = num + num_left_out
        _, found = self._index.search(user[None], more, params=self._parameters(None))
        items = np.asarray(found[0][found[0] >= 0])
        return items if allowed is None else items[allowed[items]][:num]

    def grown(self, vectors: NDArray[np.float32]) -> ItemIndex:
        """This index for more items: ``vectors`` has its rows first, and the new ones behind."""
        if self.cells is None:
            return ItemIndex(vectors)
        new = vectors[len(self) :]
        _, nearest = _exact(self.cells.centroids).search(new, 1)
        cell = np.concatenate([self.cells.cell, nearest[:, 0]])
        return ItemIndex(vectors, Cells(self.cells.centroids, cell, self.cells.num_probes))

    def _parameters(self, allowed: NDArray[np.bool_] | None) -> Any:  # noqa: ANN401
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        if self.cells is None:
            return faiss.SearchParameters(sel=selector)
        return faiss.SearchParametersIVF(sel=selector, nprobe=self.cells.num_probes)

    def to_bytes(self, made_for: IndexedVectors) -> bytes:
        """safetensors: what it was made for as JSON, and the cells if there are any."""
        description = json.dumps(asdict(made_for)).encode()
        tensors: dict[str, NDArray[Any]] = {"made_for": np.frombuffer(description, np.uint8)}
        if self.cells is not None:
            tensors |= {
                "centroids": self.cells.centroids,
                "cell": self.cells.cell,
                "num_probes": np.array([self.cells.num_probes]),
            }
        return bytes(safetensors.numpy.save(tensors))

    @classmethod
    def from_bytes(cls, data: bytes, space: VectorSpace, item_ids: Sequence[str]) -> ItemIndex:
        """Reads what ``to_bytes`` wrote, for a space and a catalogue. Raises ItemIndexError."""
        try:
            tensors = safetensors.numpy.load(data)
            made_for = IndexedVectors(**json.loads(tensors.pop("made_for").tobytes()))
            cells = _cells_of(tensors) if tensors else None
        except Exception as error:  # safetensors' own class is not exported
            raise ItemIndexError("cannot be read") from error
        made_for.check(IndexedVectors.of(space, item_ids))
        if cells is not None:
            _check_cells(cells, space.items.shape)
        return cls(space.items, cells)

    @classmethod
    def built(
        cls,
        vectors: NDArray[np.float32],
        users: NDArray[np.float32],
        max_exact: int,
    ) -> ItemIndex:
        """An exact index, or for more than ``max_exact`` items one with cells.

        ``users``: (n, dim), at least one; the number of probes is the least power of two with
        which they find FITTED_RECALL of their true best RECALL_AT items.
        """
        exact = cls(vectors)
        if len(vectors) <= max_exact:
            return exact
        index, best = cls(vectors, _clustered(vectors)), best_items(exact, users)
        while index.num_probes < index.num_cells:
            if recall(index, users, best) >= FITTED_RECALL:
                return index
            index = index._with_probes(2 * index.num_probes)
        return exact  # cells would save nothing

    @property
    def num_cells(self) -> int:
        """0 for an exact index."""
        return 0 if self.cells is None else len(self.cells.centroids)

    @property
    def num_probes(self) -> int:
        """Cells that are searched for one user; 0 for an exact index."""
        return 0 if self.cells is None else self.cells.num_probes

    def _with_probes(self, num: int) -> ItemIndex:
        """The same index, which is not built again, with another number of probes."""
        other = copy.copy(self)
        other.cells = None if self.cells is None else replace(self.cells, num_probes=num)
        return other


def best_items(exact: ItemIndex, users: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """The best RECALL_AT items of each of the (n, dim) users."""
    return [exact.search(user, RECALL_AT)[0] for user in users]


def recall(
    index: ItemIndex, users: NDArray[np.float32], best: Sequence[NDArray[np.int64]]
) -> float:
    """Mean share of the users' best items that ``index`` finds. ``best``: of an exact index."""
    shares = [
        np.isin(items, index.search(user, RECALL_AT)[0]).mean()
        for user, items in zip(users, best, strict=True)
    ]
    return float(np.mean(shares))


def _exact(vectors: NDArray[np.float32]) -> Any:  # noqa: ANN401
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _inverted(vectors: NDArray[np.float32], cells: Cells) -> Any:  # noqa: ANN401
    """Items are filed as ``cells`` says, so that nothing is clustered again."""
    num, dim = vectors.shape
    quantiser = _exact(cells.centroids)
    index = faiss.IndexIVFFlat(quantiser, dim, len(cells.centroids), faiss.METRIC_INNER_PRODUCT)
    cell = np.ascontiguousarray(cells.cell, np.int64)
    index.add_core(num, faiss.swig_ptr(vectors), None, faiss.swig_ptr(cell))
    return index


def _clustered(vectors: NDArray[np.float32]) -> Cells:
    """Some √n cells of n items, by k-means."""
    num_cells = max(int(np.sqrt(len(vectors))), 1)
    means = faiss.Kmeans(
        vectors.shape[1],
        num_cells,
        niter=_ITERATIONS,
        max_points_per_centroid=_POINTS_PER_CELL,
        min_points_per_centroid=1,
        seed=_SEED,
    )
    means.train(vectors)
    _, nearest = means.index.search(vectors, 1)
    return Cells(np.ascontiguousarray(means.centroids), nearest[:, 0].astype(np.int64), 1)


def _cells_of(tensors: dict[str, NDArray[Any]]) -> Cells:
    centroids = np.ascontiguousarray(tensors["centroids"], np.float32)
    return Cells(centroids, tensors["cell"].astype(np.int64), int(tensors["num_probes"][0]))


def _check_cells(cells: Cells, shape: tuple[int, ...]) -> None:
    num_cells = len(cells.centroids)
    fits = cells.centroids.shape == (num_cells, shape[1]) and cells.cell.shape == (shape[0],)
    if not fits or not np.isfinite(cells.centroids).all():
        raise ItemIndexError("its cells do not fit the item vectors")
    if cells.cell.min() < 0 or cells.cell.max() >= num_cells or cells.num_probes < 1:
        raise ItemIndexError("an item is in a cell that does not exist")
