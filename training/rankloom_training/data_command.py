"""The command `rankloom data`: what training would read, and what comes of served rankings."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankloom_training.commands import TrainingCommand
from rankloom_training.option_flags import add_data_options
from rankloom_training.served.command import add_join, add_skew, join, skew


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summary = "show what would be read: columns, times, likes, split and sample rows"
    check = actions.add_parser("check", help=summary, description=summary, allow_abbrev=False)
    check.add_argument("data", metavar="PATH", type=Path, help="folder of log and items")
    add_data_options(check)
    add_join(actions)
    add_skew(actions)


def _run(args: argparse.Namespace) -> int:
    return {"check": _check, "join-served": join, "skew": skew}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from rankloom_training.data import load_dataset
    from rankloom_training.data.report import (
        SAMPLE_COLUMNS,
        column_lines,
        report_lines,
        sample_rows,
    )
    from rankloom_training.estimate import STAGES, estimate
    from rankloom_training.options import TrainOptions

    dataset = load_dataset(args.data, args.like_above, args.implicit)
    rows = dataset.with_negatives(seed=0)  # refused here if there is nothing to sample
    time = f"{estimate(rows, TrainOptions()).text(STAGES)}, with the default options"
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for label, text in (*report_lines(dataset), ("training", time), *column_lines(dataset)):
        console.print(f"{label:<14} {text}")
    table = Table(*SAMPLE_COLUMNS)
    for row in sample_rows(dataset):
        table.add_row(*row)
    console.print(table)
    return 0


data = TrainingCommand(
    "data", "check a log before training; learn from what was served", _configure, _run
)
