"""The towers: what a prediction does not depend on, masks, cold rows, and the exported program."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.contrast import Contrast
from rankloom_training.reccot.factors import RatingFactors
from rankloom_training.reccot.tower_files import PROGRAM, REPORT, RatingProgram, write_towers
from rankloom_training.reccot.tower_rows import UNKNOWN, TowerRows, with_ratings
from rankloom_training.reccot.tower_training import (
    TowerOptions,
    match_loss,
    predict,
    train_towers,
)
from rankloom_training.reccot.towers import TowerShape, TwoTowers
from training.reccot.few_reviews import few_reviews, without_row

DIM = 8
QUICK = TowerOptions(hidden=8, heads=2, epochs=2)


def vectors_of(reviews: Reviews) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The rating and noise: enough for towers to learn from."""
    noise = np.random.default_rng(1).normal(size=(len(reviews), DIM)).astype(np.float32)
    noise[:, 0] = reviews.rating - 3.0
    return noise


@pytest.fixture(scope="module")
def reviews() -> Reviews:
    return few_reviews(1200)


@pytest.fixture(scope="module")
def rows(reviews: Reviews) -> TowerRows:
    return TowerRows.of(reviews, vectors_of(reviews))


@pytest.fixture(scope="module")
def model(rows: TowerRows) -> TwoTowers:
    """Untrained, with weights that let every input through."""
    torch.manual_seed(0)
    made = TwoTowers(TowerShape(DIM, hidden=8, heads=2), RatingFactors(*rows.num_codes, 8, 4.0))
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    return made.eval()


def test_a_prediction_does_not_depend_on_its_own_review(
    reviews: Reviews, rows: TowerRows, model: TwoTowers
) -> None:
    """1,000 rows: another vector in place of each row's own changes nothing for that row."""
    some = np.random.default_rng(0).permutation(len(reviews))[:1000]
    given = []
    for row in some.tolist():
        altered = rows.vectors.copy()
        altered[row] = 100.0
        changed = dataclasses.replace(rows, vectors=altered)
        given.append(changed.inputs(np.array([row])).tensors())
    with torch.inference_mode():
        before = model(*rows.inputs(some).tensors())
        after = model(*(torch.cat(columns) for columns in zip(*given, strict=True)))
    assert torch.equal(before, after)


def test_it_does_depend_on_earlier_reviews(
    reviews: Reviews, rows: TowerRows, model: TwoTowers
) -> None:
    row = int(np.flatnonzero((rows.histories.user >= 0).all(axis=1))[0])
    altered = rows.vectors.copy()
    altered[rows.histories.user[row, -1]] = 100.0
    changed = dataclasses.replace(rows, vectors=altered)
    before, after = (predict(model, each, np.array([row])) for each in (rows, changed))
    assert before != pytest.approx(after, abs=1e-5)


@pytest.mark.parametrize("row", [100, 500, 900, 1100])
def test_removing_later_and_own_reviews_changes_nothing_that_is_seen(
    reviews: Reviews, rows: TowerRows, row: int
) -> None:
    """The row is gone from the log: all rows before it see the same, and so did the row."""
    left = without_row(reviews, row)
    histories = TowerRows.of(left, np.delete(rows.vectors, row, axis=0)).histories
    np.testing.assert_array_equal(histories.user[:row], rows.histories.user[:row])
    np.testing.assert_array_equal(histories.item[:row], rows.histories.item[:row])
    seen = (*rows.histories.user[row].tolist(), *rows.histories.item[row].tolist())
    assert max(seen) < row
    assert all(reviews.time[at] < reviews.time[row] for at in seen if at >= 0)


def test_each_side_has_a_mask_of_its_own(rows: TowerRows, model: TwoTowers) -> None:
    given = rows.inputs(np.arange(60, 160))
    generator = torch.Generator().manual_seed(0)
    other = given.item_mask[:, torch.randperm(given.item_mask.shape[1], generator=generator)]
    assert (other != given.item_mask).any()
    changed = dataclasses.replace(given, item_mask=other)
    with torch.inference_mode():
        of_user, of_item = model.features(*given.tensors())
        same_user, other_item = model.features(*changed.tensors())
    assert torch.equal(of_user, same_user)
    assert not torch.allclose(of_item, other_item)


def test_hidden_reviews_say_nothing(rows: TowerRows, model: TwoTowers) -> None:
    given = rows.inputs(np.arange(200))
    hidden = ~given.user_mask[..., None]
    changed = dataclasses.replace(given, user_vectors=given.user_vectors + 50.0 * hidden)
    with torch.inference_mode():
        torch.testing.assert_close(model(*given.tensors()), model(*changed.tensors()))


