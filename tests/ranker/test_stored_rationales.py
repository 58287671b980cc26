"""The file of stored rationales: what is found in it, what it never holds, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rankloom_features.bundled_tables import TablesError, UnreadableTablesError
from rankloom_ranker.stored_rationales import (
    MAX_RATIONALE_CHARS,
    StoredRationale,
    StoredRationales,
    UserRationale,
    write_rationale_part,
)

WRITTEN = datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=UTC)


def one(
    user: str, item: str, text: str = "Warm.", reviewed: float = 1.5, generator: str = "evidence"
) -> UserRationale:
    return UserRationale(user, item, StoredRationale(text, 4.0, reviewed, WRITTEN, generator))


def opened(path: Path, *rationales: UserRationale) -> StoredRationales:
    write_rationale_part(path, rationales)
    return StoredRationales(path, "d")


def test_rationales_are_found_by_user_and_item(tmp_path: Path) -> None:
    given = [one("u", "i", "A."), one("u", "j", "B."), one("v", "i", "C."), one("ui", "", "D.")]
    file = opened(tmp_path / "r", *given)
    for each in given:
        assert file.find(each.user_id, each.item_id) == (each.rationale,)
    assert file.find("v", "j") == file.find("", "ui") == file.find("nobody", "i") == ()


def test_the_newest_review_comes_first_and_a_later_text_replaces_one(tmp_path: Path) -> None:
    file = opened(
        tmp_path / "r",
        one("u", "i", "old", 1.0), one("u", "i", "new", 2.0), one("u", "i", "newest", 2.0),
    )  # fmt: skip
    assert [(each.text, each.reviewed) for each in file.find("u", "i")] == [
        ("newest", 2.0), ("old", 1.0),
    ]  # fmt: skip


def test_texts_are_plain_bounded_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "r"
    hostile = "It\x1b[31m is\u202e\n\tgood\x00 \ud83d".encode("utf-16", "surrogatepass")
    given = [
        one("u", "a", hostile.decode("utf-16", "ignore"), generator="a\nb"),
        one("u", "b", "é" * (MAX_RATIONALE_CHARS + 9)),
        one("u", "c", " \n\x00 "),
    ]
    assert write_rationale_part(path, given) == 2
    file = StoredRationales(path, "d")
    [plain], [long] = file.find("u", "a"), file.find("u", "b")
    assert (plain.text, plain.generator) == ("It [31m is good", "a b")
    assert long.text == "é" * MAX_RATIONALE_CHARS
    assert file.find("u", "c") == ()


def test_no_id_stands_in_the_file_and_equal_rationales_give_equal_bytes(tmp_path: Path) -> None:
    given = [one(f"user-{n}", f"item-{n % 7}", f"Text {n}.") for n in range(500)]
    first, second = tmp_path / "a", tmp_path / "b"
    write_rationale_part(first, given)
    write_rationale_part(second, given[::-1])
    data = first.read_bytes()
    assert data == second.read_bytes()
    assert b"Text 123." in data
    assert b"user-123" not in data
    assert b"item-" not in data


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    given = [one(f"u{n}", "i", f"Text {n}.") for n in range(200)]
    file = opened(tmp_path / "r", *given)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: file.find(each.user_id, "i"), given * 5))
    assert found == [(each.rationale,) for each in given * 5]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        for statement in statements:
            file.execute(statement)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (lambda path: path.write_bytes(b"no database" * 100), "is not a file of"),
    "an empty file": (lambda path: path.write_bytes(b""), "is not a file of"),
    "another application": (
        lambda path: change(path, "PRAGMA application_id=7"), "is not a file of rationales",
    ),
    "a later format": (lambda path: change(path, "PRAGMA user_version=2"), "format 2, this"),
    "a view": (
        lambda path: change(
            path, "DROP TABLE rationales", "CREATE VIEW rationales AS SELECT 1 AS key"
        ),
        "other tables",
    ),
    "a trigger": (
        lambda path: change(
            path, "CREATE TRIGGER t AFTER INSERT ON rationales BEGIN SELECT 1; END"
        ),
        "other tables",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_another_file_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    write_rationale_part(tmp_path / "r", [one("u", "i")])
    spoil(tmp_path / "r")
    with pytest.raises(TablesError, match=message):
        StoredRationales(tmp_path / "r", "d")


def test_a_disk_that_fails_later_is_told_without_the_users_data(tmp_path: Path) -> None:
    given = [one(f"u{n}", "i", "x" * 900) for n in range(2000)]
    file = opened(tmp_path / "r", *given)
    path = tmp_path / "r"
    header, rest = path.read_bytes()[:4096], path.stat().st_size - 4096
    path.write_bytes(header + b"\xff" * rest)
    with pytest.raises(UnreadableTablesError, match="check the disk") as caught:
        [file.find(each.user_id, "i") for each in given]
    assert "u1" not in str(caught.value)
