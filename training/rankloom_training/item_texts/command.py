"""The command `rankloom items`: short texts of the items, for prompts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rankloom_training.commands import TrainingCommand
from rankloom_training.option_flags import add_data_options
from rankloom_training.teachers.arguments import add_teacher, teacher_options


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summary = "write keywords and a short description of each item"
    describe = actions.add_parser("describe", help=summary, description=summary, allow_abbrev=False)
    describe.add_argument("--data", type=Path, required=True, help="folder of log and items")
    add_data_options(describe)
    add_teacher(describe)


def _describe(args: argparse.Namespace) -> int:
    """Exit code 1 if the teacher could not go on; what it finished is written."""
    from rankloom_training.data import load_dataset
    from rankloom_training.item_texts.item_text_file import FILE_NAME, check_replaceable
    from rankloom_training.progress import Progress

    options, out = teacher_options(args), args.data / FILE_NAME
    catalogue = load_dataset(args.data, args.like_above, args.implicit).catalogue
    check_replaceable(out)
    from rankloom_training.item_texts.describe import describe_items

    progress = Progress()
    with progress.stage("items"):
        made = describe_items(catalogue, options, out, progress.step)
    print(f"{out}: {len(made.written):,} of {len(catalogue):,} items")
    if made.stopped:
        print(f"rankloom items: {made.stopped}", file=sys.stderr)
    return 1 if made.stopped else 0


items = TrainingCommand("items", "write keywords and descriptions of items", _configure, _describe)
