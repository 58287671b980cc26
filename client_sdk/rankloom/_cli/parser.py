"""The parser of all commands: its errors say what was meant, and where to read on.

Subcommands inherit it, those of other packages too.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Final, NoReturn

MAX_USAGE_LINES: Final = 4
_Commands: Final = argparse._SubParsersAction
_WRONG_CHOICE: Final = re.compile(r"invalid choice: '(?P<word>[^']*)'")
_WRONG_OPTION: Final = re.compile(r"unrecognized arguments: (?P<word>--[^\s=]+)")


class HelpfulParser(argparse.ArgumentParser):
    """An argparse parser that suggests a word for a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Print usage and one line to standard error, and exit with 2."""
        commands = commands_of(self)
        lacks_command = commands is not None and message.endswith(f": {commands.metavar}")
        usage = self.format_help() + "\n" if lacks_command else self._short_usage()
        sys.stderr.write(f"{usage}{self.prog}: error: {message}{self._hint(message)}\n")
        sys.exit(2)

    def _short_usage(self) -> str:
        usage = self.format_usage()
        many = usage.count("\n") > MAX_USAGE_LINES
        return f"usage: {self.prog} [options]\n" if many else usage

    def _hint(self, message: str) -> str:
        if meant := self._suggestion(message):
            return f"; did you mean {meant}?"
        return f"; see {self.prog} --help"

    def _suggestion(self, message: str) -> str:
        """The known word that is most like the wrong one; empty if none is."""
        if found := _WRONG_CHOICE.search(message):
            known = [str(word) for action in self._actions for word in action.choices or ()]
        elif found := _WRONG_OPTION.search(message):
            known = _options(self)
        else:
            return ""
        return next(iter(get_close_matches(found["word"], known, 1)), "")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse like `parse_args`.

    A misspelt option is reported by the command that got it, and before what is missing then.
    """
    *above, chosen = _chosen_parsers(parser, arguments)
    commands = commands_of(chosen)
    if commands is None or not commands.required:
        known = {option for each in (*above, chosen) for option in _options(each)}
        plain = takewhile(lambda word: word != "--", arguments)
        for word in plain:
            if word.startswith("--") and word.partition("=")[0] not in known:
                chosen.error(f"unrecognized arguments: {word}")
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _chosen_parsers(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> list[argparse.ArgumentParser]:
    """Return the parsers of the commands that the arguments name, the innermost last."""
    parsers = [parser]
    for word in arguments:
        commands = commands_of(parsers[-1])
        if commands is not None and word in commands.choices:
            parsers.append(commands.choices[word])
    return parsers


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def commands_of(
    parser: argparse.ArgumentParser,
) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    """Return the action that holds a parser's subcommands."""
    return next((each for each in parser._actions if isinstance(each, _Commands)), None)
