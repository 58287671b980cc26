"""Command lines: shared options, checked numbers, and an end without a traceback.

It imports nothing heavy: a wrong argument is answered at once, and the environment is set before
torch is loaded.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from benchmarks.common.results import RESULTS

DTYPES = ("float32", "bfloat16")


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.MODULE``, with the options that every room has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--results",
        type=existing_folder,
        default=RESULTS,
        metavar="FOLDER",
        help="write the result below this folder; default: benchmarks/results",
    )
    return parser


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds ``--dtype``; without it, the machine decides."""
    parser.add_argument(
        "--dtype", choices=DTYPES, help="default: bfloat16 where the CPU has units for it"
    )


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Adds ``--bundle``, for rooms that can serve any bundle."""
    parser.add_argument(
        "--bundle",
        type=bundle_folder,
        metavar="FOLDER",
        help="serve this bundle; default: train a small one, which takes a minute",
    )


def add_users(parser: argparse.ArgumentParser) -> None:
    """Adds ``--users``, for rooms that train on the embedded data."""
    parser.add_argument(
        "--users", type=count, metavar="N", help="train on the first users alone; default: all 480"
    )


def add_stages(parser: argparse.ArgumentParser) -> None:
    """Adds ``--work``, for rooms that train everything."""
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep finished stages there for the next run"
    )


def run_command(run: Callable[[], str | None], *, set_environment: bool = True) -> NoReturn:
    """Runs a benchmark and exits: 0, or 1 with the text that ``run`` returns.

    Ctrl-C and SIGTERM end it without a traceback, after its processes and folders are gone, and so
    do a log and a bundle that cannot be used.
    ``set_environment``: whether OpenMP's threads wait as a server's do, unless the user chose.
    """
    if set_environment:
        # Threads that spin while they wait would count as work.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        print("interrupted: no result was written", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        if not _is_of_input(error):
            raise
        sys.exit(f"error: {error}")


def _is_of_input(error: ValueError) -> bool:
    from rankloom_adapters.bundle import BundleError
    from rankloom_training.data import DataError

    return isinstance(error, (BundleError, DataError))


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


def duration(text: str) -> float:
    """A positive number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a positive number of seconds")
    return seconds


def existing_folder(text: str) -> Path:
    """A folder that can be written to."""
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text}; create it first")
    if not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"no permission to write to {text}; name another folder")
    return folder


def bundle_folder(text: str) -> Path:
    """A folder with a bundle."""
    folder = Path(text)
    if not (folder / "manifest.json").is_file():
        raise argparse.ArgumentTypeError(f"no bundle in {text}; name a folder with manifest.json")
    return folder
