"""Towers in a bundle: ratings as the training predicts them, and parts that do not belong there."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_service.feature_bundle import ITEMS, write_feature_bundle
from rankloom import AsyncFeatureClient
from rankloom_adapters.bundle import (
    REVIEW_VECTORS,
    TEXT_ENCODER,
    TOWERS,
    BundleError,
    open_bundle,
)
from rankloom_adapters.derive import with_parts
from rankloom_features.catalogue import Item
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_features.review_ratings import ReviewRatings, ReviewRatingsError
from rankloom_features.review_vectors import ReviewOrigin, ReviewVectors, write_review_vectors
from rankloom_ranker.loaded import BundleFeatures, load_features
from rankloom_server.feature_app import feature_server
from rankloom_training.data.interactions import Split
from rankloom_training.data.reviews import Reviews, load_reviews
from rankloom_training.progress import Progress
from rankloom_training.reccot.encode import open_vectors
from rankloom_training.reccot.tower_files import PROGRAM, REPORT, RatingProgram
from rankloom_training.reccot.tower_rows import TowerRows
from server.servers import opened, settings
from training.reccot.test_reccot_command import run

USER, NUM_USERS = "user-4", 12
MIB = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews, encoder, towers, a bundle, and one that has them."""
    folder = tmp_path_factory.mktemp("towers")
    write_reviews(folder / "reviews")
    write_feature_bundle(folder / "plain")
    data = ("--data", folder / "reviews")
    encoder, towers = folder / "encoder", folder / "towers"
    assert run("encode", *data, "--out", encoder, "--passes", 1) == 0
    assert run("towers", *data, "--encoder", encoder, "--out", towers, "--passes", 1) == 0
    given = (*data, "--encoder", encoder, "--towers", towers)
    assert run("attach", "--bundle", folder / "plain", *given, "--out", folder / "bundle") == 0
    return folder


