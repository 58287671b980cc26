"""The item index finds what a plain product finds, and refuses vectors that it was not made for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankloom_features.item_index import (
    MAX_PASSED_OVER,
    MIN_RECALL,
    Cells,
    IndexedVectors,
    ItemIndex,
    ItemIndexError,
    best_items,
    recall,
)
from rankloom_features.provider import UserFeatures

DIM = 8


@dataclass(frozen=True)
class Space:
    items: NDArray[np.float32]
    name: str = "test"

    def user(self, features: UserFeatures) -> NDArray[np.float32]:
        return features.vector


def vectors(num: int, seed: int = 0, *, clusters: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    found = random.normal(size=(num, DIM))
    if clusters:
        centres = random.normal(size=(clusters, DIM))
        found = centres[random.integers(0, clusters, num)] + 0.2 * found
    return found.astype(np.float32)


def ids(num: int) -> list[str]:
    return [f"i{n}" for n in range(num)]


def best(
    items: NDArray[np.float32], user: NDArray[np.float32], num: int, allowed: NDArray[np.bool_]
) -> list[int]:
    """As a plain product orders them."""
    scores = np.where(allowed, (items * user).sum(axis=1), -np.inf)
    found: list[int] = np.argsort(-scores, kind="stable")[: min(num, int(allowed.sum()))].tolist()
    return found


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 10_000), st.floats(0, 1))
def test_an_exact_index_orders_as_the_products_do(
    num_items: int, num: int, seed: int, share: float
) -> None:
    items, [user] = vectors(num_items, seed), vectors(1, seed + 1)
    allowed = np.random.default_rng(seed).random(num_items) < share
    found, scores = ItemIndex(items).search(user, num, allowed)
    assert found.tolist() == best(items, user, num, allowed)
    np.testing.assert_array_equal(scores, (items[found] * user).sum(axis=1))


@pytest.mark.parametrize("max_exact", [0, 4_000], ids=["cells", "exact"])
@pytest.mark.parametrize("num_left_out", [0, 1, MAX_PASSED_OVER, MAX_PASSED_OVER + 1, 3_950])
def test_what_is_left_out_never_costs_a_place(max_exact: int, num_left_out: int) -> None:
    items, users = vectors(4_000, clusters=40), vectors(5, 1)
    index = ItemIndex.built(items, users, max_exact)
    for user in users:
        allowed = np.ones(len(items), np.bool_)
        allowed[np.argsort(-(items @ user))[:num_left_out]] = False  # the best of all
        found, _ = index.search(user, 60, allowed)
        assert len(found) == min(60, 4_000 - num_left_out)
        assert allowed[found].all()
        if index.cells is None:
            assert found.tolist() == best(items, user, 60, allowed)


def test_equal_items_keep_the_order_of_the_catalogue() -> None:
    items = np.ones((5, DIM), np.float32)
    assert ItemIndex(items).search(items[0], 5)[0].tolist() == [0, 1, 2, 3, 4]


def test_few_items_are_searched_exactly_and_many_in_cells() -> None:
    items, users = vectors(4_000, clusters=40), vectors(20, 1)
    assert ItemIndex.built(items, users, max_exact=4_000).cells is None
    index = ItemIndex.built(items, users, max_exact=3_999)
    assert index.cells is not None
    assert index.cells.num_probes < len(index.cells.centroids)
    others = vectors(50, 2)
    assert recall(index, others, best_items(ItemIndex(items), others)) >= MIN_RECALL
    allowed = np.zeros(len(items), np.bool_)
    allowed[::40] = True  # so few that the cells of a search hold too few of them
    assert index.search(users[0], 100, allowed)[0].tolist() == best(items, users[0], 100, allowed)


def test_an_index_with_cells_is_read_as_it_was_written() -> None:
    items, users = vectors(2_000, clusters=20), vectors(5, 1)
    index = ItemIndex.built(items, users, max_exact=0)
    data = index.to_bytes(IndexedVectors.of(Space(items), ids(2_000)))
    read = ItemIndex.from_bytes(data, Space(items), ids(2_000))
    for user in users:
        for ours, theirs in zip(read.search(user, 50), index.search(user, 50), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_index_without_cells_is_small() -> None:
    items = vectors(1_000)
    data = ItemIndex(items).to_bytes(IndexedVectors.of(Space(items), ids(1_000)))
    assert len(data) < 1_000
    assert ItemIndex.from_bytes(data, Space(items), ids(1_000)).cells is None


REFUSALS = {
    "other vectors": ("its digest is not that of the item vectors", {"vectors": "0" * 64}),
    "another dimension": ("of dimension 9, the users' vectors have 8", {"dim": 9}),
    "other items": ("of other items than the catalogue's", {"items": "0" * 64}),
    "another model": ("of another model's vectors", {"space": "towers"}),
}


@pytest.mark.parametrize(("message", "changes"), REFUSALS.values(), ids=REFUSALS)
def test_an_index_of_something_else_is_refused_in_one_line(
    message: str, changes: dict[str, object]
) -> None:
    space = Space(vectors(10))
    made_for = replace(IndexedVectors.of(space, ids(10)), **changes)  # type: ignore[arg-type]
    data = ItemIndex(space.items).to_bytes(made_for)
    with pytest.raises(ItemIndexError) as caught:
        ItemIndex.from_bytes(data, space, ids(10))
    assert str(caught.value) == f"item index: {message}; train the bundle again"


def cells(**changes: object) -> Cells:
    given = Cells(vectors(3), np.zeros(10, np.int64), 1)
    return replace(given, **changes)  # type: ignore[arg-type]


BAD_CELLS = {
    "an item in no cell": cells(cell=np.full(10, 3)),
    "a negative cell": cells(cell=np.full(10, -1)),
    "too few items": cells(cell=np.zeros(9, np.int64)),
    "centroids of another dimension": cells(centroids=np.zeros((3, DIM + 1), np.float32)),
    "NaN": cells(centroids=np.full((3, DIM), np.nan, np.float32)),
    "no probe": cells(num_probes=0),
}


@pytest.mark.parametrize("bad", BAD_CELLS.values(), ids=BAD_CELLS)
def test_cells_that_do_not_fit_are_refused(bad: Cells) -> None:
    space = Space(vectors(10))
    index = ItemIndex(space.items)
    index.cells = bad
    data = index.to_bytes(IndexedVectors.of(space, ids(10)))
    with pytest.raises(ItemIndexError, match="cell"):
        ItemIndex.from_bytes(data, space, ids(10))


@pytest.mark.parametrize("data", [b"", b"nothing", b"\xff" * 100])
def test_bytes_that_are_no_index_are_refused(data: bytes) -> None:
    with pytest.raises(ItemIndexError, match="cannot be read"):
        ItemIndex.from_bytes(data, Space(vectors(10)), ids(10))


@pytest.mark.parametrize("max_exact", [0, 5_000])
def test_an_index_grows_with_the_catalogue(max_exact: int) -> None:
    items, users = vectors(2_000, clusters=20), vectors(5, 1)
    grown = np.concatenate([items, 3 * users])
    index = ItemIndex.built(items, users, max_exact).grown(grown)
    assert len(index) == 2_005
    assert [index.search(user, 1)[0].item() for user in users] == list(range(2_000, 2_005))
