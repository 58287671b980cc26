"""The command `rankloom traces`: makes, checks and shows what the language model learns to say."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from rankloom_training.argument_types import whole_number
from rankloom_training.commands import TrainingCommand
from rankloom_training.option_flags import MAX_ROWS, MAX_SEED, add_data_options, add_protocol
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.teachers.arguments import add_teacher, teacher_options

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
SPLITS = ("train", "valid", "test")


def _configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for configure in (_configure_make, _configure_check, _configure_show):
        configure(actions)


def _configure_make(actions: Actions) -> None:
    make = _action(actions, "make", "have a teacher write traces")
    _add_data(make)
    make.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    make.add_argument(
        "--kind",
        choices=[str(kind) for kind in TraceKind],
        default=str(TraceKind.THINK),
        help="think: ThinkRec's reasons (default); rationale: ReasoningRec's two parts",
    )
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
    add_teacher(make)
    make.set_defaults(act=_make)


def _configure_check(actions: Actions) -> None:
    check = _action(actions, "check", "check any table of traces")
    check.add_argument("file", metavar="FILE", type=Path, help="Parquet, CSV or JSON lines")
    _add_data(check)
    check.add_argument("--keep", type=Path, metavar="OUT", help="write the sound traces there")
    check.set_defaults(act=_check)


def _configure_show(actions: Actions) -> None:
    show = _action(actions, "show", "show some traces of a file")
    show.add_argument("file", metavar="FILE", type=Path, help="what `make` or `--keep` wrote")
    show.add_argument(
        "--rows", type=whole_number(1, MAX_ROWS), default=5, help="how many (default: 5)"
    )
    show.set_defaults(act=_show)


def _action(actions: Actions, name: str, summary: str) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of log and items")
    add_protocol(parser)
    add_data_options(parser)
    parser.add_argument(
        "--seed",
        type=whole_number(0, MAX_SEED),
        default=0,
        help="random seed, of drawn rows and sampled negatives (default: 0)",
    )


def _run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def _make(args: argparse.Namespace) -> int:
    """Exit code 1 if the teacher could not go on; what it finished is written."""
    from rankloom_training.data import Split, load_dataset
    from rankloom_training.item_texts.item_text_file import FILE_NAME, read_item_texts
    from rankloom_training.progress import Progress
    from rankloom_training.traces.cases import CaseOptions
    from rankloom_training.traces.trace_file import check_writable, sound, write_traces
    from rankloom_training.visibility import Protocol

    teacher, kind = replace(teacher_options(args), seed=args.seed), TraceKind(args.kind)
    data = load_dataset(args.data, args.like_above, args.implicit).with_negatives(args.seed)
    check_writable(args.out)
    options = CaseOptions(args.rows, Split[args.split.upper()], Protocol(args.protocol), args.seed)
    # The models' libraries take seconds to import: what is wrong with the data is said before.
    from rankloom_training.traces.run import open_teacher, run_teacher, with_earlier

    texts = read_item_texts(args.data / FILE_NAME)
    with open_teacher(data.catalogue, texts, kind, teacher, args.out) as writer:
        made = run_teacher(data, writer, options, teacher.concurrency, Progress())
    write_traces(args.out, with_earlier(made, args.out))
    print(f"{args.out}: {len(sound(made.written)):,} of {len(made.written):,} traces are sound")
    if made.stopped:
        print(f"rankloom traces: {made.stopped}", file=sys.stderr)
    return 1 if made.stopped else 0


def _check(args: argparse.Namespace) -> int:
    """Exit code 1 if a trace is refused."""
    from rankloom_training.data import load_dataset
    from rankloom_training.reasons.faithfulness import faithfulness
    from rankloom_training.traces.check import TraceChecker, report_of
    from rankloom_training.traces.foreign import read_foreign
    from rankloom_training.traces.keep import kept_traces
    from rankloom_training.traces.show import faithfulness_line, report_lines
    from rankloom_training.traces.trace_file import check_writable, write_traces
    from rankloom_training.visibility import Protocol

    data = load_dataset(args.data, args.like_above, args.implicit).with_negatives(args.seed)
    if args.keep is not None:
        check_writable(args.keep)
    checker = TraceChecker(data, Protocol(args.protocol))
    checked = list(checker.checked(read_foreign(args.file, data)))
    report, kept = report_of(checked), kept_traces(args.file, data, checker, checked)
    measured = faithfulness(kept, data.catalogue)
    lines = [*report_lines(report), *([faithfulness_line(measured)] if measured else [])]
    for label, text in lines:
        print(f"{label:<8} {text}")
    if args.keep is not None:
        write_traces(args.keep, kept)
    return 1 if report.refused else 0


def _show(args: argparse.Namespace) -> int:
    from rankloom_training.traces.show import spread, trace_lines
    from rankloom_training.traces.trace_file import read_traces

    for trace in spread(read_traces(args.file), args.rows):
        print("\n".join(trace_lines(trace)), end="\n\n")
    return 0


traces = TrainingCommand(
    "traces", "make, check and show what the language model learns to say", _configure, _run
)
