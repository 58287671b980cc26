from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from feature_service.boosters import COLUMNS, booster
from rankloom_features.export import ExportError
from rankloom_features.ranker import RankerError, TreeRanker
from rankloom_features.tree_export import TOLERANCE, export_trees, raw_scores


@pytest.fixture(scope="module")
def boosters() -> list[lightgbm.Booster]:
    return [booster(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def exported(boosters: list[lightgbm.Booster]) -> bytes:
    return export_trees(boosters)


def test_the_logit_is_the_mean_of_the_boosters(
    boosters: list[lightgbm.Booster], exported: bytes
) -> None:
    rows = np.random.default_rng(9).normal(size=(50, COLUMNS)).astype(np.float32)
    found = TreeRanker(exported).logits(rows)
    expected = np.mean([model.predict(rows, raw_score=True) for model in boosters], axis=0)
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert np.ptp(expected) > 1
    assert found.dtype == np.float64


@pytest.mark.parametrize("column", range(COLUMNS))
def test_an_unknown_value_goes_where_lightgbm_sends_it(
    boosters: list[lightgbm.Booster], exported: bytes, column: int
) -> None:
    """NaN also in a column where training saw none."""
    rows = np.random.default_rng(9).normal(size=(200, COLUMNS)).astype(np.float32)
    known = raw_scores(boosters, rows)
    rows[:, column] = np.nan
    expected = raw_scores(boosters, rows)
    assert np.abs(known - expected).max() > 0.01 or column == 2
    assert TreeRanker(exported).logits(rows) == pytest.approx(expected, abs=TOLERANCE)


def test_a_value_at_a_split_goes_where_lightgbm_sends_it() -> None:
    """Splits are doubles: the nearest float32 may lie on either side."""
    random = np.random.default_rng(0)
    values = random.random(40).astype(np.float32)
    rows = np.repeat(values, 10)[:, None]
    label = rows[:, 0] > np.median(values)
    options = {"objective": "binary", "verbose": -1, "min_data_in_leaf": 1, "num_leaves": 40}
    model = lightgbm.train(options, lightgbm.Dataset(rows, label), 20)
    splits = [
        tree["tree_structure"]["threshold"]
        for tree in model.dump_model()["tree_info"]
        if "threshold" in tree["tree_structure"]
    ]
    near = np.array(splits, np.float32)
    edge = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])[:, None]
    found = TreeRanker(export_trees([model])).logits(edge)
    assert found == pytest.approx(raw_scores([model], edge), abs=TOLERANCE)


def test_a_column_whose_values_are_alike_may_be_missing() -> None:
    """The only split is then known against NaN, at the largest double."""
    random = np.random.default_rng(0)
    features = np.where(random.random((300, 1)) < 0.5, 1.0, np.nan).astype(np.float32)
    label = np.isnan(features[:, 0]) ^ (random.random(300) < 0.2)
    options = {"objective": "binary", "verbose": -1, "num_threads": 1, "extra_trees": True}
    one = lightgbm.train(options, lightgbm.Dataset(features, label), 5)
    known, missing = TreeRanker(export_trees([one])).logits(np.array([[1.0], [np.nan]], np.float32))
    assert known < missing


@pytest.mark.parametrize("size", [1, 2, 19, 50, 51, 300])
def test_a_row_alone_has_the_logit_that_it_has_in_bulk(exported: bytes, size: int) -> None:
    ranker = TreeRanker(exported)
    rows = np.random.default_rng(1).normal(size=(size, COLUMNS)).astype(np.float32)
    alone = [ranker.logits(rows[index : index + 1])[0] for index in range(size)]
    assert alone == ranker.logits(rows).tolist()


def test_no_rows_have_no_logits(exported: bytes) -> None:
    assert TreeRanker(exported).logits(np.zeros((0, COLUMNS), np.float32)).shape == (0,)


def test_a_booster_that_learnt_nothing_is_exported() -> None:
    features = np.random.default_rng(0).normal(size=(30, COLUMNS))
    data = lightgbm.Dataset(features, np.arange(30) % 3 == 0)
    flat = lightgbm.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 30}, data, 2)
    rows = features.astype(np.float32)
    found = TreeRanker(export_trees([flat])).logits(rows)
    assert found == pytest.approx(flat.predict(rows, raw_score=True), abs=TOLERANCE)


def test_the_same_boosters_give_the_same_bytes(
    boosters: list[lightgbm.Booster], exported: bytes
) -> None:
    assert export_trees(boosters) == exported


@pytest.mark.parametrize(
    ("options", "categories"),
    [({}, [0]), ({"zero_as_missing": True}, [])],
    ids=["categories", "zero as missing"],
)
def test_a_split_that_the_export_does_not_know_is_refused(
    options: dict[str, bool], categories: list[int]
) -> None:
    random = np.random.default_rng(0)
    features = random.integers(0, 4, (300, 2)).astype(float)
    label = np.isin(features[:, 0], [0, 2])
    data = lightgbm.Dataset(features, label, categorical_feature=categories)
    settings = {"objective": "binary", "verbose": -1, "min_data_per_group": 5, **options}
    with pytest.raises(ExportError, match="a split on categories"):
        export_trees([lightgbm.train(settings, data, 5)])


@pytest.mark.parametrize("data", [b"", b"garbage", b"tree\nversion=v4\n", b"\xff\xfe"], ids=repr)
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(RankerError):
        TreeRanker(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_refused(exported: bytes, share: float) -> None:
    with pytest.raises(RankerError):
        TreeRanker(exported[: int(share * len(exported))])
