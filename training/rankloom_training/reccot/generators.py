"""The interface of generators, and those that need no training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.evidence import TermEvidence
from rankloom_training.reccot.prompts import messages_of
from rankloom_training.teachers.chat import ChatModel, Message, PromptRefusedError

ANSWER_TOKENS = 512
REPORTS = ("grpo.json", "grpo.png")  # what a training leaves in its folder for people
Rows = NDArray[np.int64]


class Generator(Protocol):
    """Writes raw answers about reviews. One is trained for each fold."""

    @property
    def name(self) -> str:
        """Who writes, for the file."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """All that decides what it writes, beside the reviews."""
        ...

    def train(self, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path) -> None:
        """Learns from these rows alone, and fills ``folder`` with what it has learnt.

        ``unfinished``: for checkpoints, which a killed run leaves to the next.
        """
        ...

    def write(self, reviews: Reviews, rows: Rows, folder: Path) -> Iterator[str | None]:
        """A raw answer for each row, in order; None for a prompt that was refused."""
        ...


class EvidenceGenerator:
    """Ratings and words by ridge regression: see ``TermEvidence``."""

    @property
    def name(self) -> str:
        return "evidence"

    @property
    def options(self) -> Mapping[str, object]:
        return {"generator": self.name}

    def train(self, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path) -> None:
        np.save(folder / "rows.npy", rows)

    def write(self, reviews: Reviews, rows: Rows, folder: Path) -> Iterator[str]:
        learnt = np.load(folder / "rows.npy")
        evidence = TermEvidence([reviews.texts[row] for row in learnt], reviews.rating[learnt])
        texts = [reviews.texts[row] for row in rows]
        items = [reviews.catalogue.items[item] for item in reviews.item[rows]]
        for answer in evidence.answers(items, texts, evidence.ratings(texts)):
            yield answer.to_json()


class ChatGenerator:
    """A model that follows instructions: it sees no rating, and nothing is taught to it."""

    def __init__(self, chat: ChatModel, concurrency: int) -> None:
        self._chat, self._concurrency = chat, concurrency

    @property
    def name(self) -> str:
        return self._chat.name

    @property
    def options(self) -> Mapping[str, object]:
        return {"generator": "chat", "model": self.name}

    def train(self, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path) -> None:
        (folder / "model.txt").write_text(self.name)

    def write(self, reviews: Reviews, rows: Rows, folder: Path) -> Iterator[str | None]:
        """Raises TeacherError."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            yield from pool.map(self._answer, (messages_of(reviews, row) for row in rows.tolist()))

    def _answer(self, messages: tuple[Message, ...]) -> str | None:
        try:
            return self._chat.complete(messages, ANSWER_TOKENS).text
        except PromptRefusedError:
            return None
