"""Keeps a teacher within a budget of calls and tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rankloom_training.teachers.chat import ChatModel, Completion, Message, estimated_tokens
from rankloom_training.teachers.teacher import TeacherError


class BudgetedChat:
    """Refuses a call that could go beyond the budget; None: no limit.

    A call reserves its prompt's estimated tokens and the answer's limit, and gives back what
    it did not use: several threads cannot overspend together.
    """

    def __init__(self, chat: ChatModel, max_calls: int | None, max_tokens: int | None) -> None:
        self._chat, self._max_calls, self._max_tokens = chat, max_calls, max_tokens
        self._lock = threading.Lock()
        self._calls = self._tokens = 0

    @property
    def name(self) -> str:
        return self._chat.name

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        """Raises TeacherError when the budget is spent."""
        reserved = estimated_tokens(messages) + max_tokens
        self._reserve(reserved)
        used = 0
        try:
            completion = self._chat.complete(messages, max_tokens)
            used = completion.num_tokens
        finally:
            with self._lock:
                self._tokens += used - reserved
        return completion

    def _reserve(self, num_tokens: int) -> None:
        with self._lock:
            if self._max_calls is not None and self._calls >= self._max_calls:
                raise _spent(f"{self._max_calls:,} calls", "--max-calls")
            if self._max_tokens is not None and self._tokens + num_tokens > self._max_tokens:
                raise _spent(f"{self._max_tokens:,} tokens", "--max-tokens")
            self._calls += 1
            self._tokens += num_tokens


def _spent(budget: str, option: str) -> TeacherError:
    return TeacherError(
        f"the budget of {budget} is spent; raise {option} and run the same command again: "
        f"finished answers are kept and cost nothing"
    )
