"""Measures what retrieval costs beside bare faiss.

    python -m benchmarks.retrieve [--bundle FOLDER] [--turns N] [--sizes N ...]

In turns, for catalogues of 10⁴, 10⁵ and 10⁶ generated items around those of a trained bundle:
bare faiss on the index of the server, the whole search with what the user has seen left out,
Retrieve of 100 over loopback, and an empty call. Then cells on the largest catalogue: recall of
users whom they were not fitted to. Last, Recommend of 20 from 10⁵ items beside Rank of the 100
candidates that it ranks.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the tables and writes the result."""
    parser = command_line("retrieve", __doc__)
    add_bundle(parser)
    parser.add_argument("--turns", type=count, default=100, help="of each kind; default: 100")
    parser.add_argument(
        "--sizes",
        type=count,
        nargs="+",
        default=[10**4, 10**5, 10**6],
        metavar="N",
        help="items of the catalogues; default: 10,000, 100,000 and 1,000,000",
    )
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.retrieve.report import figures, summary
    from benchmarks.retrieve.study import run_retrieve_study
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_server import logs

    keep_freed_memory()  # as servers do
    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        bundle = args.bundle or make_small_bundle(Path(name))
        found = run_retrieve_study(bundle, args.sizes, args.turns)
    result = BenchmarkResult(
        room="retrieve",
        facts=facts,
        dtype="float32",
        settings={"turns": args.turns, "sizes": args.sizes},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
