"""The commands as a user calls them. An error of the user is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rankloom._cli.main import main
from rankloom_features.event_store.store import EventStoreError
from rankloom_features.export import ExportError
from rankloom_training.commands import TrainingCommand
from rankloom_training.serving import ServerStartError
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.traces.trace_file import write_traces
from training.logs import write_csv
from training.reasons.random_cases import random_case

Refusal = Callable[..., str]


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Runs `rankloom` and returns the one line that it prints."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        out, printed = capfd.readouterr()
        assert (out, printed.count("\n")) == ("", 1)
        return printed

    return run


def test_train_refuses_a_missing_folder(refusal: Refusal, tmp_path: Path) -> None:
    printed = refusal("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert printed.startswith("rankloom train: ")
    assert "no such folder" in printed


def test_train_refuses_bad_columns_and_leaves_nothing(refusal: Refusal, tmp_path: Path) -> None:
    write_csv(tmp_path / "interactions.csv", [{"who": 1, "item_id": 2}])
    write_csv(tmp_path / "items.csv", [{"item_id": 2}])
    printed = refusal("train", "--data", tmp_path, "--out", tmp_path / "out")
    assert "interactions.csv: no column for user" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interactions.csv", "items.csv"]


def test_train_refuses_an_output_that_cannot_be_written(
    refusal: Refusal, small_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said = refusal("train", "--data", small_data, "--out", tmp_path / "file" / "out")
    assert f"{tmp_path / 'file'}" in said
    assert "Errno" not in said
    assert said.endswith("check the path, and that you may write there\n")


@pytest.mark.parametrize(
    ("option", "name", "fault"),
    [
        ("--json", "nowhere/report.json", "no such folder; create it first"),
        ("--json", ".", "cannot be written; choose another file"),
        ("--plot", "nowhere/report.png", "no such folder; create it first"),
        ("--plot", "report.doc", "must end with .png, .svg, .pdf"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_evaluation(
    option: str, name: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--bundle", "b", "--data", "d", option, str(tmp_path / name)])
    assert ended.value.code == 2
    assert fault in capsys.readouterr().err


def test_a_folder_of_the_demonstration_that_cannot_be_made(
    refusal: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said = refusal("demo", "--folder", tmp_path / "file")
    assert said.startswith(f"rankloom demo: {tmp_path / 'file'}")
    assert said.endswith("check the path, and that you may write there\n")


def test_the_demonstration_trains_experts_of_groups(refusal: Refusal, tmp_path: Path) -> None:
    said = refusal("demo", "--folder", tmp_path, "--set", "group_experts=false")
    assert said.startswith("rankloom demo: group_experts: the demonstration ranks without them")
    assert not list(tmp_path.iterdir())


def test_train_does_not_touch_a_folder_of_other_files(
    refusal: Refusal, small_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "thesis.txt").write_text("years of work")
    assert "out.work" in refusal("train", "--data", small_data, "--out", tmp_path / "out")
    assert (tmp_path / "out.work" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--groups", "1"), ("--groups", "51"), ("--groups", "two"), ("--seed", "-1"),
     ("--seed", str(2**32))],
)  # fmt: skip
def test_an_option_out_of_range_is_named(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", "d", "--out", "o", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: {value}: not a whole number" in capsys.readouterr().err


def test_a_device_that_there_is_not_is_refused_before_the_training(
    refusal: Refusal, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = refusal("train", "--data", small_data, "--out", out, "--device", "cuda:99")
    assert "device cuda:99: not to be had here; leave --device out" in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        main(["train", "--data", "d", "--out", "o", "--device", "tpu"])


@pytest.mark.parametrize("manifest", [None, b"", b"{}", b"not json"])
def test_evaluate_refuses_a_folder_without_a_valid_manifest(
    refusal: Refusal, small_data: Path, tmp_path: Path, manifest: bytes | None
) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    printed = refusal("evaluate", "--bundle", tmp_path, "--data", small_data)
    assert printed.startswith("rankloom evaluate: ")


@pytest.mark.parametrize(
    "kind", [EventStoreError, ExportError, ServerStartError, OSError, ValueError]
)
def test_an_error_of_many_lines_is_printed_in_one(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(kind("one\n  two")).run(None) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err == "rankloom it: one two\n"


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_a_defect_is_not_hidden(kind: type[Exception]) -> None:
    with pytest.raises(kind):
        raising(kind("a defect")).run(None)  # type: ignore[arg-type]


def raising(error: Exception) -> TrainingCommand:
    """A command that raises an error."""

    def run(_: object) -> int:
        raise error

    return TrainingCommand("it", "", lambda _: None, run)


def test_train_refuses_traces_of_another_log_before_it_trains(
    refusal: Refusal, small_data: Path, tmp_path: Path
) -> None:
    write_traces(tmp_path / "t.parquet", [EvidenceTeacher().trace(random_case(1))])
    options = ("--data", small_data, "--out", tmp_path / "out", "--set")
    printed = refusal("train", *options, f"traces={tmp_path / 't.parquet'}")
    assert "1 traces are not of this log" in printed
    assert "is not a file of traces" in refusal("train", *options, f"traces={tmp_path / 'none'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet"]
