"""`rankloom explain`: a text about one item, from the shell."""

from __future__ import annotations

import argparse
import sys

from rankloom._cli.alignment import visible
from rankloom._cli.arguments import add_connection, add_user, open_client
from rankloom._cli.rendering import explanation_as_json, explanation_as_text
from rankloom._client import ExplanationStream
from rankloom._results import ExplainOptions


class ExplainCommand:
    """Prints a text while it is written, and then the verdict."""

    name = "explain"
    help = "explain why a user will like an item or not"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        add_connection(parser)
        add_user(parser)
        parser.add_argument(
            "--item", metavar="ID", required=True, help="id of an item in the server's catalogue"
        )
        parser.add_argument(
            "--source",
            choices=("live", "stored"),
            default="live",
            help="write a text (live, the default), or look up the rationale of the user's own "
            "review of the item (stored), which needs no language model",
        )
        parser.add_argument(
            "--max-tokens", metavar="N", type=int, help="maximum length of the text"
        )
        parser.add_argument(
            "--temperature",
            metavar="T",
            type=float,
            help="0 (default) takes the likeliest words, more draws freely",
        )
        parser.add_argument(
            "--seed",
            metavar="N",
            type=int,
            help="seed of the draw; the same seed gives the same text",
        )
        parser.add_argument(
            "--max-evidence",
            metavar="N",
            type=int,
            help="evidence of at most so many of the newest events; 0 for none",
        )
        parser.add_argument(
            "--ungrounded",
            action="store_true",
            help="let the text name what the user's items and this one do not have",
        )
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object instead of the text"
        )

    def run(self, args: argparse.Namespace) -> int:
        options = ExplainOptions(
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            seed=args.seed,
            max_evidence=args.max_evidence,
            grounded=False if args.ungrounded else None,
        )
        with (
            open_client(args) as client,
            client.explain(
                args.item,
                user=args.user,
                history=args.history,
                options=options,
                source=args.source,
            ) as stream,
        ):
            if not args.json:
                _print_words(stream)
            show = explanation_as_json if args.json else explanation_as_text
            sys.stdout.write(show(stream.result()) + "\n")
        return 0


def _print_words(stream: ExplanationStream) -> None:
    """Print each piece at once, and end the line even if the stream breaks off."""
    end = ""
    try:
        for text in stream:
            end = "\n\n"
            sys.stdout.write(visible(text))
            sys.stdout.flush()
    finally:
        sys.stdout.write(end)
