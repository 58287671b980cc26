"""The command `rankloom`: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from client_sdk.recording_server import RecordingServer, answer, fail, wait
from client_sdk.test_errors import bad_request
from rankloom import __version__
from rankloom._cli.main import main
from rankloom_proto.v1 import ranking_pb2 as wire

TABLE = """\
request         r
revision        7  sha256:ab
route           fused
weights         drama 0.750  global 0.250
entropy         0.562 nats
history         12 events
fallback level  top_expert (engine_failed)
time            queue 0.1 ms  features 1.0 ms  prompt 2.0 ms  model 30.5 ms  total 1040.0 ms

rank  item   score  probability
   1  bb    2.0000       0.8000
   2  a     1.0000       0.6667
"""


@pytest.fixture
def ranked(server: RecordingServer) -> RecordingServer:
    weights = [
        wire.ExpertWeight(expert="drama", digest="d1", weight=0.75),
        wire.ExpertWeight(expert="global", digest="d0", weight=0.25),
    ]
    stages_us = {"queue": 100, "features": 1000, "prompt": 2000, "model": 30_500}
    stages = {name: Duration(nanos=us * 1000) for name, us in stages_us.items()}
    server.will(
        answer(
            request_id="r",
            revision=wire.Revision(number=7, bundle_digest="sha256:ab"),
            routing=wire.Routing(
                route=wire.ROUTE_FUSED, weights=weights, entropy=0.5623, history_events=12
            ),
            fallback_level=wire.FALLBACK_LEVEL_TOP_EXPERT,
            fallback_reason=wire.FALLBACK_REASON_ENGINE_FAILED,
            timing=wire.Timing(**stages, total=Duration(seconds=1, nanos=40_000_000)),
        )
    )
    return server


def rank(server: RecordingServer, *arguments: str) -> int:
    return main(["rank", "--server", server.target, *arguments])


def usage_error(arguments: Sequence[str]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_table(ranked: RecordingServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(ranked, "--user", "u", "--items", "a,bb") == 0
    assert capsys.readouterr() == (TABLE, "")
    assert ranked.received[0].request.user_id == "u"


def test_unscored_items_show_no_numbers(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(lambda *_: wire.RankResponse(items=[wire.RankedItem(item_id="a", rank=1)]))
    assert rank(server, "--user", "u", "--items", "a") == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["1", "a", "-", "-"]


def test_json(ranked: RecordingServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(ranked, "--user", "u", "--items", "a,bb", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["revision"] == {"number": 7, "bundle_digest": "sha256:ab"}
    assert (printed["fallback_level"], printed["is_fallback"]) == ("top_expert", True)
    assert [item["item_id"] for item in printed["items"]] == ["bb", "a"]


EXPLAINED = """
bb: liked
You like wars.
evidence         influence
x         liked    +0.5000  ████████████████████

