"""Arguments that several commands share: the server, and the user."""

from __future__ import annotations

import argparse
from typing import TypeVar

from rankloom._cli.input_files import read_bytes, read_history
from rankloom._client import Client
from rankloom._connection import Connection
from rankloom._policy import DEFAULT_TIMEOUT_S

_Kind = TypeVar("_Kind", bound=Connection)


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `open_connection`."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", required=True, help="address of the server, or unix:PATH"
    )
    add_timeout(parser, DEFAULT_TIMEOUT_S)
    add_encryption(parser)


def add_timeout(parser: argparse.ArgumentParser, default_s: float) -> None:
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=float,
        default=default_s,
        help="give up after this many seconds (default: %(default)g)",
    )


def add_encryption(parser: argparse.ArgumentParser) -> None:
    security = parser.add_mutually_exclusive_group()
    security.add_argument(
        "--root-certificates",
        metavar="FILE",
        type=read_bytes,
        help="trust these authorities (PEM) instead of the public ones",
    )
    security.add_argument(
        "--plaintext",
        action="store_true",
        help="do not encrypt, even if the server is another machine",
    )


def open_client(args: argparse.Namespace) -> Client:
    return open_connection(Client, args)


def open_connection(kind: type[_Kind], args: argparse.Namespace) -> _Kind:
    """Open a client of that kind with the arguments of `add_connection`."""
    return kind(
        args.server,
        timeout_s=args.timeout,
        root_certificates=args.root_certificates,
        plaintext=args.plaintext,
    )


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add `user` and `history`; exactly one must be given."""
    user = parser.add_mutually_exclusive_group(required=True)
    user.add_argument("--user", metavar="ID", help="id of a user that the server knows")
    user.add_argument(
        "--history",
        metavar="FILE",
        type=read_history,
        help="the user's events, oldest first: a JSON list of {item_id, liked, time?}",
    )
