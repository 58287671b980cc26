"""Traces and checks as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rankloom_training.reasons.faithfulness import STRONGEST, Faithfulness
from rankloom_training.reasons.trace import Trace
from rankloom_training.reasons.verdicts import word_of
from rankloom_training.traces.check import TraceReport

MAX_NUMBERS = 5  # of rows that a line names


def report_lines(report: TraceReport) -> Iterator[tuple[str, str]]:
    """Label and text of each line."""
    yield "traces", f"{report.num_rows:,}"
    yield "sound", f"{report.num_sound:,}"
    if report.num_sound:
        yield "words", f"{report.mean_words:.1f} a text"
        yield "variety", f"{report.distinct:.2f} of neighbouring words are different pairs"
    for problem, numbers in sorted(report.refused.items(), key=lambda each: -len(each[1])):
        first = ", ".join(map(str, numbers[:MAX_NUMBERS]))
        more = ", …" if len(numbers) > MAX_NUMBERS else ""
        yield "refused", f"{len(numbers):,}: {problem} (rows {first}{more})"


def faithfulness_line(found: Faithfulness) -> tuple[str, str]:
    """Label and text."""
    return "faithful", (
        f"{found.agreeing:.1%} name first an event that speaks for the verdict; "
        f"{found.strongest:.1%} one of the {STRONGEST} that weigh most (of {found.num_texts:,})"
    )


def trace_lines(trace: Trace) -> Iterator[str]:
    """The trace, and the events that move its score most."""
    first = "none" if trace.blind_verdict is None else word_of(trace.blind_verdict)
    yield f"row {trace.row} · {trace.item_id} · {trace.teacher} · without the label: {first}"
    yield f"{word_of(trace.verdict)}. {trace.text}"
    if trace.problem is not None:
        yield f"refused: the trace {trace.problem}"
    for event in sorted(trace.events, key=lambda each: -abs(each.influence))[:STRONGEST]:
        opinion = "liked" if event.liked else "disliked"
        yield f"  {event.influence:+.3f}  {opinion:<8} {event.item_id}"


def spread(traces: Sequence[Trace], num: int) -> Sequence[Trace]:
    """Up to ``num`` traces from all over the file."""
    step = max(len(traces) // num, 1)
    return traces[::step][:num]