a: disliked
"""


def test_explanations_follow_the_table(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = [wire.Evidence(item_id="x", liked=True, influence=0.5)]
    explanations = [
        wire.ItemExplanation(
            item_id="bb", verdict=wire.VERDICT_LIKED, text=" You like wars.\n", evidence=evidence
        ),
        wire.ItemExplanation(item_id="a", verdict=wire.VERDICT_DISLIKED),
    ]
    server.will(answer(explanations=explanations))
    assert rank(server, "--user", "u", "--items", "a,bb", "--explain-top-k", "2") == 0
    assert capsys.readouterr().out.endswith(EXPLAINED)
    assert server.received[0].request.options.explain_top_k == 2
    assert rank(server, "--user", "u", "--items", "a,bb", "--explain-top-k", "2", "--json") == 0
    [first, _] = json.loads(capsys.readouterr().out)["explanations"]
    assert (first["text"], first["evidence"][0]["influence"]) == (" You like wars.\n", 0.5)


def test_history_candidates_and_options(ranked: RecordingServer, tmp_path: Path) -> None:
    history = write(
        tmp_path / "history.json",
        [
            {"item_id": "x", "liked": True, "time": "2024-05-01T12:00:00Z"},
            {"item_id": "y", "liked": False},
        ],
    )
    film = {"item_id": "b", "title": "Été", "year": 1999, "attributes": ["Drama"]}
    candidates = write(tmp_path / "candidates.json", [film])
    files = ["--history", history, "--candidates", candidates]
    options = ["--top-k", "1", "--prefilter", "5", "--timeout", "9"]
    assert rank(ranked, *files, "--items", "a", *options) == 0
    call = ranked.received[0]
    assert [event.item_id for event in call.request.history.events] == ["x", "y"]
    assert call.request.history.events[0].time.seconds == 1_714_564_800
    assert [each.item_id for each in call.request.candidates] == ["a", "b"]
    assert call.request.candidates[1].text.title == "Été"
    assert (call.request.options.top_k, call.request.options.prefilter) == (1, 5)
    assert 7.0 < call.time_remaining_s < 9.5


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_server_error(server: RecordingServer, capsys: pytest.CaptureFixture[str]) -> None:
    violation = bad_request(("candidates", "at most 500, got 501"))
    server.will(fail(grpc.StatusCode.INVALID_ARGUMENT, "the request is wrong", violation))
    assert rank(server, "--user", "u", "--items", "a") == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert first == "rankloom: InvalidRequestError: the request is wrong"
    assert second == "  candidates: at most 500, got 501"
    assert third == f"  request id: {server.received[0].request.request_id}"


def test_no_server(server: RecordingServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.stop()
    assert rank(server, "--user", "u", "--items", "a") == 1
    assert capsys.readouterr().err.startswith("rankloom: ConnectionFailedError: ")


WRONG_USAGE = {
    "no-user": ["--items", "a"],
    "both-users": ["--items", "a", "--user", "u", "--history", "history.json"],
    "no-items": ["--user", "u"],
    "empty-id": ["--user", "u", "--items", "a,,b"],
    "top-k-word": ["--user", "u", "--items", "a", "--top-k", "x"],
    "top-k-negative": ["--user", "u", "--items", "a", "--top-k", "-1"],
    "timeout-zero": ["--user", "u", "--items", "a", "--timeout", "0"],
    "unknown-option": ["--user", "u", "--items", "a", "--topk", "1"],
    "abbreviation": ["--user", "u", "--items", "a", "--js"],
    "no-file": ["--user", "u", "--candidates", "missing.json"],
}


@pytest.mark.parametrize("arguments", WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage(
    server: RecordingServer, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert exit_code(["rank", "--server", server.target, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "rankloom" in err
    assert server.received == []


def exit_code(arguments: Sequence[str]) -> int | str | None:
    """Return the exit code, whether argparse or the command itself finds the mistake."""
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code


SECRET = "anna-liked-this"


def event(**changes: object) -> str:
    return json.dumps([{"item_id": "a", "liked": True, **changes}])


# Option, content of its file, and the location that the message must name.
BAD_FILES: dict[str, tuple[str, str, str]] = {
    "no-json": ("--history", "[{", "input.json: not JSON at line 1, column 3"),
    "no-list": ("--history", '{"item_id": "a"}', "input.json: "),
    "no-object": ("--history", f'["{SECRET}"]', "input.json[0]: "),
    "missing-key": ("--history", f'[{{"item_id": "{SECRET}"}}]', "input.json[0]: "),
    "unknown-key": ("--candidates", f'[{{"item_id": "a", "{SECRET}": 1}}]', "input.json[0]: "),
    "bad-time": ("--history", event(time=SECRET), "input.json[0].time: "),
    "time-number": ("--history", event(time=5), "input.json[0].time: "),
    "naive-time": ("--history", event(time="2024-05-01"), "history[0].time: "),
    "liked-word": ("--history", event(liked=SECRET), "history[0].liked: "),
    "title-number": ("--candidates", '[{"item_id": "a", "title": 5}]', "items[1].title: "),
    "attributes-word": (
        "--candidates",
        f'[{{"item_id": "a", "attributes": "{SECRET}"}}]',
        "items[1].attributes: ",
    ),
}


@pytest.mark.parametrize(("option", "text", "location"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(
    server: RecordingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str,
    location: str,
) -> None:
    path = tmp_path / "input.json"
    path.write_text(text, encoding="utf-8")
    user = ["--user", "u"] if option == "--candidates" else []
    arguments = ["--items", "a", *user, option, str(path)]
    assert exit_code(["rank", "--server", server.target, *arguments]) == 2
    err = capsys.readouterr().err
    assert location in err
    assert SECRET not in err
    assert server.received == []


def test_a_file_that_is_not_utf8(
    tmp_path: Path, server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "input.json"
    path.write_bytes(b"\xff\xfe\xff")
    assert exit_code(["rank", "--server", server.target, "--history", str(path)]) == 2
    assert "input.json: not UTF-8" in capsys.readouterr().err


def test_a_file_that_is_nested_too_deeply(
    tmp_path: Path, server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "input.json"
    path.write_text("[" * 100_000)
    assert exit_code(["rank", "--server", server.target, "--history", str(path)]) == 2
    assert "input.json: nested too deeply" in capsys.readouterr().err


def test_a_server_name_that_is_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["rank", "--server", "\udcff:1", "--items", "a", "--user", "u"]) == 2
    assert "target: has characters that UTF-8 cannot encode" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(["--version"]) == 0
    assert capsys.readouterr().out == f"rankloom {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense", "rank"]])
def test_no_such_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: rankloom")


def test_help_lists_every_command_with_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(["--help"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    described = {words[0] for words in listed if len(words) > 2}
    names = {point.name for point in entry_points(group="rankloom.commands")}
    assert names >= {"serve", "train", "evaluate", "demo"}
    assert names | {"rank"} <= described


# Does what gRPC's thread does when an interrupt comes while a call is being made.
WITH_A_BROKEN_THREAD = """
import sys, threading
from rankloom._cli.main import main

code = main()
thread = threading.Thread(target=lambda: {}["no such call"])
thread.start()
thread.join()
sys.exit(code)
"""


@pytest.mark.parametrize("program", [["-m", "rankloom"], ["-c", WITH_A_BROKEN_THREAD]])
def test_interrupt_leaves_quietly(server: RecordingServer, program: list[str]) -> None:
    server.will(wait(30.0))
    options = ["--server", server.target, "--user", "u", "--items", "a", "--timeout", "25"]
    process = subprocess.Popen(
        [sys.executable, *program, "rank", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 20.0
        while not server.received and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20.0)
    assert (process.returncode, out, err) == (130, "", "rankloom: interrupted\n")
