"""Domains have nothing in common but the way in which they are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import Dataset, load_dataset
from rankloom_training.synthetic import read_truth
from rankloom_training.synthetic_domains import (
    BOOKS,
    DOMAINS,
    FILMS,
    GAMES,
    MIXED_SHARE,
    MOODS,
    Domain,
    write_domains,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("domains")
    write_domains(path, DOMAINS)
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load_dataset(folder)


def domain_of(data: Dataset) -> list[str]:
    """The domain of each item."""
    return [item.item_id.partition("-")[0] for item in data.catalogue.items]


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_domains(tmp_path / name, (FILMS, GAMES), num_users=5)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def test_the_log_reads_without_a_warning_and_its_domain_is_a_category(data: Dataset) -> None:
    assert data.warnings == ()
    assert data.item_columns.names == ("domain=books", "domain=films", "domain=games")


def test_attributes_and_titles_are_of_one_domain(data: Dataset) -> None:
    own: dict[str, set[str]] = {}
    titles: dict[str, set[str]] = {}
    for item, domain in zip(data.catalogue.items, domain_of(data), strict=True):
        own.setdefault(domain, set()).update(item.attributes)
        titles.setdefault(domain, set()).add(item.title)
    assert own == {domain.name: set(domain.attributes) for domain in DOMAINS}
    assert not set.intersection(*own.values())
    assert len(set.union(*titles.values())) == len(data.catalogue)


def test_items_are_the_same_alone_and_beside_other_domains(data: Dataset, tmp_path: Path) -> None:
    write_domains(tmp_path, (GAMES,), num_users=20)
    alone = load_dataset(tmp_path)
    assert list(alone.catalogue.items) == [
        data.catalogue.get(i.item_id) for i in alone.catalogue.items
    ]


def test_most_users_have_one_domain(data: Dataset) -> None:
    domains = np.array(domain_of(data))[data.log.item]
    num = [len(set(domains[data.log.user == user])) for user in range(data.log.num_users)]
    assert 0.5 * MIXED_SHARE < np.mean(np.array(num) > 1) < 1.5 * MIXED_SHARE


def test_labels_are_drawn_from_their_probabilities(data: Dataset, folder: Path) -> None:
    truth, log = read_truth(folder), data.log
    position = (np.arange(len(log)) - log.start[log.user]).tolist()
    names = [log.user_ids[user] for user in log.user]
    chance = np.array([truth[key][1] for key in zip(names, position, strict=True)])
    for rows in np.array_split(np.argsort(chance), 10):
        noise = np.sqrt((chance[rows] * (1 - chance[rows])).sum()) / len(rows)
        assert abs(log.liked[rows].mean() - chance[rows].mean()) < 4 * noise


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_a_mood_means_what_its_domain_says(data: Dataset, domain: Domain) -> None:
    items = [data.catalogue.items[item] for item in data.log.item]
    own = np.array([item.item_id.startswith(domain.name) for item in items])
    mean = data.log.liked[own].mean()
    for mood, meaning in zip(MOODS, domain.meaning, strict=True):
        rows = own & [mood in item.title.split() for item in items]
        assert rows.sum() > 100
        assert np.sign(data.log.liked[rows].mean() - mean) == np.sign(meaning)


def test_what_is_liked_in_films_is_disliked_in_books() -> None:
    assert [-meaning for meaning in BOOKS.meaning] == list(FILMS.meaning)
    assert sorted(map(abs, GAMES.meaning)) == sorted(map(abs, FILMS.meaning))
