"""`rankloom rank`: one ranking from the shell."""

from __future__ import annotations

import argparse
import sys

from rankloom.client import Client
from rankloom.errors import InvalidRequestError
from rankloom.input_files import read_bytes, read_candidates, read_history
from rankloom.policy import DEFAULT_TIMEOUT_S
from rankloom.rendering import as_json, as_text
from rankloom.results import RankOptions


class RankCommand:
    """Ranks items for one user and prints the answer."""

    name = "rank"
    help = "rank items for a user on a running server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        _add_connection(parser)
        user = parser.add_mutually_exclusive_group(required=True)
        user.add_argument("--user", metavar="ID", help="a user that the server knows")
        user.add_argument(
            "--history",
            metavar="FILE",
            type=read_history,
            help="the user's events: JSON list of {item_id, liked, time?}, oldest first",
        )
        parser.add_argument(
            "--items", metavar="A,B,C", type=_item_ids, default=[], help="ids of candidates"
        )
        parser.add_argument(
            "--candidates",
            metavar="FILE",
            type=read_candidates,
            default=[],
            help="more candidates, with texts: JSON list of "
            "{item_id, title?, year?, attributes?, description?}",
        )
        parser.add_argument("--top-k", metavar="N", type=int, help="print the N best only")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def run(self, args: argparse.Namespace) -> int:
        """Ask the server and print what it answers."""
        items = [*args.items, *args.candidates]
        if not items:
            raise InvalidRequestError.of_field("--items", "give --items, --candidates or both")
        with Client(
            args.server,
            timeout_s=args.timeout,
            root_certificates=args.root_certificates,
            plaintext=args.plaintext,
        ) as client:
            ranking = client.rank(
                items,
                user=args.user,
                history=args.history,
                options=RankOptions(top_k=args.top_k),
            )
        sys.stdout.write((as_json(ranking) if args.json else as_text(ranking)) + "\n")
        return 0


def _add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="HOST:PORT", required=True, help="the server")
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        help="seconds until the call is given up (default: %(default)s)",
    )
    security = parser.add_mutually_exclusive_group()
    security.add_argument(
        "--root-certificates", metavar="FILE", type=read_bytes, help="whom to trust (PEM)"
    )
    security.add_argument(
        "--plaintext", action="store_true", help="do not encrypt, even to another machine"
    )


def _item_ids(text: str) -> list[str]:
    ids = text.split(",")
    if not all(ids):
        raise argparse.ArgumentTypeError("must be ids between commas, none of them empty")
    return ids
