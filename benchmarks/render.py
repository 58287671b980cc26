"""Rewrites the tables of benchmarks/README.md from the newest result of each room.

    python -m benchmarks.render            rewrite the README
    python -m benchmarks.render --check    only say whether it is up to date
    python -m benchmarks.render --show FILE    print all tables of one result

A table stands between `<!-- ROOM -->` and `<!-- /ROOM -->`. The newest result is the one with the
latest date, on whatever machine it was measured.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.canary import report as canary
from benchmarks.common.results import RESULTS, BenchmarkResult, newest, read
from benchmarks.domains import report as domains
from benchmarks.engine import padding
from benchmarks.engine import report as engine
from benchmarks.events import report as events
from benchmarks.explain import report as explain
from benchmarks.faults import report as faults
from benchmarks.features import report as features
from benchmarks.kills import report as kills
from benchmarks.overload import report as overload
from benchmarks.prefilter import report as prefilter
from benchmarks.replay import report as replay
from benchmarks.retrieve import live_report, quality_report
from benchmarks.retrieve import report as retrieve
from benchmarks.scale import report as scale
from benchmarks.serve import report as serve
from benchmarks.stages import report as stages
from benchmarks.stored import report as stored
from benchmarks.swap import report as swap
from benchmarks.training import report as training

README: Final = Path(__file__).with_name("README.md")

# Room → its table for the README.
SUMMARIES: Mapping[str, Callable[[BenchmarkResult], str]] = {
    "engine": engine.summary,
    "engine-padding": padding.summary,
    "serve": serve.summary,
    "overload": overload.summary,
    "events": events.summary,
    "explain": explain.summary,
    "stored": stored.summary,
    "features": features.summary,
    "retrieve": retrieve.summary,
    "retrieve-quality": quality_report.summary,
    "retrieve-live": live_report.summary,
    "faults": faults.summary,
    "replay": replay.summary,
    "prefilter": prefilter.summary,
    "domains": domains.summary,
    "swap": swap.summary,
    "kills": kills.summary,
    "canary": canary.summary,
    "training": training.summary,
    "stages": stages.summary,
    "scale": scale.summary,
}
# Rooms with more than that to show.
TABLES = {
    "engine": engine.tables,
    "serve": serve.tables,
    "overload": overload.tables,
    "swap": swap.tables,
}


def main() -> None:
    """Rewrites the README, or checks it, or shows one result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="exit with 1 if it is out of date")
    action.add_argument("--show", type=Path, metavar="FILE", help="print this result's tables")
    args = parser.parse_args()
    if args.show:
        sys.exit(show(args.show))
    found = README.read_text(encoding="utf-8")
    wanted = rendered(found, RESULTS)
    if args.check and found != wanted:
        sys.exit("benchmarks/README.md is out of date: run python -m benchmarks.render")
    if not args.check:
        README.write_text(wanted, encoding="utf-8")


def show(path: Path) -> str | None:
    """Prints all tables; returns a message if the file cannot be shown."""
    try:
        result = read(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    if result.room not in SUMMARIES:
        return f"{path}: no such room: {result.room}; known: {', '.join(SUMMARIES)}"
    try:
        shown = TABLES.get(result.room, SUMMARIES[result.room])(result)
    except KeyError:  # a copied result may hold no more than the summary shows
        shown = SUMMARIES[result.room](result)
    print(result.headline(), shown, sep="\n\n")
    return None


def rendered(text: str, results: Path) -> str:
    """The README's text with a table for every room that has a result."""
    for room, summary in SUMMARIES.items():
        result = newest(room, results)
        if result is not None:
            text = replaced(text, room, f"{summary(result)}\n\n{result.headline()}")
    return text


def replaced(text: str, room: str, block: str) -> str:
    """Puts ``block`` between the room's markers. Raises ValueError if they are missing."""
    opening, closing = f"<!-- {room} -->", f"<!-- /{room} -->"
    pattern = re.compile(f"{re.escape(opening)}\n.*?{re.escape(closing)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no markers for {room}: put {opening} and {closing} on their own lines")
    return pattern.sub(lambda _: f"{opening}\n{block}\n{closing}", text)


if __name__ == "__main__":
    main()
