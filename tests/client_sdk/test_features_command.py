"""`rankloom features` against the fake server: what it prints, and its exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from rankloom import Event, ModelInfo, TabularFeatures, UserFeatures
from rankloom._cli.main import main
from rankloom.testing import FakeServer

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def shown(
    capsys: pytest.CaptureFixture[str], fake: FakeServer, action: str, *options: str, code: int = 0
) -> str:
    assert main(["features", action, "--server", fake.target, *options]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_a_users_features(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, fake, "show", "--user", "42", "--items", "a,b")
    assert "feature version  fake" in text
    assert "of 2 items; see --json" in text
    whole = json.loads(shown(capsys, fake, "show", "--user", "42", "--items", "a,b", "--json"))
    assert len(whole["tabular"]["rows"]) == 2
    assert f"vector           {len(whole['vector'])} numbers" in text


def test_an_unknown_value_is_null(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    columns = TabularFeatures(((math.nan, 0.5),), "s")
    fake.on_features(
        UserFeatures((0.5,), "v1", False, (Event("x", liked=True, time=NOON),), 17, 1.5, columns)
    )
    text = shown(capsys, fake, "show", "--user", "42", "--items", "a", "--json")
    whole = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert whole["tabular"]["rows"] == [[None, 0.5]]
    assert whole["events"] == [{"item_id": "x", "liked": True, "time": NOON.isoformat()}]


def test_the_age_of_old_events_can_be_read(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for age_s, text in ((1.6, "0:00:02"), (3_725.0, "1:02:05"), (86_400.0 * 20_453, "20453 days")):
        fake.on_features(UserFeatures((0.5,), "v1", False, (), 17, age_s, None))
        assert f"newest event     {text}" in shown(capsys, fake, "show", "--user", "42")


def test_the_port_of_another_service(capsys: pytest.CaptureFixture[str]) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert main(["features", "info", "--server", f"127.0.0.1:{port}"]) == 1
    finally:
        server.stop(None).wait()
    assert "features and events on its --features-port" in capsys.readouterr().err


def test_the_newest_events_come_first(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "history.json"
    events = [{"item_id": f"i{n}", "liked": n % 2 == 0} for n in range(12)]
    file.write_text(json.dumps(events))
    lines = shown(capsys, fake, "show", "--history", str(file)).splitlines()
    table = lines[lines.index("newest  label") + 1 :]
    assert [line.split() for line in table[:2]] == [["i11", "disliked"], ["i10", "liked"]]
    assert len(table) == 10


def test_an_event_is_recorded_and_a_user_forgotten(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "position" in shown(capsys, fake, "record", "--user", "42", "--item", "a", "--liked")
    shown(capsys, fake, "record", "--user", "42", "--item", "b", "--disliked")
    shown(capsys, fake, "record", "--user", "42", "--item", "c", "--rating", "4.5")
    found = [(each.item_id, each.liked, each.rating) for each in fake.events]
    assert found == [("a", True, None), ("b", False, None), ("c", None, 4.5)]
    gone = json.loads(shown(capsys, fake, "forget", "--user", "42", "--json"))
    assert gone == {"forgotten_events": 3}
    assert not fake.events


def test_the_model(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(shown(capsys, fake, "info", "--json"))
    assert set(whole) == set(ModelInfo.__slots__)
    assert f"dimension        {whole['dim']}" in shown(capsys, fake, "info")


def test_a_server_that_is_away(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["features", "info", "--server", "127.0.0.1:1", "--timeout", "0.5"])
    assert code == 1
    assert "ConnectionFailedError" in capsys.readouterr().err


def test_a_label_is_needed(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shown(capsys, fake, "record", "--user", "42", "--item", "a")
    assert "one of the arguments --liked --disliked --rating is required" in capsys.readouterr().err
