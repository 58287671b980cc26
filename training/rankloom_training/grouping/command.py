"""The command `rankloom groups`: who the groups of a bundle are, and which way its users go."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_training.argument_types import new_file
from rankloom_training.commands import TrainingCommand

if TYPE_CHECKING:
    from rankloom_adapters.bundle import Bundle
    from rankloom_features.events import Event


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle to look at")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="LOG",
        help="folder of a log with other users or later events (default: those beside the bundle)",
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
    from rankloom_training.grouping.users import group_users

    loaded = load_bundle(bundle)
    num_users, histories = _histories(bundle, args.data)
    users = group_users(loaded, histories)
    report = report_of(loaded, users, num_users)
    show.show(Console(), report)
    if args.json is not None:
        args.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    if args.plot is not None:
        show.write_plot(users, loaded.router, args.plot)
    return 0


def _histories(bundle: Bundle, data: Path | None) -> tuple[int, list[tuple[Event, ...]]]:
    """The number of users, and the events of those that are looked at.

    They are those beside the bundle, or those of another log, read as the bundle's was.
    """
    from rankloom_training.data import load_dataset
    from rankloom_training.evaluate import like_above_of, sampling_of
    from rankloom_training.grouping.users import drawn
    from rankloom_training.user_events import events_of_bundle, user_history

    if data is None:
        with events_of_bundle(bundle.folder) as store:
            users = list(store.users())
            return len(users), [store.history(user).events for user in drawn(users)]
    dataset = load_dataset(data, like_above_of(bundle), sampling_of(bundle))
    codes = range(dataset.log.num_users)
    return len(codes), [user_history(dataset, code) for code in drawn(codes)]


groups = TrainingCommand(
    "groups", "show the user groups of a bundle, and their routes", _configure, _run
)
