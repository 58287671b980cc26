"""What a server kept becomes a training log, and shows whether training and serving agree."""

from __future__ import annotations

import argparse
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rankloom
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import UserEvent, events_beside
from rankloom_features.events import Event
from rankloom_ranker.served import KEY_FILE, SCHEMA
from rankloom_training.data import load_dataset
from rankloom_training.data_command import data
from rankloom_training.serving import serving

USERS = ("u1", "u2", "newcomer")
ITEMS = ["i0", "i1", "i2", "i3", "i4"]


@dataclass(frozen=True)
class Served:
    """A folder of served rankings, and the events of the server."""

    rankings: Path
    events: Path

    def store(self) -> closing[SqliteEventStore]:
        return closing(SqliteEventStore(self.events))


@pytest.fixture(scope="module")
def served(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Three users, each ranked for before and after an event."""
    folder = tmp_path_factory.mktemp("served")
    found = Served(folder / "rankings", folder / "events.sqlite")
    copy_events(events_beside(served_folder), found.events)
    options = ("--events", str(found.events), "--log-served", str(found.rankings))
    with (
        serving(served_folder, *options) as address,
        rankloom.Client(address, timeout_s=60.0) as client,
    ):
        for user in USERS:
            client.rank(ITEMS, user=user)
            with found.store() as store:
                event = Event("i0", liked=True, time=time.time())
                store.append([UserEvent("live", user, event)])
            client.rank(ITEMS, user=user, options=rankloom.RankOptions(top_k=3))
        client.rank(ITEMS, history=[])
    return found


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser(exit_on_error=False)
    data.configure(parser)
    return data.run(parser.parse_args(list(map(str, arguments))))


@pytest.fixture
def joined(served: Served, small_data: Path, tmp_path: Path) -> Path:
    assert run("join-served", served.rankings, "--events", served.events, "--out", tmp_path) == 0
    (tmp_path / "items.csv").write_bytes((small_data / "items.csv").read_bytes())
    return tmp_path


def test_impressions_without_an_event_are_dislikes(served: Served, joined: Path) -> None:
    rows = pq.read_table(joined / "interactions.parquet").to_pylist()
    with served.store() as store:
        known = {user: store.history(user).events for user in store.users()}
    assert len(known) == 61
    for user, events in known.items():
        own = [row for row in rows if row["user_id"] == user]
        written = [Event(row["item_id"], bool(row["label"]), row["timestamp"]) for row in own]
        assert written[: len(events)] == list(events)
        impressions = own[len(events) :]
        assert not any(row["label"] for row in impressions)
        # The first ranking's i0 had an event; the second returned three items, after the event.
        expected = 4 + 3 if user in USERS else 0
        assert len(impressions) == expected


def test_the_joined_log_can_be_trained_on(joined: Path) -> None:
    dataset = load_dataset(joined)
    assert dataset.log.num_users == 61
    assert not dataset.log.liked.all()


def test_the_command_says_what_it_joined(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("join-served", served.rankings, "--events", served.events, "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "1,443 events and 24 impressions (3 with an event) in 6 rankings" in shown
    written = (tmp_path / "interactions.parquet").read_bytes()
    assert run("join-served", served.rankings, "--events", served.events, "--out", tmp_path) == 2
    assert "exists; remove it or choose another folder" in capsys.readouterr().err
    assert (tmp_path / "interactions.parquet").read_bytes() == written
    other = ("--out", tmp_path / "other", "--within-hours", "0")
    run("join-served", served.rankings, "--events", served.events, *other)
    assert "24 impressions (0 with an event)" in capsys.readouterr().out


def test_the_bundle_that_served_has_no_skew(
    served: Served, served_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--events", served.events, "--bundle", served_folder)
    assert run("skew", served.rankings, *given) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("skew 0 % of the values differ, by 0 at most; 6 rankings compared, 1 ")


def test_events_that_were_not_seen_are_skew(
    served: Served, served_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if an event had another label when it was served than it has now."""
    events = tmp_path / "events.sqlite"
    copy_events(served.events, events)
    with closing(SqliteEventStore(events)) as store:
        history = store.history("u1")
        store.forget("u2")  # who cannot be compared any more
    changed = pq.read_table(next(served.rankings.glob("served-*"))).to_pylist()
    for row in changed:
        row["features"] = (np.array(row["features"], np.float32) + 0.5).tolist()
    (tmp_path / "rankings").mkdir()
    shutil.copy(served.rankings / KEY_FILE, tmp_path / "rankings")
    table = pa.Table.from_pylist(changed, schema=SCHEMA)
    pq.write_table(table, tmp_path / "rankings" / "served-1.parquet")
    given = ("--events", events, "--bundle", served_folder)
    assert run("skew", tmp_path / "rankings", *given) == 0
    shown = capsys.readouterr().out
    assert "by 0.5 at most; 4 rankings compared, 3 skipped" in shown
    assert "collaborative_logit" in shown
    assert history.events


def test_a_forgotten_user_does_not_come_back(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = tmp_path / "events.sqlite"
    copy_events(served.events, events)
    with closing(SqliteEventStore(events)) as store:
        store.forget("newcomer")
    assert all(b"newcomer" not in file.read_bytes() for file in served.rankings.iterdir())
    assert run("join-served", served.rankings, "--events", events, "--out", tmp_path) == 0
    rows = pq.read_table(tmp_path / "interactions.parquet").to_pylist()
    assert {"u1", "u2"} <= {row["user_id"] for row in rows}
    assert "newcomer" not in {row["user_id"] for row in rows}
    assert "8 impressions of users without events, or forgotten, are" in capsys.readouterr().out


def test_one_who_comes_back_is_somebody_new(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rankings from before a user was forgotten stay out, though the id is the same again."""
    events = tmp_path / "events.sqlite"
    copy_events(served.events, events)
    with closing(SqliteEventStore(events)) as store:
        store.forget("u1")
        store.append([UserEvent("again", "u1", Event("i4", liked=True, time=time.time()))])
    assert run("join-served", served.rankings, "--events", events, "--out", tmp_path) == 0
    rows = pq.read_table(tmp_path / "interactions.parquet").to_pylist()
    own = [row for row in rows if row["user_id"] == "u1"]
    assert [(row["item_id"], row["label"]) for row in own] == [("i4", 1)]
    assert "8 impressions of users without events, or forgotten, are" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"short"])
def test_rankings_without_their_key_are_refused(
    served: Served, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rankings = tmp_path / "rankings"
    shutil.copytree(served.rankings, rankings)
    (rankings / KEY_FILE).unlink()
    if content is not None:
        (rankings / KEY_FILE).write_bytes(content)
    assert run("join-served", rankings, "--events", served.events, "--out", tmp_path) == 2
    assert "users.key: " in capsys.readouterr().err
    assert not (tmp_path / "interactions.parquet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no served rankings"),
        (b"no Parquet", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_what_was_not_served_is_refused(
    served: Served,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "served-1.parquet").write_bytes(content)
    out = tmp_path / "out"
    assert run("join-served", tmp_path, "--events", served.events, "--out", out) == 2
    assert message in capsys.readouterr().err


def test_missing_events_are_refused(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.sqlite"
    assert run("join-served", served.rankings, "--events", missing, "--out", tmp_path) == 2
    assert "none.sqlite: no such file" in capsys.readouterr().err
    assert not missing.exists()
