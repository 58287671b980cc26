"""The command `rankloom traces`: makes, checks and shows what the language model learns to say."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankloom_training.argument_types import whole_number
from rankloom_training.commands import TrainingCommand
from rankloom_training.option_flags import MAX_ROWS, MAX_SEED, add_like_above, add_protocol

SPLITS = ("train", "valid", "test")


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    make = actions.add_parser("make", help="have a teacher write traces", allow_abbrev=False)
    _add_data(make)
    make.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    make.add_argument(
        "--rows",
        type=whole_number(1, MAX_ROWS),
        default=2000,
        metavar="N",
        help="explain at most N rows, drawn at random (default: 2000)",
    )
    make.add_argument(
        "--split", choices=SPLITS, default="train", help="which rows (default: train)"
    )
    make.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), default=0, help="random seed (default: 0)"
    )
    make.set_defaults(act=_make)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of log and items")
    add_protocol(parser)
    add_like_above(parser)


def _run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def _make(args: argparse.Namespace) -> int:
    from rankloom_training.data import Split, load_dataset
    from rankloom_training.progress import Progress
    from rankloom_training.traces.cases import CaseOptions
    from rankloom_training.traces.trace_file import check_writable, sound, write_traces
    from rankloom_training.visibility import Protocol

    data = load_dataset(args.data, args.like_above)
    check_writable(args.out)
    options = CaseOptions(args.rows, Split[args.split.upper()], Protocol(args.protocol), args.seed)
    # The models' libraries take seconds to import: what is wrong with the data is said before.
    from rankloom_training.teachers.evidence import EvidenceTeacher
    from rankloom_training.traces.run import run_teacher

    made = run_teacher(data, EvidenceTeacher(args.seed), options, 1, Progress())
    write_traces(args.out, made.traces)
    print(f"{args.out}: {len(sound(made.traces)):,} of {len(made.traces):,} traces are sound")
    return 0


traces = TrainingCommand(
    "traces", "make, check and show what the language model learns to say", _configure, _run
)
