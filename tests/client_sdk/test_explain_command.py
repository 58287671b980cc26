"""`rankloom explain`: what it prints during the text and after it, and its exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from client_sdk.recording_server import Behaviour, RecordingServer, Silence, fail, tell, tell_then
from rankloom import Evidence
from rankloom._cli import charts
from rankloom._cli.main import main
from rankloom_proto.v1 import ranking_pb2 as wire

PRINTED = """\
You like wars.

verdict      liked
probability  0.7500
score        1.2500
request      r
revision     7  sha256:ab
route        fused
weights      drama 0.750  global 0.250
entropy      0.562 nats
history      12 events
tokens       100 read  3 written (stop_token)
"""


def telling(*texts: str) -> Behaviour:
    weights = [
        wire.ExpertWeight(expert="drama", digest="d1", weight=0.75),
        wire.ExpertWeight(expert="global", digest="d0", weight=0.25),
    ]
    return tell(
        *texts,
        request_id="r",
        revision=wire.Revision(number=7, bundle_digest="sha256:ab"),
        verdict=wire.VERDICT_LIKED,
        score=1.25,
        probability=0.75,
        routing=wire.Routing(
            route=wire.ROUTE_FUSED, weights=weights, entropy=0.5623, history_events=12
        ),
        prompt_tokens=100,
        generated_tokens=3,
        stop_reason=wire.STOP_REASON_STOP_TOKEN,
    )


def explain(server: RecordingServer, *arguments: str) -> int:
    return main(["explain", "--server", server.target, *arguments])


def test_words_and_then_the_verdict(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(telling("You", " like", " wars."))
    assert explain(server, "--user", "u", "--item", "a") == 0
    assert capsys.readouterr() == (PRINTED, "")


PRINTED_STORED = """\
It is warm.

