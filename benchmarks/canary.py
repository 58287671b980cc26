"""Canaries of trained experts: what a trial says of one that learned shuffled labels.

    python benchmarks/canary.py [--runs N] [--json FILE]

A bundle is trained on the embedded data. Experts of two groups are trained once more, from the
global one on: each on its group's training rows, whose labels are shuffled. The users of the log
then rank random items, once with the bundle and once with each bundle that has one of the
new experts. A run is a canary of half of the users, split by a salt of its own as a server
splits them: rankings come in a random order into a `Trial` with the default gates, which is
checked when it is due. A canary of the bundle itself shows how often the gates cry wolf.

Latencies are drawn alike for both arms: nothing runs beside another thing here. The data
is synthetic: this says what the gates see, and nothing of how well anything ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Prints the table, and writes the JSON file if one was asked for."""
    parser = arguments()
    args = parser.parse_args()
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it removes what it wrote
    try:
        run(args)
    except KeyboardInterrupt:
        sys.exit(130)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=count, default=50, help="of each expert; default: 50")
    parser.add_argument("--json", type=Path, help="write every figure there")
    return parser


def run(args: argparse.Namespace) -> None:
    """Trains, ranks, splits; prints the table."""
    from tempfile import TemporaryDirectory

    from canary_experts import trained, with_shuffled
    from canary_runs import Canaries, asked, rankings_of
    from measure import machine, progress

    from rankloom_adapters.bundle import open_bundle

    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle, data = trained(folder)
        questions = asked(bundle)
        progress(f"{len(questions)} rankings by the bundle itself")
        own = rankings_of(bundle, questions)
        found = [Canaries("the bundle itself", own, own).judged(4 * args.runs)]
        for expert in ("group-0", "group-1"):  # nearly no user goes through the global one
            progress(f"training {expert} on shuffled labels")
            other = open_bundle(with_shuffled(bundle, data, expert, folder / expert))
            theirs = rankings_of(other, questions)
            found.append(Canaries(f"{expert}, shuffled labels", theirs, own).judged(args.runs))
    print("| canary | runs | back within 3 checks | back at all | τ with the bundle | gate |")
    print("|---|---|---|---|---|---|")
    for each in found:
        print(each.row)
    if args.json is not None:
        report = {"machine": machine(), "canaries": [each.figures for each in found]}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def count(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
