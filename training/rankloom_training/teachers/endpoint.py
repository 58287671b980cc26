"""A model behind any OpenAI-compatible endpoint: chat completions over HTTP, with retries."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2

from rankloom_training.teachers.chat import (
    Completion,
    Message,
    PromptRefusedError,
    estimated_tokens,
    without_thinking,
)
from rankloom_training.teachers.teacher import TeacherError

MAX_TRIES = 6
MAX_WAIT_S = 60.0
TIMEOUT_S = 120.0
_REFUSED = (400, 413, 422)  # of this prompt: too long, or against a policy


class _PassingError(Exception):
    """Worth another try. ``wait_s``: what the server asks to wait, or None."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class ChatEndpoint:
    """``url``: up to and with ``/v1``. ``key``: a bearer token, or empty."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        first_wait_s: float = 1.0,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url, self._model, self._first_wait_s = url.rstrip("/"), model, first_wait_s
        self._client = httpx2.Client(headers=headers, timeout=timeout_s)

    @property
    def name(self) -> str:
        return self._model

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        reason = ""
        for attempt in range(MAX_TRIES):
            try:
                return self._ask(messages, max_tokens)
            except _PassingError as error:
                reason = str(error)
                if attempt < MAX_TRIES - 1:
                    time.sleep(self._wait_s(attempt, error.wait_s))
        raise TeacherError(
            f"{self._url}: {reason}, {MAX_TRIES} times; see to the server, and run the same "
            f"command again: finished answers are kept"
        )

    def _wait_s(self, attempt: int, asked: float | None) -> float:
        """Twice as long each time, with jitter, so that threads do not come back together."""
        backoff = self._first_wait_s * 2**attempt * random.uniform(0.5, 1.0)
        return float(min(max(backoff, asked or 0.0), MAX_WAIT_S))

    def _ask(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        body = {
            "model": self._model,
            "messages": list(map(dict, messages)),
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        try:
            response = self._client.post(f"{self._url}/chat/completions", json=body)
        except httpx2.TimeoutException as error:
            raise _PassingError("no answer in time") from error
        except httpx2.TransportError as error:
            raise _PassingError("the connection failed") from error
        except httpx2.DecodingError as error:
            raise _PassingError("the answer cannot be unpacked") from error
        self._check(response)
        return _completion(response, messages)

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status in _REFUSED:
            raise PromptRefusedError(f"status {status}")
        if status in (408, 425, 429) or status >= 500:
            raise _PassingError(f"status {status}", _seconds(response.headers.get("Retry-After")))
        if status != 200:
            raise TeacherError(f"{self._url}: status {status}; check address, model and key")


def _completion(response: httpx2.Response, messages: Sequence[Message]) -> Completion:
    try:
        answer: dict[str, Any] = json.loads(response.content)
        choice = answer["choices"][0]
        text = str(choice["message"]["content"] or "")
        used = (answer.get("usage") or {}).get("total_tokens")
        truncated = choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _PassingError("the answer is not a chat completion") from error
    if not isinstance(used, int) or used < 0:
        used = estimated_tokens([*messages, {"content": text}])
    return Completion(without_thinking(text), truncated, used, datetime.now(UTC))


def _seconds(header: str | None) -> float | None:
    """A number of seconds; a date is as good as no wish: the backoff is long enough."""
    return float(header) if header is not None and header.isdecimal() else None
