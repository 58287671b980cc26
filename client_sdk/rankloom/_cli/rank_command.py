"""`rankloom rank`: one ranking, from the shell."""

from __future__ import annotations

import argparse
import sys

from rankloom._cli.arguments import add_connection, add_user, open_client
from rankloom._cli.input_files import read_candidates
from rankloom._cli.rendering import as_json, as_text
from rankloom._results import RankOptions
from rankloom.errors import InvalidRequestError


class RankCommand:
    """Ranks items for one user and prints the ranking."""

    name = "rank"
    help = "rank items for a user"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        add_connection(parser)
        add_user(parser)
        parser.add_argument(
            "--items",
            metavar="A,B,C",
            type=_item_ids,
            default=[],
            help="ids of the candidates; those that contain a comma need --candidates",
        )
        parser.add_argument(
            "--candidates",
            metavar="FILE",
            type=read_candidates,
            default=[],
            help="more candidates, with their texts: a JSON list of "
            "{item_id, title?, year?, attributes?, description?}",
        )
        parser.add_argument("--top-k", metavar="N", type=int, help="return only the N best items")
        parser.add_argument(
            "--explain-top-k", metavar="N", type=int, help="also explain the N best items"
        )
        parser.add_argument(
            "--prefilter",
            metavar="N",
            type=int,
            help="let the language model score only the N items that the trees rank highest",
        )
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def run(self, args: argparse.Namespace) -> int:
        items = [*args.items, *args.candidates]
        if not items:
            raise InvalidRequestError.of_field(
                "--items", "no candidates; give --items, --candidates or both"
            )
        with open_client(args) as client:
            ranking = client.rank(
                items,
                user=args.user,
                history=args.history,
                options=RankOptions(
                    top_k=args.top_k,
                    explain_top_k=args.explain_top_k,
                    prefilter=args.prefilter,
                ),
            )
        sys.stdout.write((as_json(ranking) if args.json else as_text(ranking)) + "\n")
        return 0


def _item_ids(text: str) -> list[str]:
    ids = text.split(",")
    if not all(ids):
        raise argparse.ArgumentTypeError(
            "an id is empty; give ids with one comma between them, and ids that contain a comma "
            "with --candidates FILE"
        )
    return ids
