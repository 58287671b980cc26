"""`rankloom rollout`: bundles and experts rolled out from the shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from rankloom._cli.arguments import add_timeout
from rankloom._cli.hints import hint_of
from rankloom._cli.live_view import show
from rankloom._cli.rollout_arguments import (
    add_change,
    add_gates,
    add_reason,
    add_revision,
    add_server,
    gates_of,
    open_client,
)
from rankloom._cli.rollout_rendering import (
    as_json,
    change_as_text,
    one_line,
    revisions_as_text,
    rollout_as_text,
)
from rankloom._policy import ROLLOUT_TIMEOUT_S, STAGING_TIMEOUT_S
from rankloom._rollout_client import RolloutClient
from rankloom._rollouts import Rollout, RolloutState
from rankloom.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    RankloomError,
)

_INDENT: Final = 2


@dataclass(frozen=True, slots=True)
class _Action:
    """One word after `rankloom rollout`: its arguments, and what it does."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    act: Callable[[RolloutClient, argparse.Namespace], int]


class RolloutCliCommand:
    """Stages, tries, promotes and rolls back the revisions of a running server."""

    name = "rollout"
    help = "roll bundles and experts out on a running server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the actions, each with its arguments."""
        actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
        for name, action in _ACTIONS.items():
            subparser = actions.add_parser(
                name, help=action.help, description=action.help, allow_abbrev=False
            )
            action.add(subparser)
            add_server(subparser)
            subparser.set_defaults(act=action.act)

    def run(self, args: argparse.Namespace) -> int:
        """Ask the server and print what it answers; an error leaves with a hint."""
        with open_client(args) as client:
            try:
                exit_code: int = args.act(client, args)
            except RankloomError as error:
                hint = hint_of(error)
                if hint and not hasattr(error, "__notes__"):
                    error.add_note(f"hint: {hint}")
                raise
        return exit_code


def _change(
    ask: Callable[[RolloutClient, argparse.Namespace, dict[str, Any]], Rollout],
) -> Callable[[RolloutClient, argparse.Namespace], int]:
    """The action that asks for a change, and prints what it came to."""

    def act(client: RolloutClient, args: argparse.Namespace) -> int:
        # Both are known here, so that a change whose answer is lost can be asked for again.
        expected = client.list().active if args.expected is None else args.expected
        key = args.key or uuid4().hex
        try:
            changed = ask(client, args, {"expected": expected, "key": key})
        except (ConnectionFailedError, DeadlineExceededError) as error:
            again = " ".join([*_subject(args), f"--expected {expected} --key {key}"])
            error.add_note(f"hint: it may have been done; to be sure, ask again with {again}")
            raise
        return _print_change(changed, args)

    return act


def _subject(args: argparse.Namespace) -> list[str]:
    """The revision that a change is about; nothing for a staging, which makes one."""
    revision = getattr(args, "revision", None)
    return [] if revision is None else [str(revision)]


def _print_change(changed: Rollout, args: argparse.Namespace) -> int:
    """Print where the revision stands; 1 where a bundle was refused."""
    if args.json:
        _print(as_json(changed, _INDENT))
    if changed.state is RolloutState.QUARANTINED:
        reason = one_line(changed.reason)
        sys.stderr.write(f"rankloom: revision {changed.revision} is quarantined: {reason}\n")
        return 1
    if not args.json:
        _print(change_as_text(changed))
    return 0


def _stage(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    terms = {**terms, "timeout_s": args.timeout}
    if args.upload:
        return client.upload(args.source, expert=args.expert, **terms)
    if args.expert is not None:
        return client.stage_expert(args.expert, args.source, **terms)
    return client.stage(args.source, **terms)


def _shadow(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    return client.start_shadow(args.revision, args.percent, gates=gates_of(args), **terms)


def _canary(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    return client.start_canary(args.revision, args.percent, gates=gates_of(args), **terms)


def _promote(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    if args.without_gates and not args.reason:
        raise InvalidRequestError.of_field("--reason", "say why the gates are not asked")
    return client.promote(
        args.revision, without_gates=args.without_gates, reason=args.reason, **terms
    )


def _roll_back(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    if args.revision is None:
        found = client.list()
        args.revision = found.on_trial or found.active  # what to ask again for
    return client.roll_back(args.revision, reason=args.reason, **terms)


def _retire(client: RolloutClient, args: argparse.Namespace, terms: dict[str, Any]) -> Rollout:
    return client.retire(args.revision, reason=args.reason, **terms)


def _get(client: RolloutClient, args: argparse.Namespace) -> int:
    found = client.get(args.revision)
    _print(as_json(found, _INDENT) if args.json else rollout_as_text(found))
    return 0


def _list(client: RolloutClient, args: argparse.Namespace) -> int:
    found = client.list()
    _print(as_json(found, _INDENT) if args.json else revisions_as_text(found))
    return 0


def _watch(client: RolloutClient, args: argparse.Namespace) -> int:
    with closing(client.watch()) as changes:
        show(changes, json=args.json)
    return 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _add_stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="URL",
        help="the folder of a bundle or expert: a path on the server, or a URL that it can read",
    )
    parser.add_argument(
        "--expert", metavar="NAME", help="it is one expert, for the active bundle's of that name"
    )
    parser.add_argument(
        "--upload", action="store_true", help="it is a folder of this machine: send its files"
    )
    add_change(parser, STAGING_TIMEOUT_S)


def _add_shadow(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--percent", metavar="P", type=int, default=100, help="of the requests, 1 to 100 (all)"
    )
    add_gates(parser)
    add_change(parser)


def _add_canary(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--percent", metavar="P", type=int, required=True, help="of the users, 1 to 99"
    )
    add_gates(parser)
    add_change(parser)


def _add_promote(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--without-gates", action="store_true", help="although they have not passed; say why"
    )
    add_reason(parser)
    add_change(parser)


def _add_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "revision",
        metavar="N",
        type=int,
        nargs="?",
        help="the number of a revision (default: the one on trial, else the active one)",
    )
    add_reason(parser)
    add_change(parser)


def _add_retire(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    add_reason(parser)
    add_change(parser)


def _add_get(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    add_timeout(parser, ROLLOUT_TIMEOUT_S)


def _add_list(parser: argparse.ArgumentParser) -> None:
    add_timeout(parser, ROLLOUT_TIMEOUT_S)


def _add_watch(_: argparse.ArgumentParser) -> None:
    """It ends with the server, or by Ctrl-C."""


_ACTIONS: Final = {
    "stage": _Action(
        "have a bundle or an expert kept, loaded and tried out", _add_stage, _change(_stage)
    ),
    "shadow": _Action(
        "rank live requests once more by a revision, and compare", _add_shadow, _change(_shadow)
    ),
    "canary": _Action("send a share of the users there", _add_canary, _change(_canary)),
    "promote": _Action(
        "send everybody there, once its gates have passed", _add_promote, _change(_promote)
    ),
    "rollback": _Action("send nobody there any more", _add_rollback, _change(_roll_back)),
    "retire": _Action("let go of a revision", _add_retire, _change(_retire)),
    "get": _Action("show one revision, and the gates of its trial", _add_get, _get),
    "list": _Action("show all revisions", _add_list, _list),
    "watch": _Action("show all revisions, now and after every change", _add_watch, _watch),
}
