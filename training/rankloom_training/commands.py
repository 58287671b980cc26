"""The commands `rankloom train`, `rankloom evaluate` and `rankloom demo`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_engine.threads import wait_briefly

if TYPE_CHECKING:
    from rankloom_training.data.negatives import NegativeSampling

wait_briefly()

_DATA_HELP = "folder with an interaction log and an item table"
MAX_SEED = 2**32 - 1  # the largest seed that NumPy takes
MAX_ROWS = 10**12

Configure = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


@dataclass(frozen=True, slots=True)
class TrainingCommand:
    """A subcommand of `rankloom`. Prints an error that the user can fix on one line."""

    name: str
    help: str
    configure: Configure
    _run: Run

    def run(self, args: argparse.Namespace) -> int:
        """Returns the exit code."""
        try:
            return self._run(args)
        except (ValueError, OSError) as error:
            return self._refuse(error)
        except RuntimeError as error:
            if not _is_for_the_user(error):
                raise
            return self._refuse(error)

    def _refuse(self, error: Exception) -> int:
        print(f"rankloom {self.name}: {' '.join(_text_of(error).split())}", file=sys.stderr)
        return 2


def _text_of(error: Exception) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:
        return f"{error.strerror}; mend that, then give the same command again"
    return f"{error.filename}: {error.strerror}; check the path, and that you may write there"


def _is_for_the_user(error: RuntimeError) -> bool:
    from rankloom_features.export import ExportError
    from rankloom_training.serving import ServerStartError

    return isinstance(error, (ExportError, ServerStartError))


@contextmanager
def _resumable(name: str, folder: str) -> Iterator[None]:
    """Says on Ctrl-C where the finished stages are. Raises SystemExit."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"rankloom {name}: interrupted; finished stages are kept in {folder}, "
            f"and the same command goes on from there",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """An argparse type. argparse puts the option's name before the error message."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: not a whole number from {least} to {most}")
        return int(text)

    return parse


def _new_file(*endings: str) -> Callable[[str], Path]:
    """An argparse type: a file that can be written later, once the work for it is done."""

    def parse(text: str) -> Path:
        path = Path(text)
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{path.parent}: no such folder; create it first")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text}: cannot be written; choose another file")
        if endings and path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"{text}: must end with {', '.join(endings)}")
        return path

    return parse


def _finite_number(text: str) -> float:
    """An argparse type."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text}: not a number")
    return number


def _sampling(text: str) -> NegativeSampling:
    """An argparse type."""
    from rankloom_training.data.negatives import NegativeSampling

    try:
        return NegativeSampling.of_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """How a log is read where its columns.json does not say it."""
    parser.add_argument(
        "--like-above",
        type=_finite_number,
        metavar="X",
        help="a rating above X is a like (default: 3 of 5 stars; needed on other scales)",
    )
    parser.add_argument(
        "--implicit",
        type=_sampling,
        metavar="N[:BY]",
        help="the log has likes alone, such as clicks or purchases: sample N other items for each "
        "as negatives, BY uniform (default) or popularity",
    )


def _configure_train(parser: argparse.ArgumentParser) -> None:
    from rankloom_features.models import MODEL_NAMES
    from rankloom_training.group_counts import MAX_GROUPS, MIN_GROUPS

    parser.add_argument("--data", type=Path, required=True, help=_DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bundle to")
    add_protocol(parser)
    add_data_options(parser)
    parser.add_argument(
        "--cf", choices=MODEL_NAMES, default="mf", help="collaborative model (default: mf)"
    )
    parser.add_argument(
        "--base", help="causal LM, by path or hub id (default: a small one is trained)"
    )
    parser.add_argument(
        "--groups",
        type=whole_number(MIN_GROUPS, MAX_GROUPS),
        default=3,
        help="number of user groups (default: 3)",
    )
    parser.add_argument(
        "--lm-rows",
        type=whole_number(1, MAX_ROWS),
        default=50_000,
        metavar="N",
        help="training rows that the language model sees at most, all rows of some users; "
        "the other models see every row (default: 50000)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), default=0, help="random seed (default: 0)"
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        choices=("p0", "p1"),
        default="p1",
        help="which earlier events the model sees; p1 (default): all, as in production; "
        "p0: likes, and dislikes of training rows only, as in the published tables",
    )


def _train(args: argparse.Namespace) -> int:
    from rankloom_training.options import TrainOptions
    from rankloom_training.progress import Progress
    from rankloom_training.train import train_bundle
    from rankloom_training.visibility import Protocol

    options = TrainOptions(
        protocol=Protocol(args.protocol),
        collaborative=args.cf,
        base=args.base,
        num_groups=args.groups,
        lm_rows=args.lm_rows,
        seed=args.seed,
        like_above=args.like_above,
        implicit=args.implicit,
    )
    with _resumable("train", f"{args.out}.work"):
        digest = train_bundle(args.data, args.out, options, Progress())
    print(f"{args.out}: bundle {digest[:12]}")
    return 0


train = TrainingCommand("train", "make a bundle from an interaction log", _configure_train, _train)


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True, help="bundle to evaluate")
    parser.add_argument("--data", type=Path, required=True, help=_DATA_HELP)
    add_protocol(parser)
    parser.add_argument(
        "--through",
        choices=("process", "grpc"),
        default="process",
        help="score in this process, or through a server (default: process)",
    )
    parser.add_argument(
        "--rows",
        type=whole_number(1, MAX_ROWS),
        metavar="N",
        help="score at most N test rows, all rows of some users (default: all test rows)",
    )
    parser.add_argument("--json", type=_new_file(), metavar="FILE", help="write the report as JSON")
    parser.add_argument(
        "--plot",
        type=_new_file(".png", ".svg", ".pdf"),
        metavar="FILE",
        help="plot the report as png, svg or pdf",
    )


def _evaluate(args: argparse.Namespace) -> int:
    from rich.console import Console

    from rankloom_training import reporting
    from rankloom_training.evaluate import evaluate as judge
    from rankloom_training.progress import Progress
    from rankloom_training.synthetic import read_truth
    from rankloom_training.visibility import Protocol

    progress, console = Progress(), Console()
    with progress.stage("evaluate"):
        report, scored, dataset = judge(
            args.bundle,
            args.data,
            Protocol(args.protocol),
            through_grpc=args.through == "grpc",
            on_step=progress.step,
            max_rows=args.rows,
        )
    synthetic = reporting.synthetic_aucs(scored, dataset, read_truth(args.data))
    reporting.show(console, report, synthetic)
    if args.json is not None:
        reporting.write_json(report, synthetic, args.json)
    if args.plot is not None:
        reporting.write_plot(report, args.plot)
    return 0


evaluate = TrainingCommand(
    "evaluate", "measure how well a bundle ranks", _configure_evaluate, _evaluate
)


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="your own log (default: synthetic data)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(".demo"),
        help="where data, bundle and report are kept (default: .demo)",
    )


def _demo(args: argparse.Namespace) -> int:
    from rich.console import Console

    from rankloom_training.data import load_dataset

    if args.data is not None:
        load_dataset(args.data)  # refused before the models' libraries are imported
    from rankloom_training.demo import run_demo

    with _resumable("demo", str(args.folder)):
        run_demo(args.data, args.folder, Console())
    return 0


demo = TrainingCommand(
    "demo", "train a small bundle, serve it and rank with it", _configure_demo, _demo
)
