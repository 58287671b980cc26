"""What `rankloom rollout` prints: tables, hints, a live view; and the usage it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import grpc
import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from client_sdk.recording_rollouts import RecordingRollouts
from client_sdk.recording_server import fail
from rankloom import (
    ErrorReason,
    Gate,
    GateOutcome,
    Judgement,
    PreconditionError,
    RevisionList,
    Rollout,
    RolloutState,
)
from rankloom._cli.hints import hint_of
from rankloom._cli.live_view import show
from rankloom._cli.main import main
from rankloom._cli.rollout_rendering import as_json, revisions_as_text, rollout_as_text
from rankloom._rollout_responses import parse_rollout
from rankloom.errors import ErrorDetails
from rankloom_adapters.rollout.gates import GateRule, canary_rules, retrieval_rules, shadow_rules
from rankloom_adapters.rollout.thresholds import Thresholds
from rankloom_proto.v1 import rollout_pb2 as wire

PASSED, BREACHED, NO_DATA = GateOutcome.PASSED, GateOutcome.BREACHED, GateOutcome.NO_DATA
TABLE = """\
revision  state        share  leases  loaded  bundle        samples   judgement  finding
       1  active        90 %       3  yes     0123456789ab  -         -
       2  canary        10 %       1  yes     ba9876543210  120/1080  passed     kendall 0.52, bound 0.5
       3  quarantined      -       0  no      ffffffffffff  -         -          gate: unreadable

memory: experts 1.5 MiB, process 640.0 MiB; at 14:02:11 UTC"""  # noqa: E501
ONE = """\
revision   2
state      canary of 10 % of the users
bundle     ba9876543210ff
back to    1
leases     1
loaded     yes
samples    120 on trial, 1080 compared with
judgement  passed: no gate is breached after 200 users or more

