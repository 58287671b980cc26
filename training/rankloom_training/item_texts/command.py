"""The command `rankloom items`: short texts of the items for prompts, and vectors of their text."""

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
    add_teacher(describe)
    summary = "write a vector of each item's text, which says something of items that nobody rated"
    embed = actions.add_parser("embed", help=summary, description=summary, allow_abbrev=False)
    embed.add_argument(
        "--encoder",
        required=True,
        metavar="NAME",
        help="sentence-transformers or BERT-like model by path or hub id (extra text)",
    )
    for action in (describe, embed):
        action.add_argument("--data", type=Path, required=True, help="folder of log and items")
        add_data_options(action)


def _run(args: argparse.Namespace) -> int:
    return _describe(args) if args.action == "describe" else _embed(args)


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


def _embed(args: argparse.Namespace) -> int:
    from rankloom_training.data import load_dataset
    from rankloom_training.data.item_vectors import FILE_NAME
    from rankloom_training.progress import Progress

    out = args.data / FILE_NAME
    catalogue = load_dataset(args.data, args.like_above, args.implicit).catalogue
    from rankloom_training.item_texts.embed import check_replaceable, embed_items
    from rankloom_training.reccot.text_model import open_text_model

    check_replaceable(out)
    encoder, progress = open_text_model(args.encoder), Progress()
    with progress.stage("items"):
        made = embed_items(catalogue, encoder, args.encoder, out, progress.step)
    print(f"{out}: {made:,} of {len(catalogue):,} items are new, {encoder.dim} numbers each")
    return 0


items = TrainingCommand("items", "write texts and vectors of items", _configure, _run)
