"""Explanations: words decoded after the verdict, token by token, with a ranking's own mixture."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import More, Next
from rankloom_engine.packing import Segment
from rankloom_engine.prompt import Prompt

MAX_EXPLAIN_TOKENS = 256
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of part of a character


class StopReason(Enum):
    """Why an explanation ended."""

    STOP_TOKEN = auto()
    MAX_TOKENS = auto()
    DEADLINE = auto()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to decode. ``temperature``: 0 takes the likeliest token; else sampled by ``seed``."""

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """One piece of an explanation; ``stop`` is set in the last one."""

    token_ids: tuple[int, ...]
    stop: StopReason | None = None


class Explanation:
    """One explanation on its way: what the model has seen, and what it is to see next.

    ``prompt`` has one candidate; ``verdict`` is the token that stands behind it;
    ``stops`` are the tokens that end the text.
    """

    def __init__(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        verdict: int,
        stops: Set[int],
        sampling: SamplingParams,
        cached: PrefixKV | None = None,
    ) -> None:
        behind = Segment.joined([*prompt.candidates, Segment.of_ids([verdict])])
        self.next = behind if cached is not None else Segment.joined([prompt.prefix, behind])
        self._cached, self._weights = cached, weights
        self._stops, self._wording = stops, sampling
        self._random = np.random.default_rng(sampling.seed)
        self._num_tokens = 0

    def more(self) -> More:
        """What the next pass must see."""
        return More(self._cached, self.next, self._weights)

    def take(self, found: Next) -> TokenChunk:
        """The next words, from what a pass found."""
        self._cached = found.cached
        token = self._choose(found.logits)
        if token in self._stops:
            return TokenChunk((), StopReason.STOP_TOKEN)
        self.next = Segment.of_ids([token])
        self._num_tokens += 1
        full = self._num_tokens == self._wording.max_tokens
        return TokenChunk((token,), StopReason.MAX_TOKENS if full else None)

    def _choose(self, logits: NDArray[np.float32]) -> int:
        if not self._wording.temperature:
            return int(logits.argmax())
        # The largest of logits with Gumbel noise is a sample of their softmax.
        noise = self._random.gumbel(size=len(logits))
        below = logits.astype(np.float64) - logits.max()  # a small temperature overflows to -inf
        with np.errstate(over="ignore"):
            return int((below / self._wording.temperature + noise).argmax())


class Detokenizer:
    """Token ids to text, as they come; characters of several tokens are cached back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said = ""

    def add(self, token_ids: tuple[int, ...]) -> str:
        """The text that is certain now and has not been said yet."""
        self._ids += token_ids
        text: str = self._tokenizer.decode(self._ids)
        return "" if text.endswith(_UNFINISHED) else self._news(text)

    def end(self) -> str:
        """What is left, whole or not."""
        text: str = self._tokenizer.decode(self._ids)
        return self._news(text)

    def _news(self, text: str) -> str:
        news, self._said = text[len(self._said) :], text
        return news
