"""`rankloom reccot attach`: a bundle with rationales, and what is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rankloom_adapters.bundle import MANIFEST, RATIONALES, SIGNATURE, open_bundle, seal
from rankloom_adapters.signing import generate_keys, read_private_key, sign
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_ranker.loaded import load_bundle
from rankloom_training.data import load_dataset
from rankloom_training.reccot.answer import AnswerProblem
from rankloom_training.reccot.rationale_file import ReviewRationale, write_rationales
from rankloom_training.user_events import write_events
from training.reccot.test_reccot_command import run

USER = "u3"


def events_of(bundle: Path) -> Sequence[Event]:
    with closing(SqliteEventStore(events_beside(bundle))) as store:
        return store.history(USER).events


def rationale(item: str, time: float, think: str, answer: float | None = 4.0) -> ReviewRationale:
    problem = None if answer is not None else AnswerProblem.NO_TEXT
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return ReviewRationale(
        USER, item, time, "0" * 32, think, answer, problem, False, 0, "evidence", "p", now
    )


@pytest.fixture
def file(bundle_folder: Path, tmp_path: Path) -> Path:
    """Rationales of two events of the bundle, of a review that is none, and one with a problem."""
    first, second, third, *_ = events_of(bundle_folder)
    assert first.time is not None
    assert second.time is not None
    path = tmp_path / "rationales.parquet"
    write_rationales(
        path,
        [
            rationale(first.item_id, first.time, "Dry\njokes."),
            rationale(second.item_id, second.time, "A long end."),
            rationale(third.item_id, 9e9, "Of another time."),
            rationale(third.item_id, 8e9, "", None),
        ],
    )
    return path


def test_the_new_bundle_has_them_and_all_else_stays(
    bundle_folder: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = (bundle_folder / MANIFEST).read_bytes(), tmp_path / "out"
    assert run("attach", "--bundle", bundle_folder, "--rationales", file, "--out", out) == 0
    source, made = open_bundle(bundle_folder), open_bundle(out)
    printed = capsys.readouterr().out
    assert f"bundle {made.digest[:12]} with 3 rationales" in printed
    assert "2 of them are about events beside it" in printed
    assert "sign" not in printed
    assert (bundle_folder / MANIFEST).read_bytes() == before
    assert dict(made.parts) == {**source.parts, RATIONALES: made.parts[RATIONALES]}
    assert made.metadata == {**source.metadata, "derived_from": source.digest}
    assert events_of(out) == events_of(bundle_folder)
    stored = load_bundle(made).rationales
    assert stored is not None
    [found] = stored.find(USER, events_of(out)[0].item_id)
    assert (found.text, found.rating, found.generator) == ("Dry jokes.", 4.0, "evidence")
    assert found.written == datetime(2026, 1, 2, tzinfo=UTC)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out", events_beside(out).name, "rationales.parquet",
    ]  # fmt: skip


def test_new_rationales_take_the_place_of_earlier_ones(
    bundle_folder: Path, file: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("attach", "--bundle", bundle_folder, "--rationales", file, "--out", first)
    item, time = events_of(bundle_folder)[0].item_id, 5.0
    write_rationales(file, [rationale(item, time, "Other words.")])
    run("attach", "--bundle", first, "--rationales", file, "--out", second)
    stored = load_bundle(open_bundle(second)).rationales
    assert stored is not None
    assert [each.text for each in stored.find(USER, item)] == ["Other words."]


def test_a_signed_bundle_needs_a_new_signature(
    bundle_folder: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, out = tmp_path / "signed", tmp_path / "out"
    shutil.copytree(bundle_folder, signed)
    generate_keys(tmp_path / "key", tmp_path / "key.pub")
    sign(open_bundle(signed), read_private_key(tmp_path / "key"))
    assert run("attach", "--bundle", signed, "--rationales", file, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "`rankloom bundle sign`" in printed
    assert "events beside it" not in printed, "there are none"
    assert not (out / SIGNATURE).exists()


def test_what_is_wrong_is_said_in_one_line(
    bundle_folder: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent.parquet"
    write_rationales(silent, [rationale("i1", 1.0, "", None)])
    wrong = [
        (tmp_path / "missing", file, "out", "give a folder that `rankloom train` wrote"),
        (bundle_folder, tmp_path / "missing", "out", "is not a file of rationales"),
        (bundle_folder, silent, "out", "none of its rationales is sound"),
        (bundle_folder, file, "silent.parquet", "exists; remove it or choose another path"),
    ]
    for bundle, rationales, out, message in wrong:
        given = ("--bundle", bundle, "--rationales", rationales, "--out", tmp_path / out)
        assert run("attach", *given) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("rankloom reccot: ")
        assert message in printed.err
        assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_half_of_the_towers_or_nothing_is_refused(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--bundle", bundle_folder, "--out", tmp_path / "out")
    assert run("attach", *given) == 2
    assert "nothing to attach; give --rationales" in capsys.readouterr().err
    assert run("attach", *given, "--towers", tmp_path) == 2
    assert "give all three" in capsys.readouterr().err


def test_the_events_of_a_training_on_the_reviews_have_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle's events are written as `rankloom train` writes them."""
    data, bundle, file = tmp_path / "reviews", tmp_path / "bundle", tmp_path / "r.parquet"
    run("example", "--out", data, "--users", 12)
    run("generate", "--data", data, "--out", file)
    bundle.mkdir()
    seal(bundle, {})
    write_events(load_dataset(data), bundle)
    capsys.readouterr()
    assert run("attach", "--bundle", bundle, "--rationales", file, "--out", tmp_path / "out") == 0
    total, answered = re.findall(r"([\d,]+) (?:rationales|of them)", capsys.readouterr().out)
    assert total == answered
    assert int(total.replace(",", "")) > 100
