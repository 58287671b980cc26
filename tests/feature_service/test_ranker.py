from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from rankloom_features.ranker import RankerError, TreeRanker


def booster(seed: int) -> lightgbm.Booster:
    random = np.random.default_rng(seed)
    features = random.normal(size=(300, 4))
    label = features[:, 0] + 0.3 * random.normal(size=300) > 0
    options = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(options, lightgbm.Dataset(features, label), 10)


@pytest.fixture(scope="module")
def models() -> list[lightgbm.Booster]:
    return [booster(seed) for seed in range(3)]


def to_bytes(model: lightgbm.Booster) -> bytes:
    return model.model_to_string().encode()


def test_the_logit_is_the_mean_of_the_boosters(models: list[lightgbm.Booster]) -> None:
    rows = np.random.default_rng(9).normal(size=(20, 4)).astype(np.float32)
    rows[3, 1] = np.nan
    found = TreeRanker([to_bytes(model) for model in models]).logits(rows)
    expected = np.mean([model.predict(rows, raw_score=True) for model in models], axis=0)
    assert found == pytest.approx(expected)
    assert found.dtype == np.float64


def test_a_row_alone_has_the_logit_that_it_has_in_bulk(models: list[lightgbm.Booster]) -> None:
    ranker = TreeRanker([to_bytes(model) for model in models])
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    alone = [ranker.logits(rows[place : place + 1])[0] for place in range(50)]
    assert alone == ranker.logits(rows).tolist()


def test_no_rows_have_no_logits(models: list[lightgbm.Booster]) -> None:
    assert TreeRanker([to_bytes(models[0])]).logits(np.zeros((0, 4), np.float32)).shape == (0,)


@pytest.mark.parametrize("data", [b"", b"garbage", b"tree\nversion=v4\n", b"\xff\xfe"], ids=repr)
def test_bytes_that_are_no_model_are_refused(data: bytes, models: list[lightgbm.Booster]) -> None:
    with pytest.raises(RankerError):
        TreeRanker([to_bytes(models[0]), data])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_refused(
    models: list[lightgbm.Booster], tmp_path: Path, share: float
) -> None:
    """In a process of its own: LightGBM may end the process that reads such a file."""
    path = tmp_path / "model.txt"
    data = to_bytes(models[0])
    path.write_bytes(data[: int(share * len(data))])
    read = "import sys; from pathlib import Path; from rankloom_features.ranker import *\n"
    read += (
        "try: TreeRanker([Path(sys.argv[1]).read_bytes()])\nexcept RankerError: print('refused')"
    )
    ended = subprocess.run([sys.executable, "-c", read, path], capture_output=True, check=False)
    assert ended.returncode == 0
    assert b"refused" in ended.stdout


def test_a_ranker_of_no_models_is_refused() -> None:
    with pytest.raises(RankerError, match="no LightGBM model"):
        TreeRanker([])
