"""The options of commands that ask a teacher."""

from __future__ import annotations

import argparse

from rankloom_training.argument_types import whole_number
from rankloom_training.option_flags import MAX_ROWS
from rankloom_training.teachers.choosing import EVIDENCE, KEY_VARIABLE, TeacherOptions


def add_teacher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        default=EVIDENCE,
        metavar="WHO",
        help="evidence (default: built in, no model), the URL of an OpenAI-compatible endpoint up "
        f"to /v1 (its key in {KEY_VARIABLE}), or a causal LM by path or hub id",
    )
    parser.add_argument("--model", metavar="NAME", help="which model of the endpoint")
    parser.add_argument(
        "--concurrency",
        type=whole_number(1, 256),
        default=8,
        metavar="N",
        help="calls of the endpoint at a time (default: 8)",
    )
    for name in ("calls", "tokens"):
        parser.add_argument(
            f"--max-{name}",
            type=whole_number(1, MAX_ROWS),
            metavar="N",
            help=f"end after so many {name}; the same command goes on (default: no limit)",
        )


def teacher_options(args: argparse.Namespace) -> TeacherOptions:
    """Raises DataError for options that do not go together."""
    options = TeacherOptions(
        args.teacher, args.model, args.max_calls, args.max_tokens, args.concurrency
    )
    options.check()
    return options
