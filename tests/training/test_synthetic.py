from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.metrics import auc
from rankloom_training.synthetic import GROUPS, NUM_ITEMS, NUM_USERS, read_truth, write_synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic")
    write_synthetic(path)
    return path


@pytest.fixture(scope="module")
def synthetic(folder: Path) -> Dataset:
    return load_dataset(folder)


def chances(synthetic: Dataset, folder: Path) -> np.ndarray:
    """The probability that each row's label was drawn from."""
    log, truth = synthetic.log, read_truth(folder)
    position = np.arange(len(log)) - log.start[log.user]
    names = [log.user_ids[code] for code in log.user]
    return np.array([truth[key][1] for key in zip(names, position.tolist(), strict=True)])


def test_the_same_bytes_are_written_every_time(folder: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    names = ["interactions.csv", "items.csv", "truth.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_log_reads_without_a_warning(synthetic: Dataset) -> None:
    assert synthetic.warnings == ()
    assert (synthetic.log.num_users, len(synthetic.catalogue)) == (NUM_USERS, NUM_ITEMS)
    assert len({item.title for item in synthetic.catalogue.items}) == NUM_ITEMS


def test_every_split_has_both_classes(synthetic: Dataset) -> None:
    for split in Split:
        liked = synthetic.log.liked[synthetic.log.split == split]
        assert 0.2 < liked.mean() < 0.8
        assert len(liked) > 1000


def test_the_truth_has_every_row_and_user_of_the_log(synthetic: Dataset, folder: Path) -> None:
    truth = read_truth(folder)
    assert len(truth) == len(synthetic.log)
    groups: dict[str, set[str]] = {}
    for (user, _), (group, probability) in truth.items():
        groups.setdefault(user, set()).add(group)
        assert 0 < probability < 1
    assert all(len(own) == 1 for own in groups.values())
    assert set.union(*groups.values()) == set(GROUPS)
    assert set(groups) == set(synthetic.log.user_ids)


def test_labels_are_drawn_from_their_probabilities(synthetic: Dataset, folder: Path) -> None:
    chance, liked = chances(synthetic, folder), synthetic.log.liked
    order = np.argsort(chance)
    for rows in np.array_split(order, 10):
        noise = np.sqrt((chance[rows] * (1 - chance[rows])).sum()) / len(rows)
        assert abs(liked[rows].mean() - chance[rows].mean()) < 4 * noise
    assert 0.65 < auc(liked, chance) < 0.9


def test_each_group_prefers_the_genres_that_it_loves(synthetic: Dataset, folder: Path) -> None:
    truth, log = read_truth(folder), synthetic.log
    group = np.array([truth[log.user_ids[user], 0][0] for user in log.user])
    attributes = [synthetic.catalogue.items[item].attributes for item in log.item]
    for name, (loved, avoided) in GROUPS.items():
        rates = [
            log.liked[(group == name) & [bool(set(own) & set(genres)) for own in attributes]].mean()
            for genres in (loved, avoided)
        ]
        assert rates[0] > rates[1] + 0.3


def test_a_folder_without_a_truth_has_none(tmp_path: Path) -> None:
    assert read_truth(tmp_path) == {}
