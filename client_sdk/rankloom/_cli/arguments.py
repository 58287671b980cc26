"""Arguments of the commands that call a server: where it is, and about which user."""

from __future__ import annotations

import argparse

from rankloom._cli.input_files import read_bytes, read_history
from rankloom._client import Client
from rankloom._policy import DEFAULT_TIMEOUT_S


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add what `open_client` needs."""
    parser.add_argument("--server", metavar="HOST:PORT", required=True, help="the server")
    add_timeout(parser, DEFAULT_TIMEOUT_S)
    add_encryption(parser)


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    """Add `timeout`."""
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=default_s,
        help="seconds until the call is given up (default: %(default)g)",
    )


def add_encryption(parser: argparse.ArgumentParser) -> None:
    """Add `root_certificates` and `plaintext`."""
    security = parser.add_mutually_exclusive_group()
    security.add_argument(
        "--root-certificates", metavar="FILE", type=read_bytes, help="whom to trust (PEM)"
    )
    security.add_argument(
        "--plaintext", action="store_true", help="do not encrypt, even to another machine"
    )


def open_client(args: argparse.Namespace) -> Client:
    """Return a client of the server that the arguments name."""
    return Client(
        args.server,
        timeout_s=args.timeout,
        root_certificates=args.root_certificates,
        plaintext=args.plaintext,
    )


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add `user` and `history`, of which exactly one is given."""
    user = parser.add_mutually_exclusive_group(required=True)
    user.add_argument("--user", metavar="ID", help="a user that the server knows")
    user.add_argument(
        "--history",
        metavar="FILE",
        type=read_history,
        help="the user's events: JSON list of {item_id, liked, time?}, oldest first",
    )
