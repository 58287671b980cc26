"""A group that comes later is one more expert; everything else of the bundle stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import rankloom
from rankloom._cli.main import main
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.derive import DERIVED_FROM, with_parts
from rankloom_adapters.router import GLOBAL, Route, Router, RouteThresholds
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.item_groups import OF_ONE_GROUP, ItemGroups, router_of_shares
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.added_group import ADDED, AddedGroup, add_group
from rankloom_training.data import Split, load_dataset
from rankloom_training.group_counts import GroupError
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.scoring import BundleScorer, PreparedRequest
from rankloom_training.serving import serving
from rankloom_training.synthetic_domains import FILMS, GAMES, write_domains
from rankloom_training.train import train_bundle
from rankloom_training.user_events import events_of_bundle
from small_data import small_options

OPTIONS = dataclasses.replace(small_options(), lm_rows=200)
NUM_USERS = 14
NEW = {
    *(parts.CATALOGUE, parts.ATTRIBUTE_COLUMNS, parts.ENCODER),
    *(parts.ITEM_STATISTICS, parts.ITEM_VECTORS, parts.ITEM_INDEX, parts.USER_MODEL),
    *(parts.ROUTER, parts.ITEM_GROUPS),
    *("experts/games/adapter_config.json", "experts/games/adapter_model.safetensors"),
}
# Liked items of a user of each group: comedies have even numbers in the small log, dramas odd ones.
HISTORIES = (("i0", "i2", "i4"), ("i1", "i3"))


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of games."""
    folder = tmp_path_factory.mktemp("games")
    write_domains(folder, (GAMES,), NUM_USERS)
    return folder


