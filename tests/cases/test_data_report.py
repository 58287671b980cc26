"""What was read is said before anything is trained."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rankloom_training.data import load_dataset
from rankloom_training.data.report import report_lines
from rankloom_training.data_command import data
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import train_bundle
from training.logs import random_log
from training.small_log import folder_of, good_items, good_rows

DAY_MS = 86_400_000
EXPECTED = {
    "log": "interactions.csv (UTF-8): 12 rows, 2 users, 5 of 5 items",
    "items": "items.csv (UTF-8): T0 (1999); T1 (1999); T2 (1999)",
    "times": "2020 to 2021, in milliseconds",
    "likes": "33.3 % are likes: rating above 3 on a scale from 1 to 5",
    "split": "train 6, valid 3 (66.7 % warm), test 3 (100.0 % warm) rows, as the log says; "
    "warm: user and item have training rows",
    "item columns": "1 for the trees (price), 1 left out (tmdbId)",
    "warning": "interactions.csv: 1 duplicate rows are used once",
}


@pytest.fixture
def stars(tmp_path: Path) -> Path:
    """A log of ratings, its times in milliseconds, and an item table with a price."""
    rows = [
        {
            "user_id": row["user_id"],
            "item_id": "i4" if n == 6 else "i0" if row["item_id"] == "i4" else row["item_id"],
            "rating": 1 + (n % 3) * 2,
            "timestamp": 1_577_880_000_000 + 40 * DAY_MS * n,
            "split": row["split"],
        }
        for n, row in enumerate(good_rows())
    ]
    items = [row | {"price": n, "tmdbId": n, "year": 1999} for n, row in enumerate(good_items())]
    return folder_of(tmp_path, [*rows, rows[3]], items)


def test_the_report_says_what_was_read(stars: Path) -> None:
    assert dict(report_lines(load_dataset(stars))) == EXPECTED


def test_training_begins_with_the_report(stars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = TrainOptions(num_groups=2, collaborative="none of these")
    with pytest.raises(ValueError, match="unknown collaborative model"):
        train_bundle(stars, stars / "out", options, Progress())
    printed = capsys.readouterr().err
    for label, text in EXPECTED.items():
        assert f"{label:<14} {text}\n" in printed


def check(*arguments: object) -> int:
    """Runs `rankloom data check`."""
    parser = argparse.ArgumentParser()
    data.configure(parser)
    return data.run(parser.parse_args(["check", *map(str, arguments)]))


def test_data_check_also_shows_columns_and_rows(
    stars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(stars.iterdir())
    assert check(stars) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    for text in (*EXPECTED.values(), "user ← user_id", "time ← timestamp", "price: number"):
        assert f"{text}\n" in printed
    rows = [line for line in printed.splitlines() if " like " in line or " dislike " in line]
    assert len(rows) == 10
    assert "T0 (1999)" in printed
    assert "2020-01-01 12:00:00" in printed
    assert sorted(stars.iterdir()) == before


def test_texts_of_the_data_do_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [row | {"title": "\x1b[2J[bold]T\n" + "x" * 500} for row in good_items()]
    assert check(folder_of(tmp_path, items=items)) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert " [2J[bold]T " + "x" * 40 in printed
    assert "x" * 60 not in printed


def test_data_check_states_a_threshold(stars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(stars, "--like-above", "1.5") == 0
    assert "rating above 1.5 on a scale from 1 to 5" in capsys.readouterr().out


def test_data_check_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "nowhere") == 2
    out, printed = capsys.readouterr()
    assert (out, printed.count("\n")) == ("", 1)
    assert printed.startswith("rankloom data: ")
    assert "no such folder" in printed


def test_a_log_made_in_memory_has_a_report_too() -> None:
    labels = [label for label, _ in report_lines(random_log(5))]
    assert labels == ["log", "items", "times", "likes", "split"]
