"""A bundle that was trained with its log's reviews: a column, as trained, live and forgotten."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_adapters.bundle import RATED_REVIEWS, RATING_TOWERS, BundleError, open_bundle
from rankloom_adapters.derive import with_parts
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event
from rankloom_features.model_columns import REVIEW_RATING
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import BundleFeatures, load_bundle, load_features
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.features import EmbeddedFeatures
from rankloom_training.data import DataError, Dataset, Split, load_dataset
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.option_file import OptionError
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.reccot.encode import RATIONALES
from rankloom_training.refresh.refreshed import refresh
from rankloom_training.scoring import Request, requests_of
from rankloom_training.stages.artefacts import ReviewsFiles, TreesFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.workspace import Workspace
from rankloom_training.train import TrainingJob
from rankloom_training.visibility import Protocol
from small_data import small_options
from training.reccot.test_reccot_command import run

SEED = 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews, an encoder, stages and a bundle."""
    folder = tmp_path_factory.mktemp("reviewed")
    data = folder / "reviews"
    assert run("example", "--out", data, "--users", 12) == 0
    assert run("encode", "--data", data, "--out", folder / "encoder", "--passes", 1) == 0
    job = TrainingJob.checked(data, folder / "bundle", options(folder), folder / "work")
    assert ("reviews", "439 of 439 rows have a review") in job.report
    assert [name for name, _ in job.plan()][1] == "reviews"
    job.run(Progress())
    return folder


def options(folder: Path) -> TrainOptions:
    return dataclasses.replace(small_options(), review_encoder=str(folder / "encoder"))


@pytest.fixture
def data(made: Path) -> Dataset:
    return load_dataset(made / "reviews")


@pytest.fixture
def features(made: Path, data: Dataset) -> BundleFeatures:
    log, items = data.log, data.catalogue.items
    events = (
        UserEvent(
            str(row),
            log.user_ids[log.user[row]],
            Event(items[log.item[row]].item_id, bool(log.liked[row]), float(log.time[row])),
        )
        for row in np.flatnonzero(log.split == Split.TRAIN).tolist()
    )
    return load_features(open_bundle(made / "bundle"), MemoryEventStore(events))


def request_of(data: Dataset, number: int) -> Request:
    view = LogRows.of(data, Protocol.P1, SEED).valid
    return requests_of(data, view)[number]


def rating(features: BundleFeatures, query: UserQuery) -> NDArray[np.float32]:
    provider = features.provider
    column = provider.columns.index(REVIEW_RATING)
    return provider.features(query).tabular[:, column]


def test_the_column_is_one_of_the_bundle_and_served_as_it_was_trained(
    made: Path, data: Dataset
) -> None:
    loaded, work = load_bundle(open_bundle(made / "bundle")), Workspace(made / "work")
    assert loaded.provider.columns[-2:] == (REVIEW_RATING, "collaborative_logit")
    view = LogRows.of(data, Protocol.P1, SEED).valid
    found = [loaded.provider.features(each.query()).tabular for each in requests_of(data, view)]
    trained = TreesFiles(work.folder_of("trees")).tabular(Split.VALID)
    np.testing.assert_allclose(np.concatenate(found), trained, rtol=1e-4, atol=1e-5)
    column = ReviewsFiles(work.folder_of("reviews")).ratings(Split.VALID)
    assert np.array_equal(trained[:, -2], column, equal_nan=True)
    assert np.nanstd(column) > 0.0


def test_a_stored_history_is_rated_as_a_given_one_until_it_is_forgotten(
    data: Dataset, features: BundleFeatures
) -> None:
    items, user = data.catalogue.items[:30], data.log.user_ids[3]
    events = features.provider.events.history(user).events
    stored = rating(features, UserQuery(user, None, items))
    given = rating(features, UserQuery(None, events, items))
    np.testing.assert_array_equal(stored, given)
    seen = {event.item_id for event in events}
    np.testing.assert_array_equal(np.isnan(stored), [item.item_id in seen for item in items])
    stranger = rating(features, UserQuery(None, (), items))
    features.provider.events.forget(user)
    features.forget(user)
    np.testing.assert_array_equal(rating(features, UserQuery(user, None, items)), stranger)
    assert not np.array_equal(stored, stranger, equal_nan=True)


