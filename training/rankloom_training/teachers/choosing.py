"""Which model a command asks, within which budget, and where its answers are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rankloom_training.data import DataError
from rankloom_training.teachers.answer_cache import CachedChat
from rankloom_training.teachers.budget import BudgetedChat
from rankloom_training.teachers.chat import ChatModel
from rankloom_training.teachers.endpoint import ChatEndpoint

EVIDENCE = "evidence"
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """``teacher``: EVIDENCE, the URL of an endpoint, or a causal LM by path or hub id.

    ``model``: the name by which an endpoint knows its model. ``max_calls``, ``max_tokens``: of
    one run; None for no limit. ``concurrency``: calls at a time. ``seed``: of EVIDENCE.
    """

    teacher: str = EVIDENCE
    model: str | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    concurrency: int = 1
    seed: int = 0

    @property
    def is_endpoint(self) -> bool:
        return self.teacher.startswith(("http://", "https://"))

    def check(self) -> None:
        """Raises DataError for options that do not go together."""
        if self.is_endpoint and not _is_url(self.teacher):
            raise DataError(f"--teacher {self.teacher}: is not a URL; write it up to and with /v1")
        if self.is_endpoint and not self.model:
            raise DataError("--teacher is an endpoint; say with --model which model to ask")
        if self.model and not self.is_endpoint:
            raise DataError("--model is for an endpoint; pass its URL as --teacher")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets, or of the port
        return False


@contextmanager
def open_chat(options: TeacherOptions, out: Path) -> Iterator[ChatModel]:
    """The model, with a budget, and with its answers kept beside the file ``out``."""
    budgeted = BudgetedChat(_model(options), options.max_calls, options.max_tokens)
    cached = CachedChat(budgeted, out.with_name(f"{out.name}.answers"))
    try:
        yield cached
    finally:
        cached.close()


def _model(options: TeacherOptions) -> ChatModel:
    if options.is_endpoint:
        key = os.environ.get(KEY_VARIABLE, "")
        return ChatEndpoint(options.teacher, options.model or "", key)
    from rankloom_training.teachers.local import LocalChat  # torch and transformers are heavy

    return LocalChat(options.teacher)
