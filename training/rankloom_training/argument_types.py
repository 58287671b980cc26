"""Types of arguments of commands. argparse puts the option's name before the error message."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A whole number in a range."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: not a whole number from {least} to {most}")
        return int(text)

    return parse


def device(text: str) -> str:
    """Where a model runs, as torch names it."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text}: not a device; use cpu, cuda or cuda:N")
    return text


def finite_number(text: str) -> float:
    """A number that is neither NaN nor infinite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text}: not a number")
    return number


def existing_file(*endings: str) -> Callable[[str], Path]:
    """A file that is there, and whose name has one of the endings."""

    def parse(text: str) -> Path:
        path = Path(text)
        if not path.is_file():
            raise argparse.ArgumentTypeError(f"{text}: no such file; check the path")
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"{text}: must end with {', '.join(endings)}")
        return path

    return parse


def new_file(*endings: str) -> Callable[[str], Path]:
    """A file that can be written later, once the work for it is done."""

    def parse(text: str) -> Path:
        path = Path(text)
        if not path.parent.is_dir():
            raise argparse.ArgumentTypeError(f"{path.parent}: no such folder; create it first")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text}: cannot be written; choose another file")
        if endings and path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"{text}: must end with {', '.join(endings)}")
        return path

    return parse
