"""Arguments of `rankloom rollout`: where the server is, which change is meant, and its gates."""

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
    """Add what `open_client` needs but a timeout, and `json`."""
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        help="where the server takes rollouts (default: %(default)s)",
    )
    add_encryption(parser)
    parser.add_argument(
        "--token-file", metavar="FILE", type=_read_token, help="the token that the server asks for"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def open_client(args: argparse.Namespace) -> RolloutClient:
    """Return a client of the server that the arguments name."""
    return RolloutClient(
        args.server,
        token=args.token_file,
        timeout_s=getattr(args, "timeout", ROLLOUT_TIMEOUT_S),
        root_certificates=args.root_certificates,
        plaintext=args.plaintext,
    )


def add_revision(parser: argparse.ArgumentParser) -> None:
    """Add `revision`."""
    parser.add_argument("revision", metavar="N", type=int, help="the number of a revision")


def add_change(parser: argparse.ArgumentParser, timeout_s: float = ROLLOUT_TIMEOUT_S) -> None:
    """Add what every change takes."""
    parser.add_argument(
        "--expected",
        metavar="N",
        type=int,
        help="change nothing unless this revision is active (default: the one that is)",
    )
    parser.add_argument(
        "--key", metavar="KEY", help="a name of this change: asked again, it is done once"
    )
    add_timeout(parser, timeout_s)


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add `reason`."""
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the record")


def add_gates(parser: argparse.ArgumentParser) -> None:
    """Add `gate`, for `gates_of`."""
    parser.add_argument(
        "--gate",
        metavar="NAME=VALUE",
        type=_bound,
        action="append",
        default=[],
        help=f"a bound for its trial; may be given again. Names: {', '.join(_BOUNDS)}",
    )


def gates_of(args: argparse.Namespace) -> GateSpec | None:
    """Return the bounds that were given; None leaves all of them to the server."""
    return GateSpec(**dict(args.gate)) if args.gate else None


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in _BOUNDS:
        known = ", ".join(_BOUNDS)
        raise argparse.ArgumentTypeError(f"no bound is called {name!r}; there are {known}")
    try:
        return name, _number(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} needs a number: {name}=VALUE") from None


def _number(text: str) -> float:
    """Whole numbers stay whole: some bounds must be."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _read_token(path: str) -> str:
    """Read a token; what the file holds is never quoted."""
    try:
        return read_bytes(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{path}: holds no token") from None
