"""`rankloom reccot` from reviews to towers, and what it refuses."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rankloom_training.data.reviews import load_reviews
from rankloom_training.reccot.answer import AnswerProblem
from rankloom_training.reccot.command import reccot
from rankloom_training.reccot.encode import RATIONALES
from rankloom_training.reccot.rationale_file import rationales_of, write_rationales
from rankloom_training.reccot.tower_files import PROGRAM, REPORT


def run(*words: object) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    reccot.configure(parser)
    return reccot.run(parser.parse_args(list(map(str, words))))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "reviews"
    assert run("example", "--out", folder, "--users", 12) == 0
    return folder


def test_from_reviews_to_towers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, encoder, towers = tmp_path / "r.parquet", tmp_path / "encoder", tmp_path / "towers"
    assert run("generate", "--data", data, "--out", file) == 0
    assert run("encode", "--data", data, "--rationales", file, "--out", encoder, "--passes", 1) == 0
    again = capsys.readouterr().out
    assert "of which 0.0% were stored already" in again
    assert run("encode", "--data", data, "--rationales", file, "--out", encoder, "--passes", 1) == 0
    assert "of which 100.0% were stored already" in capsys.readouterr().out
    assert run("towers", "--data", data, "--encoder", encoder, "--out", towers, "--passes", 1) == 0
    shown = capsys.readouterr().out
    reviews = load_reviews(data)
    assert f"{(reviews.split == 2).sum()} test rows" in shown
    for name in ("towers", "global mean", "user mean", "item mean", "MF with biases"):
        assert f"\n{name:<16} " in shown
    report = json.loads((towers / REPORT).read_text())
    assert [each["rating"] for each in report["errors"]["towers"]["by_rating"]] == [1, 2, 3, 4, 5]
    assert (towers / PROGRAM).exists()
    assert len(rationales_of(encoder / RATIONALES, reviews)) == len(reviews)


def test_reports_of_former_rationales_go(data: Path, tmp_path: Path) -> None:
    file, former = tmp_path / "r[1].parquet", tmp_path / "r[1].parquet.7.grpo.json"
    others = tmp_path / "r1.parquet.0.grpo.json"
    for report in (former, others):
        report.write_text("{}")
    assert run("generate", "--data", data, "--out", file) == 0
    assert (former.exists(), others.exists()) == (False, True)


def test_an_encoder_is_not_taught_rationales_that_nobody_could_read(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, reviews = tmp_path / "r.parquet", load_reviews(data)
    assert run("generate", "--data", data, "--out", file) == 0
    unread = [
        replace(each, think="", answer=None, problem=AnswerProblem.NO_OBJECT)
        for each in rationales_of(file, reviews)
    ]
    write_rationales(file, unread)
    given = ("--data", data, "--rationales", file, "--out", tmp_path / "encoder")
    assert run("encode", *given) == 2
    assert "none of its rationales is sound" in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


def test_the_example_has_the_same_bytes_every_time(data: Path, tmp_path: Path) -> None:
    run("example", "--out", tmp_path, "--users", 12)
    for name in ("items.csv", "interactions.csv"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_what_is_wrong_is_said_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r"
    file.write_text("no rationales")
    cases = [
        (("generate", "--data", tmp_path / "x", "--out", file), "no such folder"),
        (("generate", "--data", data, "--out", file), "is not a file of rationales"),
        (
            ("generate", "--data", data, "--out", file, "--base", "b", "--teacher", "t"),
            "--base trains a generator and --teacher asks one",
        ),
        (
            ("encode", "--data", data, "--rationales", file, "--out", tmp_path / "e"),
            "is not a file of rationales",
        ),
        (
            ("towers", "--data", data, "--encoder", tmp_path, "--out", tmp_path / "t"),
            "is not a text encoder; make one with",
        ),
    ]
    for words, message in cases:
        assert run(*words) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