gate     group  value  bound  users  outcome
kendall  -       0.52    0.5    200  passed
latency  drama   1.01    1.1    210  passed
ties     -          -   0.02      0  no_data"""


def gate(
    name: str, value: float, bound: float, outcome: GateOutcome = PASSED, group: str = ""
) -> Gate:
    return Gate(name, group, value, bound, 200, outcome)


def judgement(*gates: Gate, outcome: GateOutcome = PASSED, reason: str = "r") -> Judgement:
    return Judgement(outcome, reason, gates, 120, 1080)


def rollout(number: int, state: RolloutState = RolloutState.ACTIVE, **fields: object) -> Rollout:
    given = {
        "bundle_digest": "0123456789abcdef",
        "percent": 0,
        "reason": "",
        "back_to": 0,
        "leases": 0,
        "loaded": True,
        "judgement": None,
    }
    return Rollout(number, state=state, **{**given, **fields})  # type: ignore[arg-type]


CANARY = rollout(
    2,
    RolloutState.CANARY,
    bundle_digest="ba9876543210ff",
    percent=10,
    leases=1,
    back_to=1,
    judgement=judgement(
        gate("kendall", 0.52, 0.5),
        Gate("latency", "drama", 1.01, 1.1, 210, PASSED),
        Gate("ties", "", 0.0, 0.02, 0, NO_DATA),
        reason="no gate is breached after 200 users or more",
    ),
)
REFUSED = rollout(
    3, RolloutState.QUARANTINED, bundle_digest="f" * 64, loaded=False, reason="gate: unreadable"
)


def listed(*rollouts: Rollout) -> RevisionList:
    time = datetime(2026, 5, 1, 14, 2, 11, tzinfo=UTC)
    return RevisionList(rollouts, 1, 3 << 19, 640 << 20, time)


def test_the_list() -> None:
    assert revisions_as_text(listed(rollout(1, leases=3), CANARY, REFUSED)) == TABLE


def test_one_revision() -> None:
    near = judgement(gate("latency", 1.1, 1.1), Gate("kendall", "drama", 0.4, 0.5, 200, BREACHED))
    assert rollout_as_text(CANARY) == ONE
    assert "kendall  drama" in rollout_as_text(rollout(2, RolloutState.SHADOW, judgement=near))
    assert rollout_as_text(REFUSED).count("\n") == 5


FINDINGS: dict[str, Judgement] = {
    "nothing yet": judgement(outcome=NO_DATA, reason="nothing yet"),
    "12 users": judgement(gate("errors", 0.0, 0.005), outcome=NO_DATA, reason="12 users"),
    "errors 0, bound 0": judgement(gate("errors", 0.0, 0.0), gate("latency", 1.05, 1.1)),
    "calibration -0.04, bound 0.05": judgement(
        gate("latency", 0.8, 1.1), gate("calibration", -0.04, 0.05)
    ),
    "topk_overlap 0.61, bound 0.6": judgement(
        gate("topk_overlap", 0.61, 0.6), gate("ks", 0.1, 0.2)
    ),
    "kendall of drama 0.2, bound 0.5": judgement(
        gate("ks", 0.9, 0.2), gate("kendall", 0.2, 0.5, BREACHED, "drama"), outcome=BREACHED
    ),
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_the_worst_gate_is_the_finding(finding: str) -> None:
    found = FINDINGS[finding]
    table = revisions_as_text(listed(rollout(2, RolloutState.SHADOW, judgement=found)))
    assert table.splitlines()[1].endswith(f"{found.outcome:{len('judgement')}}  {finding}")


RULES = tuple(
    rule for rules in (canary_rules, shadow_rules, retrieval_rules) for rule in rules(Thresholds())
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_sdk_and_server_agree_on_what_is_beyond_a_bound(rule: GateRule[object]) -> None:
    for share in (0.5, 1.5):
        value = rule.bound * share
        assert (gate(rule.name, value, rule.bound).excess > 0) == rule.is_beyond(value, rule.bound)


def test_control_characters_from_outside_are_replaced() -> None:
    evil = rollout(2, RolloutState.QUARANTINED, reason="red \x1b[31m\r\nand   more\u202e")
    for text in (revisions_as_text(listed(evil)), rollout_as_text(evil)):
        assert "red \ufffd[31m and more\ufffd" in text


def test_a_small_screen_shows_revisions_that_can_still_serve_first() -> None:
    over = [rollout(number, RolloutState.RETIRED) for number in range(2, 60)]
    text = revisions_as_text(listed(rollout(1), *over, rollout(60, RolloutState.WARMED)), 8)
    rows = [line.split()[:2] for line in text.splitlines()[1:-2]]
    assert len(text.splitlines()) < 8
    assert rows == [["1", "active"], ["58", "retired"], ["59", "retired"], ["60", "warmed"]]


def test_json_has_every_field() -> None:
    printed = json.loads(as_json(listed(rollout(1), CANARY)))
    assert printed["time"] == "2026-05-01T14:02:11+00:00"
    assert printed["rollouts"][1]["judgement"]["gates"][1]["group"] == "drama"
    assert [each["state"] for each in printed["rollouts"]] == ["active", "canary"]


@pytest.mark.parametrize(
    ("kind", "wire_enum", "prefix"),
    [
        (RolloutState, wire.RolloutState, "ROLLOUT_STATE_"),
        (GateOutcome, wire.GateOutcome, "GATE_OUTCOME_"),
    ],
)
def test_every_wire_value_has_its_name(
    kind: type[StrEnum], wire_enum: EnumTypeWrapper, prefix: str
) -> None:
    names = {name.removeprefix(prefix) for name, _ in wire_enum.items()}
    assert names - {"UNSPECIFIED"} == set(kind.__members__) - {"UNKNOWN"}


def test_values_of_a_newer_server_are_unknown() -> None:
    # As bytes, since a newer server sends numbers that our enum lacks.
    newer = parse_rollout(wire.Rollout.FromString(b"\x08\x02\x18\x63\x4a\x02\x08\x63"))
    assert newer.state is RolloutState.UNKNOWN
    assert newer.judgement is not None
    assert newer.judgement.outcome is GateOutcome.UNKNOWN
    assert "unknown" in revisions_as_text(listed(newer))


def test_every_reason_of_a_rollout_has_a_hint() -> None:
    of_others = {
        ErrorReason.FALLBACK_REFUSED,
        ErrorReason.EVENT_STORE_UNAVAILABLE,
        ErrorReason.FEATURE_VERSION_MISMATCH,
        ErrorReason.NO_STORED_EXPLANATION,
        ErrorReason.UNKNOWN,
    }
    for reason in ErrorReason:
        hint = hint_of(PreconditionError("no", ErrorDetails(reason=reason)))
        assert bool(hint) == (reason not in of_others)
        assert "\n" not in hint
    assert hint_of(PreconditionError("no")) == ""


@pytest.mark.parametrize("term", ["xterm", "dumb", ""])
def test_a_capable_terminal_is_redrawn_in_place(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", term or "dumb")
    if not term:
        monkeypatch.delenv("TERM")

    def changes() -> Iterator[RevisionList]:
        yield listed(rollout(1))
        yield listed(rollout(1), CANARY)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show(changes(), json=False)
    drawn = screen.getvalue()
    assert ("\x1b" in drawn) == (term == "xterm")
    if term == "xterm":
        assert drawn.startswith("\x1b[?1049h")
        assert drawn.count("\x1b[H") == 2
        assert drawn.endswith("\x1b[?25h\x1b[?1049l")


@pytest.fixture
def server() -> Iterator[RecordingRollouts]:
    with RecordingRollouts() as server:
        yield server


LOST: dict[str, list[str]] = {
    "stage": ["stage", "/next"],
    "canary": ["canary", "5", "--percent", "10"],
    "rollback": ["rollback"],
}


@pytest.mark.parametrize("name", LOST)
def test_a_change_whose_answer_was_lost_can_be_repeated(
    name: str, server: RecordingRollouts, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failures = [fail(grpc.StatusCode.UNAVAILABLE, "the connection broke")] * 9
    assert main(["rollout", *LOST[name], "--server", server.target]) == 1
    first, *repeated = server.changes
    err = capsys.readouterr().err
    hint = err.splitlines()[-1]
    again = f"--expected {server.active} --key {first.idempotency_key}"
    subject = {"stage": "", "canary": "5 ", "rollback": "4 "}[name]
    assert hint == f"  hint: it may have been made; to be sure, repeat it with {subject}{again}"
    assert repeated == [first] * len(repeated)
    server.failures = []
    words = [*LOST[name], *([subject.strip()] if name == "rollback" else []), *again.split()]
    assert main(["rollout", *words, "--server", server.target]) == 0
    assert server.changes[-1] == first


USAGE: dict[str, tuple[list[str], str]] = {
    "no action": ([], "ACTION"),
    "no such action": (["undo"], "invalid choice: 'undo'"),
    "no revision": (["promote"], "N"),
    "a word": (["promote", "two"], "argument N: invalid int value"),
    "no percent": (["canary", "2"], "--percent"),
    "no url": (["stage"], "URL"),
    "abbreviation": (["stage", "/next", "--up"], "--up"),
    "no such bound": (
        ["shadow", "2", "--gate", "max_k=1"],
        "unknown bound 'max_k'; use one of min_samples, min_group_samples, ",
    ),
    "a bound without value": (["shadow", "2", "--gate", "max_ks"], "max_ks needs a number"),
    "a bound of words": (["shadow", "2", "--gate", "max_ks=big"], "max_ks needs a number"),
    "no token": (["list", "--token-file", "missing"], "cannot read missing"),
    "both": (["list", "--plaintext", "--root-certificates", "setup.py"], "--root-certificates"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = USAGE[name]
    with pytest.raises(SystemExit) as caught:
        main(["rollout", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_token_is_never_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"synthetic \xff")
    with pytest.raises(SystemExit):
        main(["rollout", "list", "--token-file", str(path)])
    path.write_text("synthetic\nin two lines")
    assert main(["rollout", "list", "--token-file", str(path)]) == 2
    assert "synthetic" not in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with RecordingRollouts() as server:
        target = server.target
    assert main(["rollout", "watch", "--server", target]) == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith("rankloom: ConnectionFailedError: ")
    assert hint.startswith("  hint: is `rankloom serve` running? Give --server its address")
