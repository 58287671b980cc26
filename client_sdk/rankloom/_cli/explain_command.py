"""`rankloom explain`: why one item, in words, from the shell."""

from __future__ import annotations

import argparse
import sys

from rankloom._cli.arguments import add_connection, add_user, open_client
from rankloom._cli.rendering import explanation_as_json, explanation_as_text, visible
from rankloom._client import ExplanationStream
from rankloom._results import ExplainOptions


class ExplainCommand:
    """Prints a text about one item while it is written, and then its verdict."""

    name = "explain"
    help = "tell in words why a user will like an item or not, on a running server"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        add_connection(parser)
        add_user(parser)
        parser.add_argument("--item", metavar="ID", required=True, help="an item of the catalogue")
        parser.add_argument("--max-tokens", metavar="N", type=int, help="the most tokens of text")
        parser.add_argument(
            "--temperature", metavar="T", type=float, help="0 (default): the likeliest words"
        )
        parser.add_argument("--seed", metavar="N", type=int, help="what words are drawn by")
        parser.add_argument("--json", action="store_true", help="print one JSON object at the end")

    def run(self, args: argparse.Namespace) -> int:
        """Ask the server and print what it answers."""
        options = ExplainOptions(
            max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed
        )
        with (
            open_client(args) as client,
            client.explain(
                args.item, user=args.user, history=args.history, options=options
            ) as stream,
        ):
            if not args.json:
                _print_words(stream)
            show = explanation_as_json if args.json else explanation_as_text
            sys.stdout.write(show(stream.result()) + "\n")
        return 0


def _print_words(stream: ExplanationStream) -> None:
    """Print each piece at once, and end the line also where the stream breaks off."""
    end = ""
    try:
        for text in stream:
            end = "\n\n"
            sys.stdout.write(visible(text))
            sys.stdout.flush()
    finally:
        sys.stdout.write(end)
