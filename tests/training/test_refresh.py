"""A bundle is brought up to date with new rows: what counts rows is made anew, the rest stays."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import rankloom
from rankloom._cli.main import main
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, expert_part, open_bundle
from rankloom_adapters.derive import DERIVED_FROM
from rankloom_adapters.expert import WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.loading import statistics_from_bytes
from rankloom_features.user_model import UserModel
from rankloom_ranker.loaded import load_bundle
from rankloom_training.data import DataError, Dataset, Split, item_vectors, load_dataset, make_log
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.metrics import Estimate
from rankloom_training.progress import Progress
from rankloom_training.refresh import experts
from rankloom_training.refresh.refreshed import REFRESHES, RefreshedBundle, refresh
from rankloom_training.serving import serving, serving_rollouts
from rankloom_training.stages.calibrate import ITEM_VECTORS
from rankloom_training.trees import HeldOutFeatures, held_out_prior
from rankloom_training.user_events import events_of_bundle
from small_data import GENRES, NUM_ITEMS, small_options

COUNTED = {parts.ITEM_STATISTICS, parts.USER_MODEL, parts.ROUTER, parts.CALIBRATION}
GROWN = {parts.CATALOGUE, parts.ATTRIBUTE_COLUMNS, parts.ENCODER, parts.ITEM_VECTORS}
NUM_NEW_ITEMS, FIRST_NEW_USER, NUM_USERS, NUM_ROWS = 2, 50, 70, 12
FIRST_TIME = 1_000_000  # when the small log has ended


def write_new_rows(folder: Path, num_items: int) -> Path:
    """Rows of old and new users after those of the small log; items from NUM_ITEMS up are new."""
    random = np.random.default_rng(5)
    folder.mkdir()
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "year", "genres", "description"])
        for item in reversed(range(num_items)):
            genre = GENRES[item % 2]
            writer.writerow([f"i{item}", f"The {genre} No {item}", 1970 + item, genre, "A story."])
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "label", "timestamp"])
        for user in range(FIRST_NEW_USER, NUM_USERS):
            items = random.permutation(num_items)[:NUM_ROWS]
            for item, time in zip(items, np.sort(random.integers(0, 10**6, NUM_ROWS)), strict=True):
                likes = 0.85 if item % 2 == user % 2 else 0.2
                label = int(random.random() < likes)
                writer.writerow([f"u{user}", f"i{item}", label, FIRST_TIME + time])
    return folder


@pytest.fixture(scope="module")
def new_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_new_rows(tmp_path_factory.mktemp("new") / "rows", NUM_ITEMS + NUM_NEW_ITEMS)


@pytest.fixture(scope="module")
def before(served_folder: Path) -> Bundle:
    return open_bundle(served_folder)


@pytest.fixture(scope="module")
def after(before: Bundle, new_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("after") / "bundle"
    refresh(before, new_rows, out, small_options(), Progress())
    return open_bundle(out)


def statistics(bundle: Bundle) -> ItemStatistics:
    num_items = len(load_bundle(bundle).catalogue)
    return statistics_from_bytes(bundle.read(parts.ITEM_STATISTICS), num_items)


def both_logs(small_data: Path, new_rows: Path) -> Dataset:
    """The rows of both as one log, as a training would see them, in which the former are training
    rows."""
    former, new = load_dataset(small_data), load_dataset(new_rows)
    items = [*former.catalogue.items, *new.catalogue.items[:NUM_NEW_ITEMS]]
    catalogue = type(former.catalogue)(items)
    columns = [list(_rows(each, catalogue)) for each in (former, new)]
    user, item, liked, time = zip(*columns[0], *columns[1], strict=True)
    split = np.append(np.zeros(len(former.log), np.int8), new.log.split)
    times = np.array(time)
    log = make_log(user, np.array(item), np.array(liked), times, times, split)
    return Dataset(catalogue, log)


def _rows(data: Dataset, catalogue: object) -> Iterator[tuple[str, int, bool, float]]:
    log, items = data.log, data.catalogue.items
    for row in range(len(log)):
        index = catalogue.index(items[log.item[row]].item_id)  # type: ignore[attr-defined]
        yield log.user_ids[log.user[row]], index, bool(log.liked[row]), float(log.time[row])


def test_all_but_what_counts_and_what_grows_keeps_its_bytes(before: Bundle, after: Bundle) -> None:
    after.check()
    changed = {name for name in after.parts if after.parts[name] != before.parts.get(name)}
    assert changed <= COUNTED | GROWN | {parts.ITEM_INDEX}
    assert changed >= (COUNTED - {parts.ROUTER}) | GROWN
    assert after.metadata[DERIVED_FROM] == before.digest
    assert after.metadata[REFRESHES] == 1
    assert after.metadata["num_users"] == NUM_USERS
    assert after.metadata["num_items"] == NUM_ITEMS + NUM_NEW_ITEMS
    assert after.metadata["validation"] != before.metadata["validation"]


def test_statistics_and_user_model_are_those_of_a_training_on_both_logs(
    small_data: Path, new_rows: Path, before: Bundle, after: Bundle
) -> None:
    data, found = both_logs(small_data, new_rows), statistics(after)
    catalogue = load_bundle(after).catalogue
    assert [item.item_id for item in catalogue.items] == [
        item.item_id for item in data.catalogue.items
    ]
    # The prior is fitted on some users, who differ with the order of the users.
    joined = RefreshedBundle.checked(before, load_dataset(new_rows), "new", 0).data
    prior = held_out_prior(joined, 0)
    anew = HeldOutFeatures(data, 0, prior)
    assert found.rows.tolist() == anew.statistics.rows.tolist()
    assert found.likes.tolist() == anew.statistics.likes.tolist()
    products = [each.co_rating @ each.co_rating.T for each in (found, anew.statistics)]
    assert products[0] == pytest.approx(products[1], abs=1e-4)
    users = UserModel.from_bytes(after.read(parts.USER_MODEL), len(catalogue))
    assert users.means == pytest.approx(anew.user_model.means, abs=1e-4)


def test_new_items_are_counted_and_have_no_vector(after: Bundle) -> None:
    new = slice(NUM_ITEMS, None)
    assert (statistics(after).rows[new] > 0).all()
    assert not load_bundle(after).provider.scorer.vectors[new].any()


def test_the_events_of_both_are_beside_the_bundle(
    small_data: Path, new_rows: Path, before: Bundle, after: Bundle
) -> None:
    former, new = load_dataset(small_data).log, load_dataset(new_rows).log
    with events_of_bundle(after.folder) as store, events_of_bundle(before.folder) as old:
        assert old.statistics().num_events == len(former)
        assert store.statistics().num_events == len(former) + len(new)
        assert len(store.history(f"u{NUM_USERS - 1}").events) == NUM_ROWS


def test_rows_that_were_recorded_already_count_once(
    before: Bundle, after: Bundle, new_rows: Path, tmp_path: Path
) -> None:
    """As where a server has stored the new rows when they are given."""
    live = tmp_path / "live"
    shutil.copytree(before.folder, live)
    copy_events(events_beside(after.folder), events_beside(live))
    refresh(open_bundle(live), new_rows, tmp_path / "out", small_options(), Progress())
    again = open_bundle(tmp_path / "out")
    assert statistics(again).rows.tolist() == statistics(after).rows.tolist()
    with events_of_bundle(again.folder) as one, events_of_bundle(after.folder) as other:
        assert one.statistics().num_events == other.statistics().num_events


def test_it_is_rolled_out_over_the_former_one(
    before: Bundle, after: Bundle, tmp_path: Path
) -> None:
    with (
        serving_rollouts(before.folder, tmp_path / "state") as (address, operator),
        rankloom.RolloutClient(operator, timeout_s=60.0) as rollouts,
        rankloom.Client(address, timeout_s=60.0) as client,
    ):
        staged = rollouts.stage(str(after.folder))
        rollouts.promote(staged.revision, without_gates=True)
        ranking = client.rank(["i0", f"i{NUM_ITEMS}", "i1"], user="u1")
    assert ranking.revision.number == staged.revision
    assert {item.item_id for item in ranking.items} == {"i0", f"i{NUM_ITEMS}", "i1"}


def test_a_server_knows_users_who_came_later(after: Bundle) -> None:
    with serving(after.folder) as address, rankloom.Client(address, timeout_s=60.0) as client:
        ranking = client.rank(["i0", "i1"], user=f"u{NUM_USERS - 1}")
    assert ranking.routing.history_events == NUM_ROWS


@pytest.mark.parametrize("is_better", [True, False])
def test_experts_are_trained_further_and_kept_where_they_are_better(
    before: Bundle, new_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_better: bool
) -> None:
    """So short a log decides nothing, so the test does."""
    gain = Estimate(0.1, 0.05, 0.15) if is_better else Estimate(0.1, -0.05, 0.25)
    monkeypatch.setattr(experts, "gain_of", lambda *_: gain)
    files = {name: (before.folder / name).read_bytes() for name in before.parts}
    options = small_options()
    refresh(before, new_rows, tmp_path / "out", options, Progress(), with_experts=True)
    made = open_bundle(tmp_path / "out")
    made.check()
    weights = [name for name in made.parts if name.endswith(WEIGHTS_FILE)]
    changed = [made.parts[name] != before.parts[name] for name in weights]
    assert changed == [is_better] * 3, "the global one and two groups"
    assert {name: (before.folder / name).read_bytes() for name in before.parts} == files
    load_bundle(made)


@pytest.mark.parametrize("is_better", [True, False])
def test_without_group_experts_all_groups_have_the_refreshed_global_one(
    before: Bundle, new_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_better: bool
) -> None:
    gain = Estimate(0.1, 0.05 if is_better else -0.05, 0.15)
    monkeypatch.setattr(experts, "gain_of", lambda *_: gain)
    files = {name: (before.folder / name).read_bytes() for name in before.parts}
    options = dataclasses.replace(small_options(), group_experts=False)
    refresh(before, new_rows, tmp_path / "out", options, Progress(), with_experts=True)
    made = open_bundle(tmp_path / "out")
    made.check()
    weights = {name: made.parts[name] for name in made.parts if name.endswith(WEIGHTS_FILE)}
    assert len(weights) == 3
    assert len(set(weights.values())) == 1
    everyone = expert_part(GLOBAL, WEIGHTS_FILE)
    assert (weights[everyone] != before.parts[everyone]) == is_better
    assert {name: (before.folder / name).read_bytes() for name in before.parts} == files


def test_what_cannot_be_refreshed_is_refused(
    before: Bundle, after: Bundle, new_rows: Path, tmp_path: Path
) -> None:
    options, alone = small_options(), tmp_path / "alone"
    with pytest.raises(ValueError, match="exists; remove it"):
        refresh(before, new_rows, after.folder, options, Progress())
    shutil.copytree(before.folder, alone)
    with pytest.raises(DataError, match=r"rankloom events import .*alone\.events\.sqlite FILE"):
        refresh(open_bundle(alone), new_rows, tmp_path / "out", options, Progress())
    given = load_dataset(new_rows)
    assert given.source is not None
    likes = dataclasses.replace(given.source, sampling=NegativeSampling(1))
    with pytest.raises(DataError, match="likes alone, and the bundle was trained on a log with"):
        RefreshedBundle.checked(before, dataclasses.replace(given, source=likes), "new", 0)
    assert not (tmp_path / "out").exists()


def test_splits_against_the_order_of_time_are_refused(
    before: Bundle, new_rows: Path, tmp_path: Path
) -> None:
    """A user whose stored events are later than their new training rows."""
    given = load_dataset(new_rows)
    late = given.log.time - 2.0 * FIRST_TIME * (given.log.split == Split.VALID)
    early = dataclasses.replace(given, log=dataclasses.replace(given.log, time=late))
    with pytest.raises(DataError, match="contradicts the time order"):
        RefreshedBundle.checked(before, early, "new", 0)


def test_the_command_refreshes(
    before: Bundle, new_rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        main(["train", "--from", str(before.folder), "--data", str(new_rows), "--out", str(out)])
        == 0
    )
    said = capfd.readouterr()
    assert said.out.startswith(f"{out}: bundle ")
    assert "stays          collaborative model, trees, base, projector" in said.err
    assert f"({NUM_NEW_ITEMS} items are new); train anew when that grows" in said.err
    assert out.is_dir()
    assert events_beside(out).is_file()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "out.events.sqlite"]


def test_item_vectors_come_from_the_new_folder_for_all_items(
    new_rows: Path, before: Bundle, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(new_rows, tmp_path / "rows"))
    ids = [item.item_id for item in load_bundle(before).catalogue.items]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    table = pa.table({"item_id": ids, "vector": list(vectors)})
    parquet.write_table(table, folder / item_vectors.FILE_NAME)
    found = RefreshedBundle.checked(before, load_dataset(folder), "new", 0).data.item_vectors
    assert found is not None
    assert np.array_equal(found[: len(ids)], vectors)
    assert not found[len(ids) :].any()


def test_a_bundle_of_item_vectors_needs_them(new_rows: Path, before: Bundle) -> None:
    known = dataclasses.replace(before, metadata={**before.metadata, ITEM_VECTORS: True})
    with pytest.raises(DataError, match=r"item_vectors.parquet.*rankloom items embed"):
        RefreshedBundle.checked(known, load_dataset(new_rows), "new", 0)
