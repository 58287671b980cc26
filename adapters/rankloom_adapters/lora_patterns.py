"""PEFT's rules for which modules a name or a pattern means, within a limit of time.

Patterns are regular expressions from a stranger's file, and some of them would take for ever. The
package `regex` can stop them, and lets other threads run meanwhile; Python's `re` can do neither.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence, Set
from typing import Any

import regex

MAX_SECONDS = 1.0
MAX_PATTERN = 8192  # characters; bounds the time of compiling one
# PEFT's: the first numbered part of a path is the layer, so that an MoE's number is not taken.
_ANY_LAYER = r".*?\.[^.]*\.(?P<idx>\d+)\."


class PatternError(ValueError):
    """A pattern is invalid or takes too long; the message says which."""


class PatternMatcher:
    """Matches patterns against module paths, all together within MAX_SECONDS."""

    def __init__(self) -> None:
        self._end = time.monotonic() + MAX_SECONDS
        self._compiled: dict[str, Any] = {}

    def is_whole(self, pattern: str, module: str) -> bool:
        """Whether a pattern matches a whole path. Raises PatternError."""
        return self._match(pattern, module, whole=True) is not None

    def first_suffix(self, patterns: Iterable[str], module: str) -> str | None:
        """The first pattern that matches the end of a path, or all. Raises PatternError."""
        return next((each for each in patterns if self._ends(each, module)), None)

    def layer_of(self, module: str, patterns: Sequence[str]) -> int | None:
        """The number of the module's layer, after a part that matches one of the patterns.

        Without patterns: after any part. None where the path has no such number. Raises
        PatternError.
        """
        bounded = [rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\." for pattern in patterns]
        for pattern in bounded or [_ANY_LAYER]:
            if (found := self._match(pattern, module)) is not None:
                return int(found["idx"])
        return None

    def _ends(self, pattern: str, module: str) -> bool:
        return self._match(rf"(.*\.)?({pattern})$", module) is not None

    def _match(self, pattern: str, module: str, *, whole: bool = False) -> re.Match[str] | None:
        if pattern not in self._compiled:
            _check(pattern)
            self._compiled[pattern] = regex.compile(pattern)
        compiled, left = self._compiled[pattern], self._end - time.monotonic()
        match = compiled.fullmatch if whole else compiled.match
        try:
            if left > 0:
                found: re.Match[str] | None = match(module, timeout=left, concurrent=True)
                return found
        except TimeoutError:
            pass
        raise PatternError(f"the pattern {pattern[:80]!r} takes too long; write a simpler one")


def is_named(names: Set[str], module: str) -> bool:
    """Whether a path is one of the names, or ends with one after a dot."""
    parts = module.split(".")
    return any(".".join(parts[start:]) in names for start in range(len(parts)))


def _check(pattern: str) -> None:
    """Refuses what PEFT could not read; `regex` knows more."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"the pattern {pattern[:80]!r} has over {MAX_PATTERN} characters")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"{pattern[:80]!r} is not a regular expression") from error
