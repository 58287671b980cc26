"""A bundle from likes alone: trained with sampled negatives, judged by ranking all items."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle
from rankloom_features.session_columns import SESSION_COLUMNS
from rankloom_ranker.loaded import load_bundle
from rankloom_training import reporting
from rankloom_training.all_items import LIKES_EACH, next_likes, unseen_items
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.evaluate import Report, evaluate
from rankloom_training.option_file import OptionError
from rankloom_training.progress import Progress
from rankloom_training.refresh.refreshed import refresh
from rankloom_training.scored_rows import ScoredRows
from rankloom_training.stages.rows import LogRows
from rankloom_training.train import TrainingJob
from rankloom_training.user_events import events_of_bundle
from rankloom_training.visibility import Protocol
from small_data import small_options, train_small
from training.sessionless import statistics_of, without_session_columns

SAMPLING = NegativeSampling(3, "popularity")


@pytest.fixture(scope="module")
def likes(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small log's likes alone."""
    folder = tmp_path_factory.mktemp("likes")
    with (small_data / "interactions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "1"]
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["user_id", "item_id", "timestamp"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "items.csv").write_bytes((small_data / "items.csv").read_bytes())
    (folder / "columns.json").write_text(json.dumps({"implicit": SAMPLING.to_json()}))
    return folder


def test_gsasrec_needs_uniform_negatives(likes: Path, small_data: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(small_options(), collaborative="gsasrec")
    for data in (likes, small_data):  # drawn by popularity, and none drawn
        with pytest.raises(OptionError, match="negatives drawn uniformly; add --implicit N"):
            TrainingJob.checked(data, tmp_path / "out", options)
    uniform = dataclasses.replace(options, implicit=NegativeSampling(3))
    assert TrainingJob.checked(likes, tmp_path / "out", uniform).options == uniform


@pytest.fixture(scope="module")
def trained(likes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("implicit") / "bundle"
    train_small(likes, out)
    return out


@pytest.fixture(scope="module")
def judged(likes: Path, trained: Path) -> tuple[Report, ScoredRows, Dataset]:
    return evaluate(trained, likes, Protocol.P1, through_grpc=False, progress=Progress())


@pytest.fixture(scope="module")
def found(judged: tuple[Report, ScoredRows, Dataset]) -> Report:
    return judged[0]


def test_the_bundle_says_how_it_was_trained_and_serves_likes_alone(
    likes: Path, trained: Path
) -> None:
    bundle, given = open_bundle(trained), load_dataset(likes)
    assert bundle.metadata["implicit"] == {"negatives": 3, "by": "popularity"}
    with events_of_bundle(trained) as store:
        assert store.statistics().num_events == len(given.log)
        assert all(event.liked for user in store.users() for event in store.history(user).events)


@pytest.mark.parametrize("has_sessions", [True, False])
def test_a_refresh_counts_sessions_only_where_its_trees_know_them(
    likes: Path, trained: Path, tmp_path: Path, has_sessions: bool
) -> None:
    """Trees and projector stay, and have no place for another column."""
    former = trained if has_sessions else without_session_columns(trained, tmp_path / "former")
    before = open_bundle(former)
    refresh(before, likes, tmp_path / "out", small_options(), Progress())
    after = open_bundle(tmp_path / "out")
    assert after.parts[parts.TREES] == before.parts[parts.TREES]
    assert (statistics_of(after).co_session is not None) == has_sessions
    columns = load_bundle(after).provider.columns
    assert columns == load_bundle(before).provider.columns
    assert (SESSION_COLUMNS[-1] in columns) == has_sessions


def test_all_unseen_items_are_ranked_beside_popularity(likes: Path, found: Report) -> None:
    assert found.all_items is not None
    assert set(found.all_items.metrics) == {"served", "lightgbm", "cf", "popularity"}
    assert set(found.all_items.served_minus) == {"lightgbm", "cf", "popularity"}
    assert found.all_items.num_items == len(load_dataset(likes).catalogue)
    for metrics in found.all_items.metrics.values():
        for estimate in (metrics.ndcg10, metrics.hit10, metrics.recall10):
            assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


def test_what_is_learnt_is_above_popularity(found: Report) -> None:
    """Half of the users like comedies and half dramas, which popularity cannot know."""
    assert found.all_items is not None
    assert found.all_items.served_minus["popularity"].low > 0.0


def test_metrics_over_sampled_negatives_say_so(found: Report, tmp_path: Path) -> None:
    console = Console(record=True, width=300)
    reporting.show(console, found, {})
    text = " ".join(console.export_text().split())  # titles are wrapped
    assert text.count("over sampled negatives, 3 for each like, drawn by popularity^0.75") == 4
    assert "all unseen items" in text
    reporting.write_json(found, {}, tmp_path / "report.json")
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["sampled_negatives"] == SAMPLING.to_json()
    assert fields["all_unseen_items"]["metrics"]["served"]["ndcg10"]["value"] > 0.0
    reporting.write_plot(found, tmp_path / "report.svg")
    assert "over sampled negatives" in reporting.plot_title(found)


def test_sampled_negatives_have_no_true_probability(
    judged: tuple[Report, ScoredRows, Dataset],
) -> None:
    _, scored, dataset = judged
    assert reporting.synthetic_aucs(scored, dataset, {("u0", 0): ("group", 0.5)}) == {}


def test_what_a_user_knows_is_not_ranked(likes: Path) -> None:
    given = load_dataset(likes)
    log, users = given.log, np.arange(given.log.num_users)
    cases = list(unseen_items(given, users))
    assert len(cases) > 10
    for case in cases:
        own = log.user == log.user[case.history.rows[0]]
        assert not np.isin(log.item[own & (log.split != Split.TEST)], case.items).any()
        later = np.unique(log.item[own & (log.split == Split.TEST)])
        assert sorted(case.items[case.liked]) == later.tolist()


def test_a_next_like_is_looked_for_with_all_events_before_it(likes: Path) -> None:
    given = load_dataset(likes)
    log, users = given.log, np.arange(given.log.num_users)
    cases, num = list(next_likes(given, users)), np.zeros(len(users), np.int64)
    assert len(cases) > len(list(unseen_items(given, users)))
    for case in cases:
        (row,) = case.history.rows
        before = np.flatnonzero((log.user == log.user[row]) & (np.arange(len(log)) < row))
        assert case.history.seen.tolist() == before.tolist()
        assert case.history.time == log.time[row]
        assert case.items[case.liked].tolist() == [log.item[row]]
        assert not np.isin(log.item[before], case.items).any()
        num[log.user[row]] += 1
    assert num.max() == LIKES_EACH


def test_the_report_has_next_likes_too(found: Report, tmp_path: Path) -> None:
    assert found.next_like is not None
    assert set(found.next_like.served_minus) == {"lightgbm", "cf", "popularity"}
    reporting.write_json(found, {}, tmp_path / "report.json")
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["next_like"]["num_users"] == found.next_like.num_users
    tables = [str(table.title) for table in reporting.tables(found)]
    assert sum("the next like" in title for title in tables) == 1


def sampled(likes: Path) -> Dataset:
    return load_dataset(likes).with_negatives(0)


def test_the_collaborative_model_sees_fresh_negatives_every_epoch(likes: Path) -> None:
    rows = LogRows.of(sampled(likes), Protocol.P1, 0)
    first, second = (rows.examples(Split.TRAIN, epoch) for epoch in (1, 2))
    negative = ~first.label
    assert (first.target[negative] != second.target[negative]).any()
    assert first.target[~negative].tolist() == second.target[~negative].tolist()
    assert (first.histories.end == second.histories.end).all()


def test_popular_items_are_sampled_more_and_the_offset_takes_it_back(likes: Path) -> None:
    dataset = sampled(likes)
    assert dataset.negatives is not None
    counts = np.bincount(dataset.log.item[dataset.log.liked & (dataset.log.split == 0)])
    weights = (counts + 1.0) ** 0.75
    expected = np.log(weights.mean() / weights)
    assert dataset.negatives.offset == pytest.approx(expected)
    rows = np.arange(5)
    assert dataset.sampling_offset(rows) == pytest.approx(expected[dataset.log.item[rows]])
    assert not load_dataset(likes).sampling_offset(rows).any()
