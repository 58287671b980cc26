"""The commands `rankloom train`, `rankloom evaluate` and `rankloom demo`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_engine.threads import wait_briefly
from rankloom_training.argument_types import device, new_file, whole_number
from rankloom_training.option_flags import MAX_ROWS, add_option_flags, add_protocol, options_of

if TYPE_CHECKING:
    from rankloom_training.data import Dataset
    from rankloom_training.explained import ExplanationReport
    from rankloom_training.machine import Machine
    from rankloom_training.progress import Progress

wait_briefly()

_DATA_HELP = "folder with an interaction log and an item table"

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
        except Exception as error:
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


def _is_for_the_user(error: Exception) -> bool:
    from rankloom_features.event_store.store import EventStoreError
    from rankloom_features.export import ExportError
    from rankloom_training.serving import ServerStartError

    return isinstance(error, (EventStoreError, ExportError, ServerStartError))


@contextmanager
def _resumable(name: str, folder: str) -> Iterator[None]:
    """Says on Ctrl-C where the finished stages are. Raises SystemExit."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"finished stages are kept in {folder}, and the same command goes on from there"
        told = kept if Path(folder).exists() else "no stage was begun"
        print(f"rankloom {name}: interrupted; {told}", file=sys.stderr)
        raise SystemExit(130) from None


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help=_DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bundle to")
    add_option_flags(parser)
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keep finished stages in FOLDER, which other trainings may reuse "
        "(default: OUT.work until the bundle is complete)",
    )
    parser.add_argument(
        "--device",
        type=device,
        default="cpu",
        help="cpu, cuda or cuda:N: where decoder and experts are trained (default: cpu)",
    )
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="run layers again in the backward pass: less memory, more time, for a large --base",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="show which stages would be reused or made, why, and the time; train nothing",
    )
    parser.add_argument(
        "--add-group",
        metavar="NAME",
        help="train one expert alone, for the items of --data that the bundle --from does not know",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="BUNDLE",
        help="a bundle to bring up to date with the new rows of --data, or to add a group to; "
        "it stays as it is",
    )
    parser.add_argument(
        "--refresh-experts",
        action="store_true",
        help="with --from: train the experts further on the new rows, each kept if it is better",
    )


def _train(args: argparse.Namespace) -> int:
    if args.add_group is not None or args.source is not None or args.refresh_experts:
        return _train_on_bundle(args)
    options = options_of(args)
    from rankloom_training.progress import Progress
    from rankloom_training.train import TrainingJob

    job = TrainingJob.checked(args.data, args.out, options, args.work, _machine(args))
    if args.plan:
        for label, text in job.plan():
            print(f"{label:<14} {text}")
        return 0
    with _resumable("train", str(job.work.folder)):
        digest = job.run(Progress())
    print(f"{args.out}: bundle {digest[:12]}")
    return 0


def _machine(args: argparse.Namespace) -> Machine:
    from rankloom_training.machine import Machine

    return Machine(args.device, args.gradient_checkpointing)


def _train_on_bundle(args: argparse.Namespace) -> int:
    if args.source is None:
        raise ValueError("--add-group and --refresh-experts need --from BUNDLE; give both")
    if args.add_group is not None and args.refresh_experts:
        raise ValueError("--add-group trains one expert alone; leave --refresh-experts out")
    if args.plan or args.work is not None:
        raise ValueError("--plan and --work are of whole trainings; leave them out")
    from rankloom_adapters.bundle import open_bundle
    from rankloom_training.added_group import add_group, recipe_of
    from rankloom_training.progress import Progress
    from rankloom_training.refresh.refreshed import refresh

    bundle = open_bundle(args.source)
    args.config = args.config or recipe_of(bundle)
    data, out, options, progress = args.data, args.out, options_of(args), Progress()
    if args.add_group is None:
        digest = refresh(
            bundle,
            data,
            out,
            options,
            progress,
            _machine(args),
            with_experts=args.refresh_experts,
        )
    else:
        digest = add_group(bundle, args.add_group, data, out, options, progress, _machine(args))
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
    parser.add_argument(
        "--explanations",
        type=whole_number(1, MAX_ROWS),
        metavar="N",
        help="also have a server explain N test rows, and measure the words (default: none)",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME",
        help="score another mixture too, and compare: no-experts, single, peft-linear, "
        "temperature=T or max-experts=N; may be repeated",
    )
    parser.add_argument(
        "--against", type=Path, metavar="BUNDLE", help="compare with another bundle's served score"
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="traces of test rows: explain such rows alone, all of them unless --explanations "
        "says otherwise, and measure how close the words come to the teacher's",
    )
    parser.add_argument("--json", type=new_file(), metavar="FILE", help="write the report as JSON")
    parser.add_argument(
        "--plot",
        type=new_file(".png", ".svg", ".pdf"),
        metavar="FILE",
        help="plot the report as png, svg or pdf",
    )


def _evaluate(args: argparse.Namespace) -> int:
    from rich.console import Console

    from rankloom_training import reporting
    from rankloom_training.evaluate import evaluate as judge
    from rankloom_training.progress import Progress
    from rankloom_training.synthetic import read_truth
    from rankloom_training.traces.trace_file import read_traces
    from rankloom_training.variants import Variant
    from rankloom_training.visibility import Protocol

    variants = [Variant.of_text(text) for text in args.variant]
    if args.references is not None:
        read_traces(args.references)  # refused before the rows are scored, which takes minutes
    progress, console = Progress(), Console()
    report, scored, dataset = judge(
        args.bundle,
        args.data,
        Protocol(args.protocol),
        through_grpc=args.through == "grpc",
        progress=progress,
        max_rows=args.rows,
        variants=variants,
        against=args.against,
    )
    report = dataclasses.replace(report, explanations=_explanations(args, dataset, progress))
    synthetic = reporting.synthetic_aucs(scored, dataset, read_truth(args.data))
    reporting.show(console, report, synthetic)
    if args.json is not None:
        reporting.write_json(report, synthetic, args.json)
    if args.plot is not None:
        reporting.write_plot(report, args.plot)
    return 0


def _explanations(
    args: argparse.Namespace, dataset: Dataset, progress: Progress
) -> ExplanationReport | None:
    """What was measured of served explanations; None if none were asked for."""
    from rankloom_training.explained import report_of
    from rankloom_training.explaining import explain_rows, read_references
    from rankloom_training.visibility import Protocol

    references = read_references(args.references, dataset) if args.references else None
    number = args.explanations or len(references or ())
    if not number:
        return None
    protocol = Protocol(args.protocol)
    with progress.stage("explain") as stage:
        rows = explain_rows(args.bundle, dataset, protocol, number, stage.step, references)
    return report_of(rows, dataset.catalogue)


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
    add_option_flags(parser)


def _demo(args: argparse.Namespace) -> int:
    from rankloom_training.options import DEMO_OPTIONS

    options = options_of(args, DEMO_OPTIONS)
    from rich.console import Console

    from rankloom_training.data import load_dataset

    if args.data is not None:
        # Refused before the models' libraries are imported.
        load_dataset(args.data, options.like_above, options.implicit)
    from rankloom_training.demo import run_demo

    with _resumable("demo", str(args.folder)):
        run_demo(args.data, args.folder, options, Console())
    return 0


demo = TrainingCommand(
    "demo", "train a small bundle, serve it and rank with it", _configure_demo, _demo
)
