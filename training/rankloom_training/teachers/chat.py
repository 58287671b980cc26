"""The interface of models that answer a conversation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Message = Mapping[str, str]  # role and content
CHARS_PER_TOKEN = 3  # at least, of English: for what no server has counted
_THINKING = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


class PromptRefusedError(ValueError):
    """The model does not take this prompt; others may be taken."""


@dataclass(frozen=True, slots=True)
class Completion:
    """``text``: the answer without a thinking part. ``truncated``: the limit cut it off.
    ``num_tokens``: of prompt and answer.
    """

    text: str
    truncated: bool
    num_tokens: int
    written: datetime


class ChatModel(Protocol):
    """Answers conversations. Called from several threads at once."""

    @property
    def name(self) -> str:
        """The model, for files and digests."""
        ...

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        """The likeliest answer. Raises TeacherError or PromptRefusedError."""
        ...


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def digest_of_prompt(name: str, messages: Sequence[Message], max_tokens: int) -> str:
    """SHA-256 of all that an answer depends on."""
    whole = json.dumps([name, list(map(dict, messages)), max_tokens], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, rather too many than too few."""
    return sum(len(each["content"]) for each in messages) // CHARS_PER_TOKEN + 1


def without_thinking(text: str) -> str:
    """Some models write their thoughts first, between tags; the answer is what follows."""
    return _THINKING.sub("", text).strip()
