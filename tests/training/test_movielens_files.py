"""MovieLens' file formats, and the row counts of the published data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import DataError, Split, load_dataset
from training.logs import MOVIELENS, on_movielens, write_csv

MOVIES = [
    (1, "Toy Story (1995)", "Animation|Children's", "Toy Story", 1995, 2),
    (2, "2001: A Space Odyssey (1968)", "Sci-Fi", "2001: A Space Odyssey", 1968, 1),
    (3, "Fabergé, The (Last) Egg (1986)", "Drama", "Fabergé, The (Last) Egg", 1986, 1),
    (4, "No Year Here", "(no genres listed)", "No Year Here", None, 0),
    (5, "Odd (Part II)", "Drama", "Odd (Part II)", None, 1),
]
RATINGS = [(1 + n % 2, 1 + n % 5, (5, 2, 4, 3)[n % 4], 978_300_000 + n) for n in range(40)]


def check_movielens(folder: Path) -> None:
    found = load_dataset(folder)
    for item, (number, _, _, title, year, genres) in zip(
        found.catalogue.items, MOVIES, strict=True
    ):
        assert (item.item_id, item.title, item.year) == (str(number), title, year)
        assert len(item.attributes) == genres
    assert len(found.log) == len(RATINGS)
    assert found.log.user_ids == ("1", "2")
    by_time = np.argsort(found.log.time)
    assert found.log.liked[by_time].tolist() == [rating > 3 for _, _, rating, _ in RATINGS]
    assert np.bincount(found.log.split).tolist() == [28, 6, 6]


def test_movielens_1m_files_are_read(tmp_path: Path) -> None:
    ratings = "".join("::".join(map(str, row)) + "\n" for row in RATINGS)
    (tmp_path / "ratings.dat").write_text(ratings, encoding="latin-1")
    movies = "".join(f"{number}::{title}::{genres}\n" for number, title, genres, *_ in MOVIES)
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    check_movielens(tmp_path)


def test_movielens_latest_files_are_read(tmp_path: Path) -> None:
    ratings = [dict(zip(("userId", "movieId", "rating", "timestamp"), r, strict=True))
               for r in RATINGS]  # fmt: skip
    write_csv(tmp_path / "ratings.csv", ratings)
    movies = [{"movieId": number, "title": title, "genres": genres}
              for number, title, genres, *_ in MOVIES]  # fmt: skip
    write_csv(tmp_path / "movies.csv", movies)
    check_movielens(tmp_path)


@pytest.mark.parametrize("name", ["ratings.dat", "movies.dat"])
def test_a_line_with_missing_fields_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::3\n")
    (tmp_path / "movies.dat").write_text("1::T (1990)::Drama\n")
    with (tmp_path / name).open("a") as file:
        file.write("1::2\n")
    with pytest.raises(DataError, match=name):
        load_dataset(tmp_path)


@on_movielens
def test_movielens_has_the_published_rows_and_rates() -> None:
    log = load_dataset(MOVIELENS).log
    counts = [int((log.split == split).sum()) for split in Split]
    rates = [round(float(log.liked[log.split == split].mean()), 4) for split in Split]
    assert counts == [33_891, 10_401, 7_331]
    assert rates == [0.5368, 0.5283, 0.5454]
    assert (log.num_users, len(load_dataset(MOVIELENS).catalogue)) == (838, 3255)
