"""A chat model that answers from a list, for tests of what stands around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rankloom_training.teachers.chat import Completion, Message

WRITTEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class ScriptedChat:
    """``answer``: from the messages to a text, or to a completion."""

    name = "scripted"

    def __init__(self, answer: Callable[[Sequence[Message]], str | Completion]) -> None:
        self._answer = answer
        self.asked: list[tuple[Sequence[Message], int]] = []

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        self.asked.append((messages, max_tokens))
        found = self._answer(messages)
        if isinstance(found, Completion):
            return found
        return Completion(found, False, 40, WRITTEN)
