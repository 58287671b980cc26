"""`rankloom traces make` with a real endpoint: whatever it does, no finished row is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rankloom._cli.main import main
from rankloom_training.data import load_dataset
from rankloom_training.reasons.fitting import fit_influences
from rankloom_training.reasons.influences import TreeInfluences
from rankloom_training.teachers import endpoint
from rankloom_training.traces import run
from rankloom_training.traces.trace_file import read_traces
from rankloom_training.visibility import Protocol
from training.teachers.chat_server import ChatServer, Messages, ServerReply, says, serving

NUM_ROWS = 12
Make = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def influences(small_data: Path) -> TreeInfluences:
    return fit_influences(load_dataset(small_data), Protocol.P1, seed=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, influences: TreeInfluences) -> None:
    """Short waits, and influences that are fitted once: every run would fit the same ones."""
    monkeypatch.setattr(endpoint, "MAX_WAIT_S", 0.001)
    monkeypatch.setattr(run, "fit_influences", lambda *_: influences)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "traces.parquet"


@pytest.fixture
def make(small_data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> Make:
    def run_command(server: ChatServer, *options: object) -> tuple[int, str]:
        words = ["--data", small_data, "--out", out, "--rows", NUM_ROWS, "--teacher", server.url]
        words += ["--model", "large", "--concurrency", 2, *options]
        capsys.readouterr()
        code = main(["traces", "make", *map(str, words)])
        return code, capsys.readouterr().err

    return run_command


def honest(messages: Messages, _: int = 0) -> ServerReply:
    """Cites the first event. Says what the hint says, else Yes."""
    title = re.findall(r'"([^"]+)"', messages[1]["content"])[0]
    hinted = "correct answer is No" in messages[-1]["content"]
    return says(f'{"No" if hinted else "Yes"}. It follows "{title}".')


def test_a_run_is_written_with_its_first_answers_apart(make: Make, out: Path) -> None:
    with serving(honest) as server:
        code, _ = make(server)
    traces = read_traces(out)
    assert (code, len(traces)) == (0, NUM_ROWS)
    assert all(trace.problem is None and trace.blind_verdict for trace in traces)
    assert {trace.repaired for trace in traces if not trace.verdict} == {True}
    assert {trace.repaired for trace in traces if trace.verdict} == {False}


BREAKDOWNS = {
    "gone": ServerReply(b"", 404),
    "overloaded": ServerReply(b"slow down", 429, {"Retry-After": "9"}),
    "torn": ServerReply(b'{"choices": [', missing=99),
    "nonsense": ServerReply(b"welcome"),
}


@pytest.mark.parametrize("fault", BREAKDOWNS.values(), ids=BREAKDOWNS.keys())
def test_a_breakdown_keeps_what_is_finished_and_the_next_run_goes_on(
    make: Make, out: Path, fault: ServerReply
) -> None:
    with serving(lambda messages, number: honest(messages) if number < 7 else fault) as server:
        code, printed = make(server)
    assert code == 1
    assert re.search(r"rankloom traces: .*; (see to the server|check address)", printed)
    finished = read_traces(out)
    assert 3 <= len(finished) <= 7
    with serving(honest) as server:
        assert make(server)[0] == 0
        num_new = len(server.calls)
    traces = read_traces(out)
    assert len(traces) == NUM_ROWS
    assert [trace for trace in traces if trace.row in {t.row for t in finished}] == finished
    assert num_new == sum(trace.attempts for trace in traces) - 7


def test_a_budget_ends_a_run_and_the_next_one_goes_on(make: Make, out: Path) -> None:
    with serving(honest) as server:
        code, printed = make(server, "--max-calls", 5)
        assert (code, len(server.calls)) == (1, 5)
        assert "the budget of 5 calls is spent; raise --max-calls" in printed
        assert make(server)[0] == 0
        total = len(server.calls)
        assert make(server)[0] == 0
        assert len(server.calls) == total == sum(trace.attempts for trace in read_traces(out))


def test_a_run_that_ends_at_once_takes_nothing_from_an_earlier_file(make: Make, out: Path) -> None:
    with serving(honest) as server:
        make(server)
    before = read_traces(out)
    for file in out.parent.glob("*.answers*"):
        file.unlink()
    with serving(lambda *_: ServerReply(b"", 401)) as server:
        assert make(server)[0] == 1
    assert read_traces(out) == before


def test_a_lying_teacher_gives_refused_rows(make: Make, out: Path) -> None:
    with serving(lambda *_: says('Yes. You liked "A Dream of Mine".')) as server:
        assert make(server)[0] == 0
    traces = read_traces(out)
    assert len(traces) == NUM_ROWS
    assert all(trace.problem is not None for trace in traces)


def test_the_endpoint_needs_the_name_of_a_model(
    small_data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["traces", "make", "--data", str(small_data), "--out", str(out)]
    assert main([*words, "--teacher", "http://localhost:1/v1"]) == 2
    assert "say with --model which model to ask" in capsys.readouterr().err
    assert main([*words, "--teacher", "http://[broken/v1", "--model", "large"]) == 2
    assert "is not a URL" in capsys.readouterr().err
    assert main([*words, "--model", "large"]) == 2
    assert "--model is for an endpoint" in capsys.readouterr().err
