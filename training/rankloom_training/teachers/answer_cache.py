"""Answers kept on disk by the digest of their prompt: a run that ended early goes on from there."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from rankloom_training.data import DataError
from rankloom_training.teachers.chat import ChatModel, Completion, Message, digest_of_prompt

_TABLE = """CREATE TABLE IF NOT EXISTS answers (
    digest TEXT PRIMARY KEY, text TEXT NOT NULL, truncated INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL, written REAL NOT NULL) STRICT"""


class CachedChat:
    """Asks each question once. An answer is on disk before it is used.

    Raises DataError if ``path`` is another kind of file.
    """

    def __init__(self, chat: ChatModel, path: Path) -> None:
        self._chat, self._lock = chat, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._answers = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._answers.execute(_TABLE)
        except sqlite3.Error as error:
            raise DataError(f"{path}: is not a file of answers; move it away") from error

    @property
    def name(self) -> str:
        return self._chat.name

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        digest = digest_of_prompt(self.name, messages, max_tokens)
        if (known := self._find(digest)) is not None:
            return known
        completion = self._chat.complete(messages, max_tokens)
        self._keep(digest, completion)
        return completion

    def close(self) -> None:
        self._answers.close()

    def _find(self, digest: str) -> Completion | None:
        query = "SELECT text, truncated, num_tokens, written FROM answers WHERE digest = ?"
        with self._lock, closing(self._answers.execute(query, (digest,))) as found:
            row = found.fetchone()
        if row is None:
            return None
        text, truncated, num_tokens, written = row
        return Completion(text, bool(truncated), num_tokens, datetime.fromtimestamp(written, UTC))

    def _keep(self, digest: str, one: Completion) -> None:
        row = (digest, one.text, one.truncated, one.num_tokens, one.written.timestamp())
        with self._lock:
            self._answers.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)
