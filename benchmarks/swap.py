"""An expert is replaced, promoted and rolled back, again and again, under saturating load.

    python benchmarks/swap.py [--swaps N] [--json FILE] [--bundle FOLDER]

A real `rankloom serve` with a state, 16 callers in a process of their own who never pause,
and an operator. One swap: stage an expert of other weights, promote it without gates, let
it answer, roll back, retire. Before a revision is promoted, its scores of 8 fixed calls
are taken, pinned to it. All answers of the load are of these calls, so each one's scores
show which revision computed them: they must be those of the one that it names, item by
item, and that one must have been active between the call and its answer.

Rounds of swaps take turns with rounds as long without any. The bundle is small: features
and trees trained on a part of the embedded data, which takes a minute, and a random
decoder of 2 layers, so that 1,000 swaps take about half an hour on two cores. The server
keeps prefixes, in as little memory as is filled before memory is looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Prints the tables, and writes the JSON file if one was asked for."""
    args = arguments(__doc__, "--swaps", 1000)
    # For every process alike: as a server is started, and without threads that spin while
    # they wait, which would count as work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends what it began
    try:
        sys.exit(run(args))
    except KeyboardInterrupt:
        sys.exit(130)


def arguments(told: str | None, counted: str, default: int) -> argparse.Namespace:
    """The command line of a benchmark that does something so many times to a bundle."""
    parser = argparse.ArgumentParser(
        description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(counted, type=count, default=default, help=f"default: {default}")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--bundle", type=Path, help="serve this one, and make none")
    args = parser.parse_args()
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}")
    if args.bundle is not None and not (args.bundle / "manifest.json").is_file():
        parser.error(f"--bundle: there is no bundle in {args.bundle}")
    return args


def run(args: argparse.Namespace) -> str | None:
    """Prints the tables; gives what to say if an answer was wrong, or a command failed."""
    from tempfile import TemporaryDirectory

    from measure import machine
    from swap_bundle import make_bundle
    from swap_load import LoadEndedError
    from swap_operator import OperatorError
    from swap_report import figures, table
    from swap_server import ServerError
    from swap_study import Plan, study

    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n", flush=True)
    with TemporaryDirectory() as folder:
        try:
            bundle = args.bundle or make_bundle(Path(folder))
            found = study(bundle, Path(folder), Plan(args.swaps))
        except (ServerError, OperatorError, LoadEndedError) as error:
            return str(error)
    print(table("swaps", found))
    if args.json is not None:
        report = {"machine": facts, **figures(found)}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return "\n".join(found.checker.examples) or None


def count(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
