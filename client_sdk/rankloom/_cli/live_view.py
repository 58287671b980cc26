"""The output of `rankloom rollout watch`: a screen, blocks of text, or lines of JSON."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rankloom._cli.rollout_rendering import as_json, revisions_as_text
from rankloom._rollouts import RevisionList

# ANSI. The alternate screen, so that the former content comes back at the end. The terminal cuts
# lines that are too long, since it knows its own width.
_OPEN: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_CLOSE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_LINE, _END_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def show(changes: Iterable[RevisionList], *, json: bool) -> None:
    """Print each list as it arrives: in place on a terminal, else one after the other."""
    with _reader_may_leave():
        if json:
            for each in changes:
                _write(as_json(each) + "\n")
        elif _is_screen():
            _redraw(changes)
        else:
            for each in changes:
                _write(revisions_as_text(each) + "\n\n")


def _redraw(changes: Iterable[RevisionList]) -> None:
    try:
        _write(_OPEN)
        for each in changes:
            height = shutil.get_terminal_size().lines
            text = revisions_as_text(each, height).replace("\n", f"{_END_LINE}\n")
            _write(f"{_HOME}{text}{_END_LINE}{_END_SCREEN}")
    finally:
        _write(_CLOSE)


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End quietly if the reader of the output stops, as `head` does."""
    try:
        yield
    except BrokenPipeError:
        # At its end Python flushes stdout, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