def test_unknown_users_and_items_share_a_code(reviews: Reviews, rows: TowerRows) -> None:
    training = reviews.rows(Split.TRAIN)
    known = np.isin(reviews.user, reviews.user[training])
    np.testing.assert_array_equal(rows.user == UNKNOWN, ~known)
    alone = dataclasses.replace(reviews, user=np.where(reviews.split > 0, 39, reviews.user % 39))
    cold = TowerRows.of(alone, rows.vectors)
    assert (cold.user[alone.split > 0] == UNKNOWN).all()


def test_a_row_without_any_review_is_predicted(rows: TowerRows, model: TwoTowers) -> None:
    found = predict(model, rows, np.array([0]))
    assert 1.0 <= found[0] <= 5.0


def test_before_the_training_towers_are_matrix_factorisation(rows: TowerRows) -> None:
    factors = RatingFactors(*rows.num_codes, 8, 4.0)
    model = TwoTowers(TowerShape(DIM, hidden=8, heads=2), factors).eval()
    given = rows.inputs(np.arange(50))
    with torch.inference_mode():
        assert torch.equal(model(*given.tensors()), factors(given.user, given.item))


def test_the_rating_of_an_earlier_review_is_seen_and_the_own_one_is_not(
    reviews: Reviews, model: TwoTowers
) -> None:
    vectors = vectors_of(reviews)[:, 1:]
    histories = TowerRows.of(reviews, vectors).histories
    row = int(np.flatnonzero((histories.user >= 0).all(axis=1))[0])

    def predicted(changed: int | None) -> torch.Tensor:
        rating = reviews.rating.copy()
        if changed is not None:
            rating[changed] = 1.0 if rating[changed] > 1.0 else 5.0
        rows = TowerRows.of(reviews, with_ratings(vectors, rating))
        with torch.inference_mode():
            return torch.as_tensor(model(*rows.inputs(np.array([row])).tensors()))

    assert torch.equal(predicted(row), predicted(None))
    assert not torch.allclose(predicted(int(histories.user[row, -1])), predicted(None), atol=1e-4)


def test_ratings_of_reviews_are_from_minus_one_to_one() -> None:
    found = with_ratings(np.zeros((3, 2), np.float32), np.array([1.0, 3.0, 5.0]))
    np.testing.assert_array_equal(found, [[0, 0, -1], [0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("kind", [Contrast.TRIPLET, Contrast.INFO_NCE])
def test_the_match_turns_ids_and_leaves_their_length_and_the_rating(
    rows: TowerRows, model: TwoTowers, kind: Contrast
) -> None:
    own = copy.deepcopy(model)
    given = rows.inputs(np.arange(200, 300))
    of_user, of_item = (each.detach() for each in own.features(*given.tensors()))
    match_loss(kind, own, given, of_user, of_item).backward()
    for table in (own.factors.users, own.factors.items):
        ids, moved = table.vector.weight.detach(), table.vector.weight.grad
        assert moved is not None
        assert moved.abs().max() > 1e-3
        torch.testing.assert_close(
            (ids * moved).sum(dim=1), torch.zeros(len(ids)), atol=1e-5, rtol=0
        )
        assert table.bias.weight.grad is None
    assert all(each.grad is None for each in own.head.parameters())


@pytest.mark.parametrize("match", list(Contrast))
def test_towers_learn_and_are_exported(
    reviews: Reviews, rows: TowerRows, match: Contrast, tmp_path: Path
) -> None:
    options = dataclasses.replace(QUICK, match=match)
    model = train_towers(reviews, rows, options, lambda *_: None)
    write_towers(tmp_path, model, rows, {"seed": 0, "auc": {"1": math.nan, "all": (0.5, 1)}})
    report = json.loads((tmp_path / REPORT).read_text(), parse_constant=pytest.fail)
    assert report == {"seed": 0, "auc": {"1": None, "all": [0.5, 1]}}
    program = RatingProgram((tmp_path / PROGRAM).read_bytes())
    test = reviews.rows(Split.TEST)
    np.testing.assert_allclose(
        np.clip(program.ratings(rows.inputs(test)), 1, 5), predict(model, rows, test), atol=1e-4
    )


def test_equal_seeds_give_equal_towers(reviews: Reviews, rows: TowerRows) -> None:
    test = reviews.rows(Split.TEST)
    first, second = (
        predict(train_towers(reviews, rows, QUICK, lambda *_: None), rows, test) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
