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


def appeal(data: Dataset, domain: Domain) -> dict[str, float]:
    """Title word → share of likes among the rows of the domain's items that have it."""
    own: dict[str, list[bool]] = {}
    for item, liked in zip(data.log.item.tolist(), data.log.liked.tolist(), strict=True):
        given = data.catalogue.items[item]
        if given.item_id.startswith(domain.name):
            for word in set(given.title.split()):
                own.setdefault(word, []).append(liked)
    return {word: float(np.mean(liked)) for word, liked in own.items() if len(liked) > 50}


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [(FILMS, BOOKS, -1.0, -0.6), (FILMS, GAMES, -0.5, 0.5), (BOOKS, GAMES, -0.5, 0.5)],
    ids=["films and books", "films and games", "books and games"],
)
def test_the_same_words_mean_other_things(
    data: Dataset, one: Domain, other: Domain, low: float, high: float
) -> None:
    first, second = appeal(data, one), appeal(data, other)
    shared = sorted(first.keys() & second.keys())
    assert len(shared) > 30
    found = np.corrcoef([first[word] for word in shared], [second[word] for word in shared])[0, 1]
    assert low < found < high
