"""The actions of `rankloom data` on served rankings: join them with events, and measure skew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rankloom_training.argument_types import finite_number, whole_number

if TYPE_CHECKING:
    from rankloom_training.served.skew import SkewReport

HOUR_S: Final = 3_600.0
_MAX_RANKINGS: Final = 1_000_000


def add_join(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`rankloom data join-served`."""
    summary = "make a training log of served rankings and the events that followed"
    parser = actions.add_parser(
        "join-served", help=summary, description=summary, allow_abbrev=False
    )
    parser.add_argument("served", metavar="SERVED", type=Path, help="folder of --log-served")
    _add_events(parser)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where it goes")
    parser.add_argument(
        "--within-hours",
        metavar="H",
        type=finite_number,
        default=24.0,
        help="an item without an event for so long after its ranking is a dislike (default: 24)",
    )


def add_skew(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`rankloom data skew`."""
    summary = "compare served features with those that a bundle computes of the same events"
    parser = actions.add_parser("skew", help=summary, description=summary, allow_abbrev=False)
    parser.add_argument("served", metavar="SERVED", type=Path, help="folder of --log-served")
    _add_events(parser)
    parser.add_argument(
        "--bundle", metavar="BUNDLE", type=Path, required=True, help="bundle that computes them"
    )
    parser.add_argument(
        "--rankings",
        metavar="N",
        type=whole_number(1, _MAX_RANKINGS),
        default=1_000,
        help="compare the newest N (default: 1000)",
    )


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--events", metavar="FILE", type=Path, required=True, help="the server's events"
    )


def join(args: argparse.Namespace) -> int:
    """Prints what was joined."""
    from rankloom_training.progress import Progress
    from rankloom_training.served.join import LOG, join_served
    from rankloom_training.user_events import opened_events

    with opened_events(args.events) as store, Progress().stage("join") as shown:
        found = join_served(args.served, store, args.out, args.within_hours * HOUR_S, shown.step)
    print(
        f"{args.out / LOG}: {found.num_rows:,} rows of {found.num_events:,} events and "
        f"{found.num_impressions:,} impressions ({found.num_clicked:,} with an event) in "
        f"{found.num_rankings:,} rankings; {found.num_unknown:,} impressions of users without "
        "events, or forgotten, are left out; put the item table beside it to train"
    )
    return 0


def skew(args: argparse.Namespace) -> int:
    """Prints the share of values that differ, and the columns."""
    from rankloom_adapters.bundle import open_bundle
    from rankloom_ranker.loaded import load_features
    from rankloom_training.served.skew import skew_of
    from rankloom_training.user_events import opened_events

    bundle = open_bundle(args.bundle)
    with opened_events(args.events) as store:
        provider = load_features(bundle, store).provider
        report = skew_of(args.served, provider, store, args.rankings)
    _show(report)
    return 0


def _show(report: SkewReport) -> None:
    print(
        f"skew {100 * report.share:.4g} % of the values differ, by {report.largest:.3g} at most; "
        f"{report.num_rankings:,} rankings compared, {report.num_skipped:,} skipped"
    )
    for column in report.columns:
        print(f"  {column.name:<32} {100 * column.share:.4g} %, by {column.largest:.3g} at most")