written     2026-05-04 03:02:01+00:00
generator   small \ufffd model
rating      4.5
rationales  d1
request     r
revision    7  sha256:ab
"""


def storing() -> Behaviour:
    stored = wire.StoredRationale(generator="small \x1b model", digest="d1", rating=4.5)
    stored.written.FromJsonString("2026-05-04T03:02:01.000007Z")
    return tell(
        "It is warm.",
        request_id="r",
        revision=wire.Revision(number=7, bundle_digest="sha256:ab"),
        source=wire.EXPLANATION_SOURCE_STORED,
        stored=stored,
    )


def test_a_stored_text_and_where_it_comes_from(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(storing())
    given = ("--user", "u", "--item", "a", "--source", "stored")
    assert explain(server, *given) == 0
    assert server.received[-1].explain_request.source == wire.EXPLANATION_SOURCE_STORED
    assert capsys.readouterr() == (PRINTED_STORED, "")
    assert explain(server, *given, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["source"], printed["text"]) == ("stored", "It is warm.")
    assert printed["stored"]["written"] == "2026-05-04T03:02:01.000007+00:00"


def test_nothing_stored_is_answered_with_what_to_do(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = ErrorInfo(reason="NO_STORED_EXPLANATION", domain="rankloom")
    server.will(fail(grpc.StatusCode.NOT_FOUND, "no stored explanation", reason))
    assert explain(server, "--user", "u", "--item", "a", "--source", "stored") == 1
    assert "leave out --source to have one written" in capsys.readouterr().err


def test_without_words_the_verdict_alone(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(telling())
    assert explain(server, "--user", "u", "--item", "a") == 0
    assert capsys.readouterr().out.startswith("verdict ")


def test_control_characters_in_a_text_are_replaced(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(telling("red \x1b[31m\r", "Été\n"))
    assert explain(server, "--user", "u", "--item", "a") == 0
    assert capsys.readouterr().out.startswith("red \ufffd[31m\ufffdÉté\n\n")


def test_json_is_one_object(server: RecordingServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.will(telling("You", " like \x1b", " wars."))
    assert explain(server, "--user", "u", "--item", "a", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["text"] == "You like \x1b wars."
    assert (printed["verdict"], printed["stop_reason"]) == ("liked", "stop_token")
    assert [each["weight"] for each in printed["routing"]["weights"]] == [0.75, 0.25]


def test_arguments_reach_the_server(server: RecordingServer, tmp_path: Path) -> None:
    server.will(telling("x"))
    history = tmp_path / "history.json"
    history.write_text(json.dumps([{"item_id": "x", "liked": True}]), encoding="utf-8")
    options = ["--max-tokens", "9", "--temperature", "0.5", "--seed", "3", "--timeout", "9"]
    assert explain(server, "--history", str(history), "--item", "a", *options) == 0
    call = server.received[0]
    request = call.explain_request
    assert [event.item_id for event in request.history.events] == ["x"]
    assert request.candidate.item_id == "a"
    assert request.options == wire.ExplainOptions(max_tokens=9, temperature=0.5, seed=3)
    assert 7.0 < call.time_remaining_s < 9.5


def test_an_error_between_words(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(tell_then("You", fail(grpc.StatusCode.FAILED_PRECONDITION, "engine failed")))
    assert explain(server, "--user", "u", "--item", "a") == 1
    out, err = capsys.readouterr()
    assert out == "You\n\n"
    assert err.startswith("rankloom: PreconditionError: engine failed\n  request id: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--item", "a"],
        ["--user", "u"],
        ["--user", "u", "--history", "missing.json", "--item", "a"],
        ["--user", "u", "--item", "a", "--max-tokens", "x"],
        ["--user", "u", "--item", "a", "--max-tokens", "-1"],
        ["--user", "u", "--item", "a", "--temp", "1"],
        ["--user", "u", "--item", "a", "--source", "fresh"],
        ["--user", "u", "--item", "a", "--timeout", "0"],
    ],
)
def test_wrong_usage(
    arguments: list[str], server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = explain(server, *arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    out, err = capsys.readouterr()
    assert (out, server.received) == ("", [])
    assert "rankloom" in err


def test_interrupt_leaves_quietly_and_ends_the_call(server: RecordingServer) -> None:
    silence = Silence("You")
    server.will(silence)
    options = ["--server", server.target, "--user", "u", "--item", "a", "--timeout", "25"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rankloom", "explain", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read(3) == "You"  # before the text has ended
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20.0)
    assert (process.returncode, out, err) == (130, "\n\n", "rankloom: interrupted\n")
    assert silence.ended.wait(10.0)


CHART = """\
evidence            influence
heat      liked       +0.5000  ████████████████████
\ufffd         disliked    -0.2500  ██████████
speed     disliked    +0.0010  █
"""


def charted() -> Behaviour:
    evidence = [
        wire.Evidence(item_id="speed", influence=0.001),
        wire.Evidence(item_id="heat", liked=True, influence=0.5),
        wire.Evidence(item_id="\x1b", influence=-0.25),
    ]
    return tell("Yes.", verdict=wire.VERDICT_LIKED, evidence=evidence)


def test_evidence_is_a_chart_with_the_strongest_first(
    server: RecordingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will(charted())
    assert explain(server, "--user", "u", "--item", "a") == 0
    assert capsys.readouterr().out.endswith("\n\n" + CHART)


def test_a_terminal_without_blocks_has_bars_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert list(charts.evidence_chart([Evidence("heat", True, 0.5)]))[1].endswith("  " + "#" * 20)


def test_a_chart_has_ten_bars_at_most() -> None:
    many = [Evidence(str(n), True, 0.0) for n in range(30)]
    assert len(list(charts.evidence_chart(many))) == 11
    assert not list(charts.evidence_chart([]))


def test_evidence_and_grounding_can_be_chosen(server: RecordingServer) -> None:
    server.will(charted())
    assert explain(server, "--user", "u", "--item", "a", "--max-evidence", "2", "--ungrounded") == 0
    sent = server.received[-1].explain_request.options
    assert sent == wire.ExplainOptions(max_evidence=2, grounded=False)
