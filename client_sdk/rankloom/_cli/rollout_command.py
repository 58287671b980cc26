"""`rankloom rollout`: roll out bundles and experts, from the shell."""

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
    """One word after `rankloom rollout`: its help, its arguments, and what it does."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    act: Callable[[RolloutClient, argparse.Namespace], int]


class RolloutCliCommand:
    """Stages, tests, promotes and rolls back the revisions of a running server."""

    name = "rollout"
    help = "roll out bundles and experts on a running server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
        for name, action in _ACTIONS.items():
            subparser = actions.add_parser(
                name, help=action.help, description=action.help, allow_abbrev=False
            )
            action.add(subparser)
            add_server(subparser)
            subparser.set_defaults(act=action.act)

    def run(self, args: argparse.Namespace) -> int:
        """Run the chosen action; add a hint to its error."""
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
    """Return the action that asks for a change and prints the result."""

    def act(client: RolloutClient, args: argparse.Namespace) -> int:
        # Both are chosen here, so that the operator can repeat a change whose answer was lost.
        expected = client.list().active if args.expected is None else args.expected
        key = args.key or uuid4().hex
        try:
            changed = ask(client, args, {"expected": expected, "key": key})
        except (ConnectionFailedError, DeadlineExceededError) as error:
            again = " ".join([*_subject(args), f"--expected {expected} --key {key}"])
            error.add_note(f"hint: it may have been made; to be sure, repeat it with {again}")
            raise
        return _print_change(changed, args)

    return act


def _subject(args: argparse.Namespace) -> list[str]:
    """Return the revision of a change; nothing for `stage`, which makes a new one."""
    revision = getattr(args, "revision", None)
    return [] if revision is None else [str(revision)]


def _print_change(changed: Rollout, args: argparse.Namespace) -> int:
    """Print the revision's new state; return 1 if a bundle was refused."""
    if args.json:
        _print(as_json(changed, _INDENT))
    if changed.state is RolloutState.QUARANTINED:
        reason = one_line(changed.reason)
        sys.stderr.write(f"rankloom: revision {changed.revision} is quarantined: {reason}\n")
        return 1
    if not args.json:
        _print(change_as_text(changed))
    return 0


def _stage(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    guard = {**guard, "timeout_s": args.timeout}
    if args.upload:
        return client.upload(args.source, expert=args.expert, **guard)
    if args.expert is not None:
        return client.stage_expert(args.expert, args.source, **guard)
    return client.stage(args.source, **guard)


def _shadow(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    return client.start_shadow(args.revision, args.percent, gates=gates_of(args), **guard)


def _canary(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    return client.start_canary(args.revision, args.percent, gates=gates_of(args), **guard)


def _promote(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    if args.without_gates and not args.reason:
        raise InvalidRequestError.of_field("--reason", "missing; say why the gates do not matter")
    return client.promote(
        args.revision, without_gates=args.without_gates, reason=args.reason, **guard
    )


def _roll_back(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    if args.revision is None:
        found = client.list()
        args.revision = found.on_trial or found.active
    return client.roll_back(args.revision, reason=args.reason, **guard)


def _retire(client: RolloutClient, args: argparse.Namespace, guard: dict[str, Any]) -> Rollout:
    return client.retire(args.revision, reason=args.reason, **guard)


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
        help="folder of a bundle or expert: a path on the server, or a URL that it can read",
    )
    parser.add_argument(
        "--expert",
        metavar="NAME",
        help="the folder has one expert; it replaces the active bundle's expert NAME",
    )
    parser.add_argument(
        "--upload", action="store_true", help="the folder is on this machine: send its files"
    )
    add_change(parser, STAGING_TIMEOUT_S)


def _add_shadow(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--percent",
        metavar="P",
        type=int,
        default=100,
        help="share of the requests, 1 to 100 (default: 100)",
    )
    add_gates(parser)
    add_change(parser)


def _add_canary(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--percent", metavar="P", type=int, required=True, help="share of the users, 1 to 99"
    )
    add_gates(parser)
    add_change(parser)


def _add_promote(parser: argparse.ArgumentParser) -> None:
    add_revision(parser)
    parser.add_argument(
        "--without-gates",
        action="store_true",
        help="promote even if they have not passed; needs --reason",
    )
    add_reason(parser)
    add_change(parser)


def _add_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "revision",
        metavar="N",
        type=int,
        nargs="?",
        help="number of the revision (default: the one on trial, else the active one)",
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
    """No arguments: it ends with the server, or with Ctrl-C."""


_ACTIONS: Final = {
    "stage": _Action("copy, load and test a bundle or an expert", _add_stage, _change(_stage)),
    "shadow": _Action(
        "let a revision rank live requests too, and compare the rankings",
        _add_shadow,
        _change(_shadow),
    ),
    "canary": _Action("send a share of the users to a revision", _add_canary, _change(_canary)),
    "promote": _Action(
        "send all users to a revision whose gates have passed", _add_promote, _change(_promote)
    ),
    "rollback": _Action("send no more users to a revision", _add_rollback, _change(_roll_back)),
    "retire": _Action("unload a revision", _add_retire, _change(_retire)),
    "get": _Action("show one revision, and the gates of its trial", _add_get, _get),
    "list": _Action("show all revisions", _add_list, _list),
    "watch": _Action("show all revisions, now and after every change", _add_watch, _watch),
}
