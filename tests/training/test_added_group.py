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
from rankloom_adapters.derive import DERIVED_FROM
from rankloom_adapters.router import GLOBAL, Route
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.added_group import ADDED, AddedGroup, add_group
from rankloom_training.data import load_dataset
from rankloom_training.group_counts import GroupError
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.scoring import BundleScorer, PreparedRequest
from rankloom_training.serving import serving
from rankloom_training.synthetic_domains import BOOKS, COLUMN, FILMS, GAMES, write_domains
from rankloom_training.train import train_bundle
from small_data import small_options

OPTIONS = dataclasses.replace(small_options(), group_by=COLUMN, trace_share=0.0, lm_rows=400)
NUM_USERS = 14
NEW = {
    *(parts.CATALOGUE, parts.ATTRIBUTE_COLUMNS, parts.ENCODER, parts.EVENTS),
    *(parts.ITEM_COLUMNS, parts.ITEM_STATISTICS, parts.ITEM_VECTORS),
    *(parts.ROUTER, parts.ITEM_GROUPS),
    *("experts/games/adapter_config.json", "experts/games/adapter_model.safetensors"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of two domains and of a third, and a bundle of the two."""
    path = tmp_path_factory.mktemp("domains")
    write_domains(path / "two", (FILMS, BOOKS), NUM_USERS)
    write_domains(path / "third", (GAMES,), NUM_USERS)
    train_bundle(path / "two", path / "bundle", OPTIONS, Progress())
    return path


@pytest.fixture(scope="module")
def before(folder: Path) -> Bundle:
    return open_bundle(folder / "bundle")


@pytest.fixture(scope="module")
def after(folder: Path, before: Bundle) -> Bundle:
    add_group(before, "games", folder / "third", folder / "larger", OPTIONS, Progress())
    return open_bundle(folder / "larger")


def a_user(loaded: LoadedBundle, domain: str) -> str:
    """A user who has events of that domain alone."""
    log = loaded.provider.log
    return next(
        user
        for user in log.users
        if {event.item_id.partition("-")[0] for event in log.events_of(user)} == {domain}
    )


def routed(loaded: LoadedBundle, user: str) -> tuple[Route, str]:
    features = loaded.provider.features(UserQuery(user, None))
    mixture = loaded.router.route(loaded.routing_vector(features))
    return mixture.route, loaded.router.experts[int(mixture.weights.argmax())]


def scored(scorer: BundleScorer, prepared: PreparedRequest) -> NDArray[np.float64]:
    weights = scorer.loaded.router.route(prepared.routing_vector).weights[None]
    margins = scorer.margins([prepared], {0: weights}, lambda num_scored, num_prompts: None)[0]
    return margins + prepared.tree_logits


def test_users_go_to_the_expert_of_their_domain(before: Bundle) -> None:
    loaded = load_bundle(before)
    assert loaded.router.groups == ("books", "films")
    for domain in loaded.router.groups:
        assert routed(loaded, a_user(loaded, domain)) == (Route.SINGLE, domain)


def test_all_but_the_parts_of_items_and_the_new_expert_keep_their_bytes(
    before: Bundle, after: Bundle
) -> None:
    after.check()
    changed = {name for name in after.parts if after.parts[name] != before.parts.get(name)}
    assert changed == NEW
    assert before.parts.keys() <= after.parts.keys()
    old = {name for name in before.parts if name.startswith("experts/")}
    assert {before.parts[name] for name in old} == {after.parts[name] for name in old}
    assert after.metadata[DERIVED_FROM] == before.digest
    assert after.metadata[ADDED] == ["games"]


def test_users_of_the_other_domains_keep_vectors_routes_and_scores(
    before: Bundle, after: Bundle
) -> None:
    scorers = [BundleScorer(each) for each in (before, after)]
    loaded = scorers[0].loaded
    for domain in loaded.router.groups:
        user = a_user(loaded, domain)
        query = UserQuery(user, None, loaded.catalogue.items[:9])
        one, other = (each.prepare(query, np.arange(9)) for each in scorers)
        assert one.features.vector.tobytes() == other.features.vector.tobytes()
        assert one.features.tabular == pytest.approx(other.features.tabular, abs=1e-5, nan_ok=True)
        assert routed(loaded, user) == routed(scorers[1].loaded, user)
        scores = [scored(scorer, each) for scorer, each in zip(scorers, (one, other), strict=True)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_server_sends_users_of_the_new_domain_to_the_new_expert(after: Bundle) -> None:
    user = a_user(load_bundle(after), "games")
    with serving(after.folder) as address, rankloom.Client(address, timeout_s=60.0) as client:
        ranking = client.rank(["games-000", "games-001", "films-000"], user=user)
    assert [(each.expert, each.weight) for each in ranking.routing.weights] == [("games", 1.0)]
    assert {item.item_id for item in ranking.items} == {"games-000", "games-001", "films-000"}


def test_a_second_group_can_follow(folder: Path, after: Bundle, tmp_path: Path) -> None:
    songs = dataclasses.replace(GAMES, name="songs", attributes=("Choir", "Drums", "Opera"))
    write_domains(tmp_path / "fourth", (songs,), NUM_USERS)
    added = AddedGroup.checked(after, "songs", load_dataset(tmp_path / "fourth"))
    added.write_untrained(tmp_path / "largest")
    loaded = load_bundle(open_bundle(tmp_path / "largest"))
    assert loaded.router.groups == ("books", "films", "games", "songs")
    assert routed(loaded, a_user(loaded, "songs")) == (Route.SINGLE, "songs")
    assert routed(loaded, a_user(loaded, "games")) == (Route.SINGLE, "games")
    assert loaded.bundle.metadata[ADDED] == ["games", "songs"]


def test_an_untrained_group_answers_as_the_global_expert(
    folder: Path, before: Bundle, tmp_path: Path
) -> None:
    added = AddedGroup.checked(before, "games", load_dataset(folder / "third"))
    added.write_untrained(tmp_path / "untrained")
    loaded = load_bundle(open_bundle(tmp_path / "untrained"))
    digests = dict(zip(loaded.router.experts, loaded.expert_digests, strict=True))
    assert digests["games"] == digests[GLOBAL]


def test_events_of_a_user_in_both_logs_are_joined(
    folder: Path, before: Bundle, tmp_path: Path
) -> None:
    data = load_dataset(folder / "third")
    known = load_bundle(before).provider.log
    user = known.users[0]
    renamed = dataclasses.replace(data.log, user_ids=(user, *data.log.user_ids[1:]))
    added = AddedGroup.checked(before, "games", dataclasses.replace(data, log=renamed))
    added.write_untrained(tmp_path / "joined")
    events = load_bundle(open_bundle(tmp_path / "joined")).provider.log.events_of(user)
    assert set(known.events_of(user)) < set(events)
    assert [event.time for event in events] == sorted(event.time or 0.0 for event in events)
    assert len(events) == len(known.events_of(user)) + int((data.log.user == 0).sum())


def test_what_cannot_be_added_is_refused(
    folder: Path, before: Bundle, after: Bundle, bundle_folder: Path
) -> None:
    third, two = load_dataset(folder / "third"), load_dataset(folder / "two")
    with pytest.raises(GroupError, match="clusters of its users"):
        AddedGroup.checked(open_bundle(bundle_folder), "games", third)
    with pytest.raises(GroupError, match="has a group films"):
        AddedGroup.checked(before, "films", third)
    with pytest.raises(GroupError, match="knows all items"):
        AddedGroup.checked(before, "games", two)
    with pytest.raises(GroupError, match="cannot name a group"):
        AddedGroup.checked(before, "../games", third)


def test_the_command_adds_a_group(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", str(folder / "third"), "--out", str(tmp_path / "out")]
    source = ["--add-group", "games", "--from", str(folder / "bundle")]
    assert main([*command, *source, "--lm-rows", "200"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: bundle ")
    assert load_bundle(open_bundle(tmp_path / "out")).router.groups[-1] == "games"
    assert main([*command, *source]) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert main([*command, "--add-group", "games"]) == 2
    assert "go together" in capsys.readouterr().err
    assert main([*command, *source, "--plan"]) == 2
    assert "leave them out" in capsys.readouterr().err


def test_a_column_that_is_no_category_is_refused_early(folder: Path, tmp_path: Path) -> None:
    options = TrainOptions(group_by="year")
    with pytest.raises(GroupError, match="no category year"):
        train_bundle(folder / "two", tmp_path / "out", options, Progress())
    assert not (tmp_path / "out.work").exists()
