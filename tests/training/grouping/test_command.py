"""`rankloom groups`: what it shows of a trained bundle is what its router does."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pytest

from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.router import Route
from rankloom_features.events import Event
from rankloom_ranker.loaded import LoadedBundle, load_bundle
from rankloom_training.grouping import users as grouped
from rankloom_training.grouping.command import groups
from rankloom_training.grouping.report import GroupsReport, report_of
from rankloom_training.grouping.users import GroupedUsers, drawn, group_users
from rankloom_training.user_events import events_of_bundle
from small_data import NUM_USERS


@pytest.fixture(scope="module")
def loaded(served_folder: Path) -> LoadedBundle:
    return load_bundle(open_bundle(served_folder))


@pytest.fixture(scope="module")
def histories(served_folder: Path) -> list[tuple[Event, ...]]:
    with events_of_bundle(served_folder) as store:
        return [store.history(user).events for user in store.users()]


@pytest.fixture(scope="module")
def users(loaded: LoadedBundle, histories: list[tuple[Event, ...]]) -> GroupedUsers:
    return group_users(loaded, histories)


@pytest.fixture(scope="module")
def report(loaded: LoadedBundle, users: GroupedUsers) -> GroupsReport:
    return report_of(loaded, users, NUM_USERS)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(exit_on_error=False)
    groups.configure(parser)
    return groups.run(parser.parse_args(arguments))


def test_each_user_is_in_one_group_and_takes_one_route(report: GroupsReport) -> None:
    assert sum(group.users for group in report.groups) == NUM_USERS
    found = report.routes.values()
    for shares in ([each.users for each in found], [each.events for each in found]):
        assert sum(shares) == pytest.approx(1.0)


def test_what_groups_like_is_what_they_were_made_to_like(report: GroupsReport) -> None:
    """Half of the users like comedies and half dramas."""
    likes = [{trait.name: trait.d for trait in group.typical} for group in report.groups]
    assert {max(("Comedy", "Drama"), key=lambda name: each[name]) for each in likes} == {
        "Comedy",
        "Drama",
    }
    assert all(abs(each["Comedy"]) > 1.0 for each in likes)


def test_an_expert_that_equals_the_global_one_is_not_its_own(
    report: GroupsReport, bundle_folder: Path, histories: list[tuple[Event, ...]]
) -> None:
    assert all(group.own_expert for group in report.groups)  # their weights were moved
    equal = load_bundle(open_bundle(bundle_folder))
    digests = equal.expert_digests
    found = report_of(equal, group_users(equal, histories), NUM_USERS)
    assert [group.own_expert for group in found.groups] == [d != digests[-1] for d in digests[:-1]]


def test_the_command_writes_table_json_and_plot(
    served_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, page = tmp_path / "groups.png", tmp_path / "groups.json"
    assert run(str(served_folder), "--plot", str(plot), "--json", str(page)) == 0
    shown = capsys.readouterr().out
    assert "group-0" in shown
    assert "route fused" in shown
    fields = json.loads(page.read_text())
    assert [group["name"] for group in fields["groups"]] == ["group-0", "group-1"]
    assert -1.0 <= fields["silhouette"] <= 1.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_users_of_another_log_are_grouped(
    served_folder: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (small_data / "interactions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["user_id"] in ("u1", "u3", "u4")]
    with (tmp_path / "interactions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "items.csv").write_bytes((small_data / "items.csv").read_bytes())
    assert run(str(served_folder), "--data", str(tmp_path)) == 0
    assert "3 of 3 users" in capsys.readouterr().out


def test_a_wrong_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path)) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_some_of_many_users_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "MAX_USERS", 3)
    histories = [() for _ in range(5)]
    assert len(drawn(histories)) == 3
    assert drawn(histories[:2]) == histories[:2]


def test_users_who_say_nothing_are_counted_and_not_grouped(
    loaded: LoadedBundle, histories: list[tuple[Event, ...]]
) -> None:
    found = group_users(loaded, [*histories[:4], (), ()])
    assert (len(found), found.num_cold) == (4, 2)
    assert report_of(loaded, found, 6).routes[Route.GLOBAL].users >= 2 / 6
    with pytest.raises(ValueError, match="pass another log"):
        group_users(loaded, [()])
    assert report_of(loaded, group_users(loaded, histories[:1]), 1).silhouette is None
