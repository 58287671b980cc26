"""`rankloom retrieve` and `rankloom recommend`: items of the whole catalogue, from the shell."""

from __future__ import annotations

import argparse
import sys

from rankloom._cli.arguments import add_connection, add_user, open_client
from rankloom._cli.rendering import (
    as_text,
    recommendation_as_json,
    retrieval_as_json,
    retrieval_as_text,
)
from rankloom._retrievals import ItemSelection, RecommendOptions, RetrieveOptions


class RetrieveCommand:
    """Prints the items that are nearest to one user."""

    name = "retrieve"
    help = "find the items of the catalogue that are nearest to a user"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        _add_common(parser, default_k=100)

    def run(self, args: argparse.Namespace) -> int:
        options = RetrieveOptions(selection=_selection(args))
        with open_client(args) as client:
            found = client.retrieve(args.k, user=args.user, history=args.history, options=options)
        show = retrieval_as_json if args.json else retrieval_as_text
        sys.stdout.write(show(found) + "\n")
        return 0


class RecommendCommand:
    """Prints the best items for one user: retrieved, then ranked."""

    name = "recommend"
    help = "find and rank the best items of the catalogue for a user"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        _add_common(parser, default_k=20)
        parser.add_argument(
            "--retrieve-k", metavar="N", type=int, help="rank the N nearest items (default: 100)"
        )
        parser.add_argument(
            "--diversity",
            metavar="D",
            type=float,
            help="0 (default) to 1: how much the items should differ from each other",
        )

    def run(self, args: argparse.Namespace) -> int:
        options = RecommendOptions(
            retrieve_k=args.retrieve_k, selection=_selection(args), diversity=args.diversity
        )
        with open_client(args) as client:
            found = client.recommend(args.k, user=args.user, history=args.history, options=options)
        text = recommendation_as_json(found) if args.json else as_text(found.ranking)
        sys.stdout.write(text + "\n")
        return 0


def _add_common(parser: argparse.ArgumentParser, *, default_k: int) -> None:
    add_connection(parser)
    add_user(parser)
    parser.add_argument(
        "--k",
        metavar="N",
        type=int,
        default=default_k,
        help="how many items (default: %(default)s)",
    )
    parser.add_argument(
        "--with-attribute",
        metavar="A",
        action="append",
        default=[],
        help="only items with this attribute; repeated: with one of them",
    )
    parser.add_argument(
        "--without-attribute",
        metavar="A",
        action="append",
        default=[],
        help="no item with this attribute; may be repeated",
    )
    parser.add_argument(
        "--exclude", metavar="ID", action="append", default=[], help="not this item; repeatable"
    )
    parser.add_argument(
        "--include-seen", action="store_true", help="also items of the user's events"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _selection(args: argparse.Namespace) -> ItemSelection:
    return ItemSelection(
        exclude_seen=not args.include_seen,
        exclude_item_ids=tuple(args.exclude),
        with_attributes=tuple(args.with_attribute),
        without_attributes=tuple(args.without_attribute),
    )
