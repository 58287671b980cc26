"""What a server costs around the engine: `Rank` over gRPC beside the engine in process.

    python benchmarks/serve.py [--json FILE] [--seconds S] [--threads N] [--model S]

Workload: users with a history of about 200 tokens and 20 candidates of 12 tokens, 8
experts of rank 8 on the attention projections; the models are those of engine.py, in
bfloat16. Catalogue, features, trees and tokenizer are trained on the embedded data, which
takes some minutes; decoder, experts and projector are random. Neither side keeps prefixes.

`rankloom serve`, its callers and the engine alone run in processes of their own, and the
two sides take turns round by round, six pairs of fresh processes for two rounds each. Only
the CPU time of the process that answers counts: not that of the callers. Before anything is
timed, the scores of both are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

MODELS = ("S", "L4", "L")
DTYPE: Final = "bfloat16"


def main() -> None:
    """Prints the table, and writes the JSON file if one was asked for."""
    parser = arguments()
    args = parser.parse_args()
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {args.json.parent}")
    # For every process alike: as a server is started, and without threads that spin while
    # they wait, which would count as work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends what it began
    try:
        sys.exit(run(args))
    except KeyboardInterrupt:
        sys.exit(130)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write every figure there")
    seconds = "of each of the 5 phases of the 12 rounds; default: 5"
    parser.add_argument("--seconds", type=duration, default=5.0, help=seconds)
    parser.add_argument("--threads", type=count, default=2, help="of the model; default: 2")
    parser.add_argument("--model", choices=MODELS, default="S", help="default: S")
    return parser


def run(args: argparse.Namespace) -> str | None:
    """Prints the table; gives what to say if the two sides disagree."""
    from tempfile import TemporaryDirectory

    import torch
    from measure import machine
    from serve_bundle import calls_of, make_bundle
    from serve_report import as_json, table
    from serve_study import Plan, WrongScoresError, study
    from workload import SHAPES

    from rankloom_server.config import Settings

    torch.set_num_threads(args.threads)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n", flush=True)
    with TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), SHAPES[args.model])
        settings = Settings(bundle=bundle, dtype=DTYPE, threads=args.threads, prefix_cache_mib=0)
        try:
            found = study(settings, calls_of(bundle), Plan(args.seconds))
        except WrongScoresError as error:
            return str(error)
    title = f"{args.model}, {DTYPE}, threads {args.threads}"
    print(table(title, found))
    if args.json is not None:
        report = {"machine": facts, "model": args.model, "dtype": DTYPE, **as_json(found)}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return None


def duration(text: str) -> float:
    """A positive number of seconds."""
    seconds = float(text)
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be a positive number of seconds")
    return seconds


def count(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
