"""The commands as a user calls them: what a user can mend is one line, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rankloom._cli.main import main
from rankloom_features.export import ExportError
from rankloom_training.commands import TrainingCommand
from rankloom_training.serving import ServerStartError
from training.logs import write_csv

Refusal = Callable[..., str]


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Refusal:
    """Runs `rankloom`; answers the one line that it says."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        out, said = capfd.readouterr()
        assert (out, said.count("\n")) == ("", 1)
        return said

    return run


def test_train_refuses_a_folder_that_is_not_there(refusal: Refusal, tmp_path: Path) -> None:
    said = refusal("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert said.startswith("rankloom train: ")
    assert "no such folder" in said


def test_train_refuses_bad_columns_and_leaves_nothing(refusal: Refusal, tmp_path: Path) -> None:
    write_csv(tmp_path / "interactions.csv", [{"who": 1, "item_id": 2}])
    write_csv(tmp_path / "items.csv", [{"item_id": 2}])
    said = refusal("train", "--data", tmp_path, "--out", tmp_path / "out")
    assert "interactions.csv: no column for user" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interactions.csv", "items.csv"]


def test_train_refuses_a_place_that_cannot_be_written(
    refusal: Refusal, small_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refusal("train", "--data", small_data, "--out", tmp_path / "file" / "out")


def test_train_leaves_a_folder_alone_that_is_not_its_own(
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


@pytest.mark.parametrize("manifest", [None, b"", b"{}", b"not json"])
def test_evaluate_refuses_what_is_no_bundle(
    refusal: Refusal, small_data: Path, tmp_path: Path, manifest: bytes | None
) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    said = refusal("evaluate", "--bundle", tmp_path, "--data", small_data)
    assert said.startswith("rankloom evaluate: ")


@pytest.mark.parametrize("kind", [ExportError, ServerStartError, OSError, ValueError])
def test_an_error_of_many_lines_is_told_in_one(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(kind("one\n  two")).run(None) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err == "rankloom it: one two\n"


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_an_error_that_is_a_defect_is_not_hidden(kind: type[Exception]) -> None:
    with pytest.raises(kind):
        raising(kind("a defect")).run(None)  # type: ignore[arg-type]


def raising(error: Exception) -> TrainingCommand:
    """A command that ends in an error."""

    def run(_: object) -> int:
        raise error

    return TrainingCommand("it", "", lambda _: None, run)
