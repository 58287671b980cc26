"""The interface of a subcommand of `rankloom`.

A package adds a subcommand with an entry point of the group "rankloom.commands" that names such
an object; it need not import this module.
"""

from __future__ import annotations

import argparse
from typing import Protocol


class CliCommand(Protocol):
    """A subcommand. Its module is imported only if the user chooses it."""

    @property
    def name(self) -> str:
        """The word after `rankloom`, and the entry point's name."""
        ...

    @property
    def help(self) -> str:
        """One line for the list of commands."""
        ...

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments; called once, before they are parsed."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code.

        It may raise `RankloomError` and `KeyboardInterrupt`; the caller prints them.
        """
        ...
