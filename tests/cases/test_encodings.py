"""MovieLens' editions differ in encoding: it is found out, named, and never guessed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_training.data import load_dataset
from training.small_log import LOG, folder_of, good_items, good_rows, refusal

TITLE = "Amélie €"  # the sign is not in Latin-1
LATIN_TITLE = "Fabergé, Señor"


def movielens(folder: Path, title: str, codec: str) -> Path:
    ratings = "".join(
        f"{1 + n % 2}::{1 + n % 5}::{(5, 2, 4, 3)[n % 4]}::{978_300_000 + n}\n" for n in range(40)
    )
    (folder / "ratings.dat").write_text(ratings)
    movies = "".join(f"{n}::{title} (1995)::Drama\n" for n in range(1, 6))
    (folder / "movies.dat").write_text(movies, encoding=codec)
    return folder


@pytest.mark.parametrize(
    ("codec", "title", "name"),
    [
        ("utf-8", TITLE, "UTF-8"),
        ("utf-8-sig", TITLE, "UTF-8 with BOM"),
        ("utf-16", TITLE, "UTF-16"),
        ("utf-16-le", TITLE, "UTF-16"),
        ("utf-16-be", TITLE, "UTF-16"),
        ("latin-1", LATIN_TITLE, "Latin-1"),
        ("cp1252", TITLE, "Windows-1252"),
    ],
)
def test_movies_dat_is_read_in_any_encoding(
    tmp_path: Path, codec: str, title: str, name: str
) -> None:
    found = load_dataset(movielens(tmp_path, title, codec))
    assert {item.title for item in found.catalogue.items} == {title}
    assert found.source is not None
    assert found.source.items.how == name


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_each_kind_of_text_is_read_in_any_encoding(tmp_path: Path, codec: str, suffix: str) -> None:
    folder_of(tmp_path)
    (tmp_path / "items.csv").unlink()
    rows = [(f"i{n}", LATIN_TITLE) for n in range(5)]
    if suffix == ".jsonl":
        lines = [f'{{"item_id": "{item}", "title": "{title}"}}' for item, title in rows]
    else:
        mark = {".csv": ",", ".tsv": "\t"}[suffix]
        lines = [f"item_id{mark}title", *(f'{item}{mark}"{title}"' for item, title in rows)]
    (tmp_path / f"items{suffix}").write_text("\n".join(lines) + "\n", encoding=codec)
    catalogue = load_dataset(tmp_path).catalogue
    assert {item.title for item in catalogue.items} == {LATIN_TITLE}


def test_a_file_of_two_encodings_is_refused_by_line(tmp_path: Path) -> None:
    movielens(tmp_path, LATIN_TITLE, "latin-1")
    with (tmp_path / "movies.dat").open("a", encoding="utf-8") as file:
        file.write(f"6::{TITLE}::Drama\n")
    message = refusal(tmp_path)
    assert message.startswith("movies.dat: line 6 is UTF-8, but line 1 is not")
    assert "save the file as UTF-8" in message


def test_utf_32_and_zero_bytes_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    text = (tmp_path / LOG).read_text()
    (tmp_path / LOG).write_text(text, encoding="utf-32")
    assert "UTF-32 is not read; save the file as UTF-8" in refusal(tmp_path)
    (tmp_path / LOG).write_bytes(text.encode() + b"\0\0\0")
    assert "zero bytes" in refusal(tmp_path)


def test_a_wrong_row_is_refused_by_number_and_encoding(tmp_path: Path) -> None:
    folder_of(tmp_path, good_rows(), good_items())
    with (tmp_path / LOG).open("a") as file:
        file.write("a,i1,1\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{LOG}: row 13 has 3 fields instead of 5 (UTF-8); ")
