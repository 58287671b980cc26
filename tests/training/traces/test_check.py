"""Any table of traces is checked row by row; what is wrong is counted, and shows no user data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from rankloom._cli.main import main
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.reasons.problems import TraceProblem
from rankloom_training.traces.check import TraceChecker, report_of
from rankloom_training.traces.foreign import read_foreign
from rankloom_training.traces.trace_file import read_traces
from rankloom_training.visibility import Protocol

Rows = list[dict[str, object]]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def log(small_data: Path) -> Dataset:
    return load_dataset(small_data)


def good_rows(log: Dataset, num: int = 12) -> Rows:
    """True traces of rows with an earlier event."""
    items, rows = log.catalogue.items, np.flatnonzero(np.diff(log.log.user, prepend=-1) == 0)
    return [
        {
            "row": int(row),
            "item_id": items[log.log.item[row]].item_id,
            "verdict": "Yes" if log.log.liked[row] else "No",
            "text": f'It follows "{items[log.log.item[row - 1]].title}".',
        }
        for row in rows[:num]
    ]


def broken_rows(log: Dataset) -> tuple[Rows, dict[TraceProblem, list[int]]]:
    """Twelve traces of which the first two are good, and what is wrong with the others."""
    rows, num_rows = good_rows(log), len(log.log)
    changes: list[tuple[TraceProblem, dict[str, object]]] = [
        (TraceProblem.INVENTED_TITLE, {"text": 'You liked "A Dream of Mine".'}),
        (TraceProblem.INVENTED_TITLE, {"text": "You liked A Dream, and The Comedy No 998."}),
        (TraceProblem.WRONG_VERDICT, {"verdict": "No" if rows[4]["verdict"] == "Yes" else "Yes"}),
        (TraceProblem.NO_TEXT, {"text": ""}),
        (TraceProblem.TOO_LONG, {"text": "It is so. " * 10_240}),
        (TraceProblem.NO_VERDICT, {"verdict": "Not"}),
        (TraceProblem.NO_ROW, {"row": num_rows}),
        (TraceProblem.OTHER_ITEM, {"item_id": "i999"}),
        (TraceProblem.REPEATED, rows[0]),
        (TraceProblem.NO_EVENT, {"text": "It is good, and that is all."}),
    ]
    wrong: dict[TraceProblem, list[int]] = {}
    for at, (problem, change) in enumerate(changes, 2):
        rows[at] |= change
        wrong.setdefault(problem, []).append(at + 1)
    return rows, wrong


def write_table(path: Path, rows: Rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def problems_of(log: Dataset, path: Path) -> dict[TraceProblem, list[int]]:
    checked = list(TraceChecker(log, Protocol.P1).checked(read_foreign(path, log)))
    return {problem: list(rows) for problem, rows in report_of(checked).refused.items()}


@pytest.mark.parametrize("name", ["traces.parquet", "traces.csv", "traces.jsonl"])
def test_each_wrong_row_is_refused_with_its_reason(log: Dataset, tmp_path: Path, name: str) -> None:
    rows, wrong = broken_rows(log)
    rows[3]["text"] = 'You liked "The Comedy No 998".'
    assert problems_of(log, write_table(tmp_path / name, rows)) == wrong


def test_the_verdict_may_begin_the_text(log: Dataset, tmp_path: Path) -> None:
    rows = good_rows(log)
    for row in rows:
        row["text"] = f"{row.pop('verdict')}. {row['text']}"
    assert problems_of(log, write_table(tmp_path / "t.csv", rows)) == {}
    rows[1]["text"] = str(rows[1]["text"]).replace(". ", " doubt. ", 1)
    assert problems_of(log, write_table(tmp_path / "t.csv", rows)) == {TraceProblem.NO_VERDICT: [2]}


def test_a_column_and_a_text_that_disagree_are_refused(log: Dataset, tmp_path: Path) -> None:
    rows = good_rows(log)
    other = "No" if rows[0]["verdict"] == "Yes" else "Yes"
    rows[0]["text"] = f"{other}. {rows[0]['text']}"
    assert problems_of(log, write_table(tmp_path / "t.csv", rows)) == {
        TraceProblem.WRONG_VERDICT: [1]
    }


def test_rows_are_found_by_user_and_item(log: Dataset, tmp_path: Path) -> None:
    rows = good_rows(log)
    for row in rows:
        row["user_id"] = log.log.user_ids[int(log.log.user[int(str(row.pop("row")))])]
    rows[2]["user_id"] = "nobody"
    assert problems_of(log, write_table(tmp_path / "t.csv", rows)) == {TraceProblem.NO_ROW: [3]}


def test_events_that_come_later_are_not_in_the_prompt(log: Dataset, tmp_path: Path) -> None:
    rows = good_rows(log, 3)
    later = log.log.item[int(str(rows[0]["row"])) + 2]
    title = log.catalogue.items[int(later)].title
    rows[0]["text"] = f'You will like "{title}".'
    assert problems_of(log, write_table(tmp_path / "t.csv", rows)) == {
        TraceProblem.INVENTED_TITLE: [1]
    }


@pytest.fixture
def command(small_data: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, str]:
        code = main(["traces", "check", "--data", str(small_data), *map(str, words)])
        out, err = capsys.readouterr()
        return code, out + err

    return run


def test_the_command_counts_and_keeps_what_is_sound(
    log: Dataset, tmp_path: Path, command: Command
) -> None:
    rows, wrong = broken_rows(log)
    path, kept = write_table(tmp_path / "foreign.csv", rows), tmp_path / "kept.parquet"
    code, printed = command(path, "--keep", kept)
    num_wrong = sum(map(len, wrong.values()))
    assert code == 1
    assert f"traces   {len(rows)}\nsound    {len(rows) - num_wrong}\n" in printed
    for problem in wrong:
        assert str(problem) in printed
    assert "Dream" not in printed
    assert "The Comedy" not in printed
    traces = read_traces(kept)
    assert [trace.row for trace in traces] == [rows[0]["row"], rows[1]["row"]]
    assert {trace.teacher for trace in traces} == {"foreign.csv"}
    assert command(kept)[0] == 0


def test_the_command_refuses_what_is_no_table_of_traces(tmp_path: Path, command: Command) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "other.csv").write_text("row,colour\n1,red\n")
    (tmp_path / "unrelated.csv").write_text("text\nYes. Fine.\n")
    for name, message in {
        "nowhere.csv": "no such file; pass a table of traces",
        "torn.parquet": "cannot be read as Parquet",
        "other.csv": "no column for text (looked for text, trace, reason",
        "unrelated.csv": "no column row, and none for user and item",
    }.items():
        code, printed = command(tmp_path / name)
        assert code == 2
        assert message in printed
        assert printed.count("\n") == 1
