"""Kills a server at random times while an operator rolls out, and starts it again.

    python -m benchmarks.kills [--kills N] [--bundle FOLDER]

A real `rankloom serve` with a state folder and a tiny bundle in float32. An operator stages
experts, promotes, rolls back and retires without a pause. After a random time the process gets
SIGKILL, and another one starts on the same state. The time from its start to its first answer to a
ranking is measured. One revision must be active, it must answer, and it must be the one that the
acknowledged commands led to, or one command further if that command was under way.

200 kills take about 25 minutes on two cores, including a minute to train the bundle.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("kills", __doc__)
    parser.add_argument("--kills", type=count, default=200, help="default: 200")
    add_bundle(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if something was lost or a server did not come back."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.rollout_operator import OperatorError
    from benchmarks.common.server_process import ServerProcessError
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.kills.report import figures, summary
    from benchmarks.kills.study import run_kill_study

    facts = RunFacts.now()
    with TemporaryDirectory() as folder:
        try:
            bundle = args.bundle or make_small_bundle(Path(folder))
            found = run_kill_study(bundle, Path(folder), args.kills)
        except (ServerProcessError, OperatorError) as error:
            return str(error)
    result = BenchmarkResult(
        room="kills",
        facts=facts,
        dtype="float32",
        settings={"kills": args.kills, "threads": 1},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return "\n".join(found.lost) or None


if __name__ == "__main__":
    main()
