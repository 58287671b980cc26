"""Reads the input files of the commands: a user's history, candidates with texts, keys.

The readers are argparse types, so a bad file is wrong usage. Messages say where the file is wrong
and never quote it: a history is private.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import MISSING, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from rankloom._results import Event, Item


def read_history(path: str) -> list[Event]:
    """Read a list of {"item_id", "liked", "time"?}, oldest first; time is ISO 8601 with a zone."""
    return [_event(row, where) for where, row in _rows(path, Event)]


def read_candidates(path: str) -> list[Item]:
    """Read a list of {"item_id", "title"?, "year"?, "attributes"?, "description"?}."""
    return [_item(row) for _, row in _rows(path, Item)]


def read_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArgumentTypeError(f"cannot read {path}: {error.strerror}") from error


def _event(row: dict[str, Any], where: str) -> Event:
    time = row.pop("time", None)
    return Event(**row, time=None if time is None else _time(time, f"{where}.time"))


def _time(text: str, field: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{field}: must be a time in ISO 8601 form") from None


def _item(row: dict[str, Any]) -> Item:
    attributes = row.pop("attributes", [])
    # Anything but a list stays as it is: building the request refuses it, with the field's name.
    return Item(**row, attributes=tuple(attributes) if isinstance(attributes, list) else attributes)


def _rows(path: str, kind: type[Event | Item]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object of the file with its path; its keys are fields of `kind`."""
    rows = _json(path)
    if not isinstance(rows, list):
        raise ArgumentTypeError(f"{path}: must be a list of objects")
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    for index, row in enumerate(rows):
        where = f"{path}[{index}]"
        if not isinstance(row, dict) or not needed <= row.keys() <= known:
            needs, knows = ", ".join(sorted(needed)), ", ".join(sorted(known))
            message = f"{where}: must be an object with {needs}, and no other keys than {knows}"
            raise ArgumentTypeError(message)
        yield where, row


def _json(path: str) -> object:
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        message = f"{path}: not JSON at line {error.lineno}, column {error.colno}"
        raise ArgumentTypeError(message) from None
    except UnicodeDecodeError:
        raise ArgumentTypeError(f"{path}: not UTF-8") from None
    except RecursionError:
        raise ArgumentTypeError(f"{path}: nested too deeply") from None