def test_without_an_event_its_review_is_gone_too(data: Dataset, features: BundleFeatures) -> None:
    items, user = data.catalogue.items[:5], data.log.user_ids[3]
    provider = features.provider
    found = provider.features(UserQuery(user, None, items, ablate_newest=3))
    events = provider.events.history(user).events
    for left, at in zip(found.ablated, (-3, -2, -1), strict=True):
        alone = (*events[:at], *(events[at + 1 :] if at + 1 else ()))
        again = provider.features(UserQuery(None, alone, items))
        np.testing.assert_array_equal(left.tabular[:, -2], again.tabular[:, -2])


def test_the_ratings_are_answered_too(data: Dataset, features: BundleFeatures) -> None:
    items, user = data.catalogue.items[:5], data.log.user_ids[3]
    query = UserQuery(user, None, items, predict_ratings=True)
    answered = features.provider.features(query).predicted_ratings
    assert answered is not None
    np.testing.assert_array_equal(answered, rating(features, query))


async def test_a_file_that_cannot_be_read_is_a_named_fallback(
    made: Path, tmp_path: Path, data: Dataset
) -> None:
    bundle = open_bundle(made / "bundle")
    with_parts(bundle, {"note": b""}, tmp_path / "copy", {})
    path = tmp_path / "copy" / RATED_REVIEWS
    content = path.read_bytes()
    path.unlink()  # it may be shared with the bundle that was copied
    path.write_bytes(content)
    provider = load_features(open_bundle(tmp_path / "copy")).provider
    path.write_bytes(b"\0" * len(content))
    with pytest.raises(FeaturesUnavailableError, match="reviews_unreadable"):
        await EmbeddedFeatures(provider).get(request_of(data, 0).query(), 5.0)


def test_parts_of_other_towers_are_refused(made: Path, tmp_path: Path) -> None:
    bundle = open_bundle(made / "bundle")
    for number, (part, given, message) in enumerate(
        [
            (RATING_TOWERS, b"other", f"{RATED_REVIEWS}: not of the bundle's {RATING_TOWERS}"),
            (RATED_REVIEWS, b"other", f"{RATED_REVIEWS}: is not a file of reviews of events"),
        ]
    ):
        with_parts(bundle, {part: given}, tmp_path / str(number), {})
        with pytest.raises(BundleError, match=message):
            load_features(open_bundle(tmp_path / str(number)))


def test_a_refreshed_bundle_keeps_towers_and_reviews(made: Path, tmp_path: Path) -> None:
    before = open_bundle(made / "bundle")
    refresh(before, made / "reviews", tmp_path / "new", options(made), Progress())
    after = open_bundle(tmp_path / "new")
    for part in (RATING_TOWERS, RATED_REVIEWS):
        assert after.parts[part] == before.parts[part]
    assert load_bundle(after).provider.columns[-2] == REVIEW_RATING


def test_what_cannot_be_learnt_from_is_refused_before_work(
    made: Path, small_data: Path, tmp_path: Path
) -> None:
    given, out = options(made), tmp_path / "out"
    with pytest.raises(DataError, match="no column for rating"):
        TrainingJob.checked(small_data, out, given)
    other = dataclasses.replace(given, review_encoder=str(tmp_path))
    job = TrainingJob.checked(made / "reviews", out, other)
    with pytest.raises(DataError, match="is not a text encoder; make one with `rankloom reccot"):
        job.plan()
    shutil.copytree(made / "encoder", tmp_path / "encoder")
    assert run("example", "--out", tmp_path / "others", "--users", 10) == 0
    rationales = tmp_path / "encoder" / RATIONALES
    assert run("generate", "--data", tmp_path / "others", "--out", rationales) == 0
    other = dataclasses.replace(given, review_encoder=str(tmp_path / "encoder"))
    with pytest.raises(DataError, match="rationale"):
        TrainingJob.checked(made / "reviews", out, other).plan()
    likes = tmp_path / "likes"
    likes.mkdir()
    (likes / "items.csv").write_bytes((made / "reviews" / "items.csv").read_bytes())
    rows = (made / "reviews" / "interactions.csv").read_text().splitlines()
    kept = [rows[0], *(row for row in rows[1:] if row.split(",")[2] == "5")]
    (likes / "interactions.csv").write_text("\n".join(kept))
    (likes / "columns.json").write_text(json.dumps({"implicit": NegativeSampling(2).to_json()}))
    with pytest.raises(OptionError, match="review_encoder: the log has likes alone"):
        TrainingJob.checked(likes, out, dataclasses.replace(given, like_above=3.0))
    assert not out.exists()
