"""What a subcommand of `rankloom` is.

A package adds one by an entry point of the group "rankloom.commands" that names an object of this
shape; it need not import this module.
"""

from __future__ import annotations

import argparse
from typing import Protocol


class CliCommand(Protocol):
    """A subcommand. Its module is imported only when it is the one chosen."""

    @property
    def name(self) -> str:
        """The word after `rankloom`; the same as the entry point's name."""
        ...

    @property
    def help(self) -> str:
        """One line for the list of commands."""
        ...

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments; called once, before anything is parsed."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code.

        A `RankloomError` and a Ctrl-C may leave it: the caller knows what to print.
        """
        ...
