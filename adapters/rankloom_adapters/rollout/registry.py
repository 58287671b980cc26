"""The registry: all commands that were carried out, durable before they are acknowledged.

It is an append-only SQLite table with one row per command. The checksum of a row covers its
bytes and the row before it, so that the next start finds a row that was altered, lost or
swapped. Only one process can open it. The ledger is the result of all commands in order;
nothing else is stored.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from rankloom_adapters.rollout.states import (
    Ledger,
    Rollout,
    RolloutCommand,
    RolloutError,
    Verb,
    after,
)

FORMAT = 2
_ROOT = hashlib.sha256(b"rankloom rollout registry 2").hexdigest()
_BEGIN = (
    # A rollback journal, with an additional sync of its folder: acknowledged rows survive a loss
    # of power. Exclusive: the file is locked from the first transaction to the end.
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA journal_mode=DELETE",
    "PRAGMA synchronous=EXTRA",
    "BEGIN EXCLUSIVE",
)
_CREATE = (
    # AUTOINCREMENT stores the largest number apart, so that lost rows at the end are found.
    "CREATE TABLE commands (number INTEGER PRIMARY KEY AUTOINCREMENT, "
    "time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, body TEXT NOT NULL, checksum TEXT NOT NULL)",
    f"PRAGMA user_version={FORMAT}",
)
_INSERT = "INSERT INTO commands (body, checksum) VALUES (?, ?)"


class RegistryError(Exception):
    """The registry cannot be opened or written; the message says why."""


class Registry:
    """The commands of one server, in a file. Use it from one thread at a time.

    After a failed write the content of the disk is unknown, so no more is written until the
    file is opened again. A full disk is different: nothing was written, and the next write may
    succeed.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises RegistryError."""
        self._path, self._failed = path, False
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=0.5, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise RegistryError(f"{path}: cannot be opened: {error}") from error
        try:
            self._begin()
            self.ledger, self._checksum = self._replayed()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unlocks the file for other processes."""
        self._db.close()

    def carry_out(self, command: RolloutCommand) -> Rollout:
        """Writes a command; returns its revision in the new state.

        Raises RolloutError where the command is refused, RegistryError where the write failed.
        """
        ledger, rollout = after(self.ledger, command)
        if ledger is not self.ledger:
            self._append(command)
            self.ledger = ledger
        return rollout

    def _append(self, command: RolloutCommand) -> None:
        if self._failed:
            raise RegistryError(f"{self._path}: a write failed; the server must be started again")
        body = _body_of(command)
        checksum = _checksum_of(self._checksum, body)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_INSERT, (body, checksum))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed = not self._undone(error)
            raise RegistryError(f"{self._path}: cannot be written: {error}") from error
        self._checksum = checksum

    def _undone(self, error: sqlite3.Error) -> bool:
        """Whether the failed write certainly left nothing on the disk."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL

    def _begin(self) -> None:
        try:
            [found] = self._db.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                remedy = "start with a new, empty state folder"
                if found > FORMAT:
                    remedy = f"use a newer rankloom, or {remedy}"
                reason = f"format {found}, this version reads format {FORMAT}; {remedy}"
                raise RegistryError(f"{self._path}: {reason}")
            for statement in (*_BEGIN, *(() if found else _CREATE), "COMMIT"):
                self._db.execute(statement)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
                raise RegistryError(f"{self._path}: another server writes it") from error
            raise RegistryError(f"{self._path}: not a registry: {error}") from error

    def _replayed(self) -> tuple[Ledger, str]:
        ledger, checksum = Ledger(), _ROOT
        try:
            [verdict] = self._db.execute("PRAGMA integrity_check(1)").fetchone()
            rows = self._db.execute(
                "SELECT number, body, checksum FROM commands ORDER BY number"
            ).fetchall()
            last = self._db.execute("SELECT seq FROM sqlite_sequence").fetchone()
        except sqlite3.Error as error:
            raise RegistryError(f"{self._path}: is damaged: {error}") from error
        if verdict != "ok":
            raise RegistryError(f"{self._path}: is damaged: {verdict}")
        num_written = last[0] if last else 0
        if num_written != len(rows):
            raise RegistryError(f"{self._path}: row {num_written} was altered or lost")
        for expected, (number, body, found) in enumerate(rows, start=1):
            checksum = _checksum_of(checksum, str(body))
            if number != expected or found != checksum:
                raise RegistryError(f"{self._path}: row {expected} was altered or lost")
            try:
                ledger, _ = after(ledger, _command_of(body))
            except (RolloutError, ValueError, TypeError, KeyError) as error:
                raise RegistryError(f"{self._path}: row {number} is not a valid command") from error
        return ledger, checksum


def _checksum_of(before: str, body: str) -> str:
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()


def _body_of(command: RolloutCommand) -> str:
    return json.dumps({**asdict(command), "verb": command.verb.value}, sort_keys=True)


def _command_of(body: str) -> RolloutCommand:
    fields: dict[str, Any] = json.loads(body)
    return RolloutCommand(**{**fields, "verb": Verb(fields["verb"])})
