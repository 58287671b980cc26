"""Clicks or purchases alone: every row is a like, and what was not liked is sampled."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from rankloom_training.data import load_dataset
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.data.report import report_lines
from rankloom_training.data_command import data
from training.small_log import LOG, Rows, folder_of, good_items, good_rows, refusal


def clicks() -> Rows:
    """The good log without its labels."""
    return [{k: v for k, v in row.items() if k != "label"} for row in good_rows()]


def of_clicks(folder: Path, **settings: object) -> Path:
    if settings:
        (folder / "columns.json").write_text(json.dumps(settings))
    items = [*good_items(), *({"item_id": f"j{n}", "title": "Nobody's"} for n in range(9))]
    return folder_of(folder, clicks(), items)


def test_a_log_without_labels_is_refused_with_the_remedy(tmp_path: Path) -> None:
    message = refusal(of_clicks(tmp_path))
    assert message.startswith(f"{LOG}: no column for rating or label; ")
    assert "--implicit N" in message


def test_a_log_with_likes_alone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path, [row | {"label": 1} for row in clicks()]))
    assert "the train split has one class only" in message
    assert "--implicit N" in message


def test_a_log_of_dislikes_alone_is_not_sent_to_sampling(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path, [row | {"label": 0} for row in clicks()]))
    assert "--implicit" not in message


@pytest.mark.parametrize("label", [{}, {"label": 1}])
def test_every_row_is_a_like(tmp_path: Path, label: dict[str, int]) -> None:
    found = load_dataset(
        folder_of(tmp_path, [row | label for row in clicks()]), implicit=NegativeSampling(3)
    )
    assert found.log.liked.tolist() == [True] * 12
    assert not found.log.sampled
    assert found.sampling == NegativeSampling(3)


def test_the_report_says_that_negatives_are_sampled(tmp_path: Path) -> None:
    lines = dict(report_lines(load_dataset(of_clicks(tmp_path), implicit=NegativeSampling(3))))
    assert lines["likes"] == "100.0 % are likes: every row is a like"
    assert lines["negatives"].startswith("3 for each like, drawn uniformly from all items")


def test_columns_json_may_say_it_and_an_option_goes_before_it(tmp_path: Path) -> None:
    folder = of_clicks(tmp_path, implicit={"negatives": 2, "by": "popularity"})
    assert load_dataset(folder).sampling == NegativeSampling(2, "popularity")
    assert load_dataset(folder, implicit=NegativeSampling(5)).sampling == NegativeSampling(5)


def test_impressions_are_dislikes_and_nothing_is_sampled(tmp_path: Path) -> None:
    found = load_dataset(folder_of(tmp_path), implicit=NegativeSampling(3))
    assert found.sampling is None
    assert found.warnings == (
        f"{LOG}: the log has dislikes of its own, so no negatives are sampled",
    )
    assert found.with_negatives(0).log is found.log


@pytest.mark.parametrize(
    "given",
    [4, {}, {"negatives": 0}, {"negatives": 101}, {"negatives": True}, {"negatives": 2.5},
     {"negatives": 2, "by": "luck"}, {"negatives": 2, "seed": 1}],
)  # fmt: skip
def test_a_wrong_setting_is_named(tmp_path: Path, given: object) -> None:
    message = refusal(of_clicks(tmp_path, implicit=given))
    assert message.startswith("columns.json: implicit is not valid; ")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [row | {"split": "train"} for row in clicks()])
    (folder / "columns.json").write_text('{"implicit": {"negatives": 1}}')
    assert "the valid split has no rows" in refusal(folder)


def check(*arguments: object) -> int:
    """Runs `rankloom data check`."""
    parser = argparse.ArgumentParser()
    data.configure(parser)
    return data.run(parser.parse_args(["check", *map(str, arguments)]))


def test_data_check_takes_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = of_clicks(tmp_path)
    assert check(folder) == 2
    assert "--implicit N" in capsys.readouterr().err
    assert check(folder, "--implicit", 4) == 0
    assert "4 for each like, drawn uniformly" in capsys.readouterr().out
    assert check(folder, "--implicit", "2:uniform") == 0
    assert "2 for each like, drawn uniformly" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["0", "101", "-1", "many", "4:luck", ":popularity"])
def test_a_wrong_option_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check("anywhere", f"--implicit={given}")
    assert "argument --implicit: " in capsys.readouterr().err


def test_data_check_refuses_where_nothing_can_be_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row | {"item_id": f"i{n // 2 % 2}", "user_id": "ab"[n % 2]}
        for n, row in enumerate(clicks())
    ]
    items = good_items()[:2]
    assert check(folder_of(tmp_path, rows, items), "--implicit", 1) == 2
    assert "its users like every item that could be drawn" in capsys.readouterr().err
