"""Tries every decoder that transformers knows, and writes docs/base-models.md.

    python -m benchmarks.bases [FAMILY ...] [--seconds N]

Each family is a small model with random weights, made from the settings that transformers has as
its defaults, and each variant changes some of them. The engine's own check refuses it with a
cause, or accepts it; then its margins are compared with the library's own forward: several rows
in a pass, soft tokens, experts on all linear layers, cached prefixes, prompts beyond the window,
decoding. With the names of families, only these are tried, and nothing is written.

All families take about 20 minutes on two cores. Exits with 1 if a score is wrong, or if a family
ends in another way than with a verdict.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import duration, run_command

PAGE = Path(__file__).parents[2] / "docs" / "base-models.md"


def main() -> None:
    """Prints a line for each family, and writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all")
    parser.add_argument(
        "--seconds", type=duration, default=120.0, metavar="N", help="for each; default: 120"
    )
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if a family is unknown, wrong, or without a verdict."""
    from benchmarks.bases.families import all_families
    from benchmarks.bases.guard import guarded
    from benchmarks.bases.page import page

    unknown = set(args.families) - set(all_families())
    if unknown:
        return f"no such family: {', '.join(sorted(unknown))}"
    outcomes = []
    for family in args.families or all_families():
        outcomes.append(guarded(family, args.seconds))
        print(outcomes[-1].line(), flush=True)
    if not args.families:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    bad = [outcome.line() for outcome in outcomes if not outcome.is_good]
    return "\n".join(bad) or None


if __name__ == "__main__":
    main()
