"""Arguments of `rankloom rollout`: the server, the change, and the gates of a trial."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Final

from rankloom._cli.arguments import add_encryption, add_timeout
from rankloom._cli.input_files import read_bytes
from rankloom._policy import ROLLOUT_TIMEOUT_S
from rankloom._rollout_client import RolloutClient
from rankloom._rollouts import GateSpec

DEFAULT_SERVER: Final = "127.0.0.1:50052"
_BOUNDS: Final = tuple(field.name for field in fields(GateSpec))


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `open_client` except a timeout, and `json`."""
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        help="address of the server's RolloutService (default: %(default)s)",
    )
    add_encryption(parser)
    parser.add_argument(
        "--token-file", metavar="FILE", type=_read_token, help="file with the server's token"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def open_client(args: argparse.Namespace) -> RolloutClient:
    return RolloutClient(
        args.server,
        token=args.token_file,
        timeout_s=getattr(args, "timeout", ROLLOUT_TIMEOUT_S),
        root_certificates=args.root_certificates,
        plaintext=args.plaintext,
    )


def add_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("revision", metavar="N", type=int, help="number of the revision")


def add_change(parser: argparse.ArgumentParser, timeout_s: float = ROLLOUT_TIMEOUT_S) -> None:
    parser.add_argument(
        "--expected",
        metavar="N",
        type=int,
        help="change nothing unless this revision is active (default: whichever is active)",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="name of this change; it happens once, however often it is sent",
    )
    add_timeout(parser, timeout_s)


def add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", default="", help="the reason, for the record")


def add_gates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gate",
        metavar="NAME=VALUE",
        type=_bound,
        action="append",
        default=[],
        help=f"a bound of the trial; can be repeated. Names: {', '.join(_BOUNDS)}",
    )


def gates_of(args: argparse.Namespace) -> GateSpec | None:
    """Return the given bounds; None leaves all of them to the server."""
    return GateSpec(**dict(args.gate)) if args.gate else None


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in _BOUNDS:
        known = ", ".join(_BOUNDS)
        raise argparse.ArgumentTypeError(f"unknown bound {name!r}; use one of {known}")
    try:
        return name, _number(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} needs a number; write {name}=VALUE") from None


def _number(text: str) -> float:
    """Return an int if it is one: some bounds must be whole."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _read_token(path: str) -> str:
    """Read a token; errors never quote the file."""
    try:
        return read_bytes(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{path}: not a token; it must be ASCII") from None
