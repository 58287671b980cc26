"""Served words of a trained bundle: each sentence holds of the evidence that is sent beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

import rankloom
from rankloom_adapters.bundle import open_bundle
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.explained import ExplainedRow, report_of
from rankloom_training.serving import serving

NUM_USERS = 12


@pytest.fixture(scope="module")
def loaded(bundle_folder: Path) -> LoadedBundle:
    return load_bundle(open_bundle(bundle_folder))


@pytest.fixture(scope="module")
def explained(bundle_folder: Path, loaded: LoadedBundle) -> list[ExplainedRow]:
    """Explanations of two items to each of some users, and of one to a stranger."""
    items, rows = loaded.catalogue.items, list[ExplainedRow]()
    with serving(bundle_folder) as address, rankloom.Client(address, timeout_s=60.0) as client:
        for number in range(NUM_USERS):
            user = f"u{number}" if number else "stranger"
            for item in (items[number % len(items)], items[-1]):
                ranking = client.rank([item.item_id], user=user)
                explanation = client.explain(item.item_id, user=user).result()
                rows.append(ExplainedRow(user, item, explanation, ranking.items[0].probability))
    return rows


def test_words_are_written_and_true(explained: list[ExplainedRow], loaded: LoadedBundle) -> None:
    report = report_of(explained, loaded.catalogue)
    assert report.num_rows == 2 * NUM_USERS
    assert (report.written, report.agreement, report.grounded) == (1.0, 1.0, 1.0)
    assert (report.faithful, report.largest) == (1.0, 1.0)
    assert report.words > 6


def test_every_text_is_of_whole_sentences(explained: list[ExplainedRow]) -> None:
    assert all(row.explanation.text.endswith((".", "!")) for row in explained)
    stops = {row.explanation.stop_reason for row in explained}
    assert stops == {rankloom.StopReason.STOP_TOKEN}


def test_a_request_is_answered_with_the_same_words_again(
    explained: list[ExplainedRow], bundle_folder: Path
) -> None:
    with serving(bundle_folder) as address, rankloom.Client(address, timeout_s=60.0) as client:
        for row in explained[-4:]:
            again = client.explain(row.candidate.item_id, user=row.user).result()
            assert again.text == row.explanation.text


def test_a_stranger_is_told_the_verdict_alone(explained: list[ExplainedRow]) -> None:
    for row in explained[:2]:
        assert not row.explanation.evidence
        assert '"' not in row.explanation.text