@pytest.fixture(scope="module")
def before(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle, as if comedies and dramas were domains."""
    small, folder = open_bundle(served_folder), tmp_path_factory.mktemp("before") / "bundle"
    groups = Router.from_bytes(small.read(parts.ROUTER)).groups
    items = ItemGroups(np.arange(len(load_bundle(small).catalogue)) % 2, 2)
    made = {parts.ROUTER: router_of_shares(groups).to_bytes(), parts.ITEM_GROUPS: items.to_bytes()}
    with_parts(small, made, folder, {})
    copy_events(events_beside(served_folder), events_beside(folder))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def after(before: Bundle, games: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("after") / "bundle"
    add_group(before, "games", games, out, OPTIONS, Progress())
    return open_bundle(out)


def query(loaded: LoadedBundle, *item_ids: str) -> UserQuery:
    """Who liked these items, and asks about the first nine of the catalogue."""
    events = tuple(Event(item_id, True) for item_id in item_ids)
    return UserQuery(None, events, loaded.catalogue.items[:9])


def routed(loaded: LoadedBundle, *item_ids: str) -> tuple[Route, str]:
    features = loaded.provider.features(query(loaded, *item_ids))
    mixture = loaded.router.route(loaded.routing_vector(features))
    return mixture.route, loaded.router.experts[int(mixture.weights.argmax())]


def scored(scorer: BundleScorer, prepared: PreparedRequest) -> NDArray[np.float64]:
    weights = MixtureWeights(scorer.loaded.router.route(prepared.routing_vector).weights)
    margins = scorer.margins([prepared], {0: [weights]}, lambda num_scored, num_prompts: None)[0]
    return margins + prepared.tree_logits


def test_all_but_the_parts_of_items_and_the_new_expert_keep_their_bytes(
    before: Bundle, after: Bundle
) -> None:
    after.check()
    assert {name for name in after.parts if after.parts[name] != before.parts.get(name)} == NEW
    assert before.parts.keys() <= after.parts.keys()
    assert len([name for name in before.parts if name.startswith("experts/")]) == 6
    assert after.metadata[DERIVED_FROM] == before.digest
    assert after.metadata[ADDED] == ["games"]


@pytest.mark.parametrize(("group", "liked"), list(enumerate(HISTORIES)))
def test_users_of_the_other_groups_keep_vectors_routes_and_scores(
    before: Bundle, after: Bundle, group: int, liked: tuple[str, ...]
) -> None:
    scorers = [BundleScorer(each) for each in (before, after)]
    user = query(scorers[0].loaded, *liked)
    one, other = (each.prepare(user, np.arange(9)) for each in scorers)
    assert one.features.vector.tobytes() == other.features.vector.tobytes()
    assert one.features.tabular == pytest.approx(other.features.tabular, abs=1e-5, nan_ok=True)
    for scorer in scorers:
        name = scorers[0].loaded.router.groups[group]
        assert routed(scorer.loaded, *liked) == (Route.SINGLE, name)
    assert scored(scorers[0], one) == pytest.approx(scored(scorers[1], other), abs=1e-5)


@pytest.mark.parametrize(("odd", "even"), [(4, 4), (6, 5), (6, 4), (6, 1)])
@pytest.mark.parametrize("thresholds", [None, OF_ONE_GROUP], ids=["ThinkRec's", "of shares"])
def test_users_of_two_groups_keep_their_routes(
    before: Bundle,
    games: Path,
    tmp_path: Path,
    thresholds: RouteThresholds | None,
    odd: int,
    even: int,
) -> None:
    """ThinkRec's thresholds depend on the number of groups; a bundle may have them."""
    router = dataclasses.replace(load_bundle(before).router, fitted_thresholds=thresholds)
    with_parts(before, {parts.ROUTER: router.to_bytes()}, tmp_path / "before", {})
    old = open_bundle(tmp_path / "before")
    AddedGroup.checked(old, "games", load_dataset(games)).write_untrained(tmp_path / "after")
    liked = [f"i{2 * n + 1}" for n in range(odd)] + [f"i{2 * n}" for n in range(even)]
    mixtures = []
    for bundle in (old, open_bundle(tmp_path / "after")):
        loaded = load_bundle(bundle)
        vector = loaded.routing_vector(loaded.provider.features(query(loaded, *liked)))
        mixtures.append(loaded.router.route(vector))
    one, other = mixtures
    assert one.route is other.route
    assert np.delete(other.weights, 2) == pytest.approx(one.weights, abs=1e-3)


def test_a_user_of_an_old_and_the_new_group_has_the_global_expert(after: Bundle) -> None:
    assert routed(load_bundle(after), "games-000", "i1") == (Route.GLOBAL, GLOBAL)


def test_a_server_sends_users_of_the_new_group_to_the_new_expert(after: Bundle) -> None:
    with events_of_bundle(after.folder) as store:
        user = next(user for user in store.users() if user.startswith("games-"))
    with serving(after.folder) as address, rankloom.Client(address, timeout_s=60.0) as client:
        ranking = client.rank(["games-000", "games-001", "i0"], user=user)
    assert [(each.expert, each.weight) for each in ranking.routing.weights] == [("games", 1.0)]
    assert {item.item_id for item in ranking.items} == {"games-000", "games-001", "i0"}


def test_a_second_group_can_follow(after: Bundle, tmp_path: Path) -> None:
    write_domains(tmp_path / "fourth", (FILMS,), NUM_USERS)
    added = AddedGroup.checked(after, "films", load_dataset(tmp_path / "fourth"))
    added.write_untrained(tmp_path / "largest")
    loaded = load_bundle(open_bundle(tmp_path / "largest"))
    assert loaded.router.groups == (*load_bundle(after).router.groups, "films")
    assert routed(loaded, "films-000") == (Route.SINGLE, "films")
    assert routed(loaded, "games-000") == (Route.SINGLE, "games")
    assert loaded.bundle.metadata[ADDED] == ["games", "films"]


def test_an_untrained_group_has_the_global_expert(
    games: Path, before: Bundle, tmp_path: Path
) -> None:
    AddedGroup.checked(before, "games", load_dataset(games)).write_untrained(tmp_path / "untrained")
    loaded = load_bundle(open_bundle(tmp_path / "untrained"))
    digests = dict(zip(loaded.router.experts, loaded.expert_digests, strict=True))
    assert digests["games"] == digests[GLOBAL]


def test_events_of_a_user_in_both_logs_are_joined(
    games: Path, before: Bundle, tmp_path: Path
) -> None:
    data = load_dataset(games)
    with events_of_bundle(before.folder) as store:
        user = next(store.users())
        known = store.history(user).events
    renamed = dataclasses.replace(data.log, user_ids=(user, *data.log.user_ids[1:]))
    added = AddedGroup.checked(before, "games", dataclasses.replace(data, log=renamed))
    added.write_events(tmp_path / "joined")
    with events_of_bundle(tmp_path / "joined") as store:
        events = store.history(user).events
    assert set(known) < set(events)
    assert [event.time for event in events] == sorted(event.time or 0.0 for event in events)
    assert len(events) == len(known) + int((data.log.user == 0).sum())


def test_what_cannot_be_added_is_refused(
    games: Path, small_data: Path, before: Bundle, served_folder: Path
) -> None:
    data = load_dataset(games)
    with pytest.raises(GroupError, match="clusters of its users"):
        AddedGroup.checked(open_bundle(served_folder), "games", data)
    with pytest.raises(GroupError, match="has a group group-0"):
        AddedGroup.checked(before, "group-0", data)
    with pytest.raises(GroupError, match="knows all items"):
        AddedGroup.checked(before, "games", load_dataset(small_data))
    with pytest.raises(GroupError, match="cannot name a group"):
        AddedGroup.checked(before, "../games", data)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_a_group_without_likes_and_dislikes_is_refused(
    games: Path, before: Bundle, split: Split
) -> None:
    data = load_dataset(games)
    log = dataclasses.replace(data.log, liked=data.log.liked | (data.log.split == split))
    with pytest.raises(GroupError, match=f"among the {split.name.lower()} rows"):
        AddedGroup.checked(before, "games", dataclasses.replace(data, log=log))


def test_the_command_adds_a_group(
    games: Path, before: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", str(games), "--out", str(tmp_path / "out")]
    source = ["--add-group", "games", "--from", str(before.folder)]
    assert main([*command, *source, "--lm-rows", "100"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: bundle ")
    assert load_bundle(open_bundle(tmp_path / "out")).router.groups[-1] == "games"
    assert main([*command, *source]) == 2
    assert "exists; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--add-group", "games"], "need --from BUNDLE; give both"),
        (["--refresh-experts"], "need --from BUNDLE; give both"),
        (["--from", "b", "--add-group", "g", "--refresh-experts"], "leave --refresh-experts out"),
        (["--from", "bundle", "--plan"], "leave them out"),
        (["--add-group", "games", "--from", "bundle", "--plan"], "leave them out"),
        (["--add-group", "games", "--from", "bundle", "--work", "w"], "leave them out"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "data", "--out", "out", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_column_that_is_no_category_is_refused_early(games: Path, tmp_path: Path) -> None:
    with pytest.raises(GroupError, match="no category year"):
        train_bundle(games, tmp_path / "out", TrainOptions(group_by="year"), Progress())
    assert not (tmp_path / "out.work").exists()
