"""The command `rankloom groups`: who the groups of a bundle are, and which way its users go."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_training.argument_types import new_file
from rankloom_training.commands import TrainingCommand

if TYPE_CHECKING:
    from rankloom_features.events import EventLog
    from rankloom_ranker.loaded import LoadedBundle


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle to look at")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="LOG",
        help="folder of a log with other users or later events (default: the bundle's own events)",
    )
    parser.add_argument(
        "--plot",
        type=new_file(".png", ".svg", ".pdf"),
        metavar="FILE",
        help="plot users, centroids and routes as png, svg or pdf",
    )
    parser.add_argument("--json", type=new_file(), metavar="FILE", help="write the report as JSON")


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from rankloom_adapters.bundle import open_bundle

    bundle = open_bundle(args.bundle)
    # The models' libraries take seconds to import: a wrong folder is said before.
    from rankloom_ranker.loaded import load_bundle
    from rankloom_training.grouping import show
    from rankloom_training.grouping.report import report_of
    from rankloom_training.grouping.users import drawn, group_users

    loaded = load_bundle(bundle)
    log = _log_of(loaded, args.data)
    users = group_users(loaded, drawn([log.events_of(user) for user in log.users]))
    report = report_of(loaded, users, len(log.users))
    show.show(Console(), report)
    if args.json is not None:
        args.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    if args.plot is not None:
        show.write_plot(users, loaded.router, args.plot)
    return 0


def _log_of(loaded: LoadedBundle, data: Path | None) -> EventLog:
    """The bundle's own events, or those of another log, read as the bundle's was."""
    if data is None:
        return loaded.provider.log
    from rankloom_training.assemble import event_log
    from rankloom_training.data import load_dataset
    from rankloom_training.evaluate import like_above_of, sampling_of

    bundle = loaded.bundle
    return event_log(load_dataset(data, like_above_of(bundle), sampling_of(bundle)))


groups = TrainingCommand(
    "groups", "show the user groups of a bundle, and their routes", _configure, _run
)
