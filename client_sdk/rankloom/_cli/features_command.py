"""`rankloom features`: what a server knows of a user, and what it should know, from the shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rankloom._cli.arguments import add_connection, add_user, open_connection
from rankloom._cli.rendering import as_table, fields_as_json, user_features_as_text
from rankloom._events import UserEvent
from rankloom._feature_client import FeatureClient

if TYPE_CHECKING:
    _Actions = argparse._SubParsersAction[argparse.ArgumentParser]


class FeaturesCommand:
    """One action for each call of FeatureService."""

    name = "features"
    help = "show a user's features, record an event, forget a user"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        actions: _Actions = parser.add_subparsers(metavar="ACTION", required=True)
        show = _add(actions, "show", "the vector and events of a user", _show)
        add_user(show)
        show.add_argument(
            "--items", metavar="IDS", default="", help="also the columns of these items: 318,50"
        )
        record = _add(actions, "record", "store one event; it is on the disk at the end", _record)
        record.add_argument("--user", metavar="ID", required=True, help="whose event it is")
        record.add_argument("--item", metavar="ID", required=True, help="what the event is about")
        label = record.add_mutually_exclusive_group(required=True)
        label.add_argument(
            "--liked", action="store_true", default=None, help="the user liked the item"
        )
        label.add_argument(
            "--disliked",
            action="store_false",
            dest="liked",
            default=None,
            help="the user did not like the item",
        )
        label.add_argument("--rating", metavar="R", type=float, help="on the training data's scale")
        forget = _add(actions, "forget", "remove a user's events, also from memory", _forget)
        forget.add_argument("--user", metavar="ID", required=True, help="who is forgotten")
        _add(actions, "info", "the feature model that serves now", _info)

    def run(self, args: argparse.Namespace) -> int:
        with open_connection(FeatureClient, args) as client:
            sys.stdout.write(args.act(client, args) + "\n")
        return 0


def _add(
    actions: _Actions,
    name: str,
    summary: str,
    act: Callable[[FeatureClient, argparse.Namespace], str],
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    add_connection(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(act=act)
    return parser


def _show(client: FeatureClient, args: argparse.Namespace) -> str:
    items = [item for item in args.items.split(",") if item]
    found = client.user_features(user=args.user, history=args.history, items=items)
    return fields_as_json(found) if args.json else user_features_as_text(found)


def _record(client: FeatureClient, args: argparse.Namespace) -> str:
    event = UserEvent(user=args.user, item_id=args.item, liked=args.liked, rating=args.rating)
    [position] = client.record_events([event])
    facts = {"event_id": event.event_id, "position": position}
    return fields_as_json(facts) if args.json else as_table(facts)


def _forget(client: FeatureClient, args: argparse.Namespace) -> str:
    facts = {"forgotten_events": client.forget_user(args.user)}
    return fields_as_json(facts) if args.json else as_table(facts)


def _info(client: FeatureClient, args: argparse.Namespace) -> str:
    found = client.model_info()
    if args.json:
        return fields_as_json(found)
    like_above = "-" if found.like_above is None else f"{found.like_above:g}"
    return as_table(
        {
            "model": found.kind or "-",
            "dimension": found.dim,
            "feature version": found.feature_version,
            "items": found.num_items,
            "columns": len(found.columns),
            "like above": like_above,
        }
    )