def write_reviews(folder: Path) -> None:
    """Each user has rated five of the bundle's items."""
    folder.mkdir()
    random = np.random.default_rng(5)
    with (folder / "items.csv").open("w") as file:
        csv.writer(file).writerows([["item_id", "title"], *([i.item_id, i.title] for i in ITEMS)])
    with (folder / "interactions.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "rating", "timestamp", "text"])
        for row in range(NUM_USERS * 5):
            item = (row // NUM_USERS * 3 + row % NUM_USERS) % len(ITEMS)
            rating, text = ((5, "Lovely plot."), (2, "Dull cast."))[int(random.integers(2))]
            user = f"user-{row % NUM_USERS}"
            writer.writerow([user, f"item-{item}", rating, 1_000_000 + row // 3, text])


@pytest.fixture
def features(made: Path) -> BundleFeatures:
    reviews = load_reviews(made / "reviews")
    return load_features(open_bundle(made / "bundle"), MemoryEventStore(events_of(reviews)))


def events_of(reviews: Reviews) -> Iterator[UserEvent]:
    for row in range(len(reviews)):
        user = reviews.user_ids[reviews.user[row]]
        item = reviews.catalogue.items[reviews.item[row]].item_id
        yield UserEvent(str(row), user, Event(item, True, float(reviews.time[row])))


def rated(features: BundleFeatures, user: str) -> NDArray[np.float32]:
    query = UserQuery(user, None, ITEMS, predict_ratings=True)
    found = features.provider.features(query).predicted_ratings
    assert found is not None
    return found


def trained_ratings(made: Path, user: str) -> NDArray[np.float32]:
    """By the training's own code: for rows about all items that come next."""
    reviews = load_reviews(made / "reviews")
    vectors = open_vectors(reviews, made / "encoder", 64 * MIB, Progress().step)
    later = with_rows_of(reviews, reviews.user_ids.index(user))
    none = np.zeros((len(ITEMS), vectors.shape[1]), np.float32)
    rows = TowerRows.of(later, np.concatenate([vectors, none]))
    given = rows.inputs(np.arange(len(reviews), len(later)))
    return RatingProgram((made / "towers" / PROGRAM).read_bytes()).ratings(given)


def with_rows_of(reviews: Reviews, user: int) -> Reviews:
    """The reviews, and then one more of each item by the user, all at one later time."""
    items = [reviews.catalogue.index(item.item_id) for item in ITEMS]

    def grown(column: NDArray[Any], new: object) -> NDArray[Any]:
        return np.concatenate([column, np.broadcast_to(np.asarray(new), len(ITEMS))])

    return replace(
        reviews,
        user=grown(reviews.user, user),
        item=grown(reviews.item, items),
        time=grown(reviews.time, reviews.time.max() + 1.0),
        rating=grown(reviews.rating, 3.0),
        split=grown(reviews.split, Split.TEST.value).astype(reviews.split.dtype),
        texts=(*reviews.texts, *[""] * len(ITEMS)),
    )


def test_ratings_are_the_trainings_own_for_rows_that_come_next(
    made: Path, features: BundleFeatures
) -> None:
    found, expected = rated(features, USER), trained_ratings(made, USER)
    seen = {event.item_id for event in features.provider.events.history(USER).events}
    known = np.array([item.item_id in seen for item in ITEMS])
    assert 0 < known.sum() < len(ITEMS)
    np.testing.assert_array_equal(np.isnan(found), known)
    np.testing.assert_allclose(found[~known], expected[~known], atol=1e-5)
    assert np.ptp(found[~known]) > 0.0


def test_they_are_answered_where_they_are_asked_for(features: BundleFeatures) -> None:
    provider = features.provider
    assert provider.features(UserQuery(USER, None, ITEMS)).predicted_ratings is None
    asked = UserQuery(USER, None, (), predict_ratings=True)
    assert provider.features(asked).predicted_ratings is None
    unknown = provider.features(UserQuery(USER, None, (Item("new"),), predict_ratings=True))
    assert unknown.predicted_ratings is not None
    assert np.isfinite(unknown.predicted_ratings).all(), "an unknown item is a cold one"


def test_a_forgotten_user_is_an_unknown_one(made: Path, features: BundleFeatures) -> None:
    before, stranger = rated(features, USER), rated(features, "nobody")
    new = np.isfinite(before)
    assert np.abs(before - stranger)[new].max() > 1e-4
    after = load_features(open_bundle(made / "bundle"), MemoryEventStore())
    np.testing.assert_array_equal(rated(after, USER), stranger)


async def test_they_cross_the_wire(features: BundleFeatures) -> None:
    server = feature_server(settings(bundle=Path()).server, features, "0" * 64)
    ids = [item.item_id for item in ITEMS]
    async with opened(server) as target, AsyncFeatureClient(target) as client:
        answer = await client.user_features(user=USER, items=ids, predict_ratings=True)
        plain = await client.user_features(user=USER, items=ids)
    assert plain.predicted_ratings is None
    assert answer.predicted_ratings is not None
    np.testing.assert_allclose(answer.predicted_ratings, rated(features, USER), rtol=1e-6)


def test_the_bundle_has_all_that_made_the_vectors(made: Path) -> None:
    source, bundle = open_bundle(made / "plain"), open_bundle(made / "bundle")
    new = {name for name in bundle.parts if name not in source.parts}
    assert new == {
        "reccot/encoder.onnx", "reccot/encoder.json", "reccot/tokenizer.json",
        "reccot/towers.onnx", "reccot/review_vectors.sqlite",
    }  # fmt: skip
    assert USER.encode() not in bundle.read(REVIEW_VECTORS)


def vectors_of(origin: ReviewOrigin, path: Path) -> bytes:
    write_review_vectors(path, origin, [], [])
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["encoder", "towers", "dim", "damaged"])
def test_parts_of_another_origin_are_refused(made: Path, tmp_path: Path, kind: str) -> None:
    bundle = open_bundle(made / "bundle")
    own = ReviewOrigin(bundle.parts[TEXT_ENCODER].sha256, bundle.parts[TOWERS].sha256, 999, 10)
    given, message = {
        "encoder": ({TEXT_ENCODER: b"another"}, "not of the bundle's reccot/encoder.onnx"),
        "towers": ({TOWERS: b"others"}, "not of the bundle's reccot/towers.onnx"),
        "dim": (
            {REVIEW_VECTORS: vectors_of(own, tmp_path / "v")},
            r"the towers read vectors of \d+ numbers, the stored ones have 999",
        ),
        "damaged": ({REVIEW_VECTORS: b"nothing"}, "is not a file of vectors of reviews"),
    }[kind]
    with_parts(bundle, given, tmp_path / "wrong", {})
    with pytest.raises(BundleError, match=message):
        load_features(open_bundle(tmp_path / "wrong"))


def test_towers_of_another_encoder_are_not_attached(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, silent = tmp_path / "broken", tmp_path / "silent"
    for folder in (broken, silent):
        shutil.copytree(made / "towers", folder)
    (broken / PROGRAM).write_bytes(b"no program")
    (silent / REPORT).write_text("{}")
    data, own, other = ("--data", made / "reviews"), made / "encoder", tmp_path / "encoder"
    assert run("encode", *data, "--out", other, "--passes", 1, "--seed", 1) == 0
    for encoder, towers, message in (
        (other, made / "towers", "of another encoder or other reviews; train them again"),
        (own, silent, "does not say what the towers learnt; train them again"),
        (own, broken, "not a program that can be run"),
        (own, tmp_path / "missing", "make it with `rankloom reccot towers`"),
    ):
        given = (*data, "--encoder", encoder, "--bundle", made / "plain", "--towers", towers)
        assert run("attach", *given, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_code_that_the_towers_do_not_know_is_refused(made: Path) -> None:
    own = ReviewVectors(open_bundle(made / "bundle").folder / REVIEW_VECTORS)
    stranger = replace(own.of_user(USER), code=9_999)
    ratings = ReviewRatings((made / "towers" / PROGRAM).read_bytes(), own)
    assert ratings.predicted(own.of_user(USER), ["item-0"]).shape == (1,)
    with pytest.raises(ReviewRatingsError, match="of other users or items than the vectors"):
        ratings.predicted(stranger, ["item-0"])
