"""Explanations: text decoded after the verdict, token by token, with the ranking's mixture.

In tokens: the prompt's prefix, the candidate up to ``PromptFormat.ask``, the verdict (``liked`` or
``disliked``), the evidence that the text is to cite (``prompt.evidence_ids``), then the text and a
stop (``prompt.word_ids``). A model that is trained to explain reads the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankloom_engine.attention import PrefixKV
from rankloom_engine.errors import EngineFailedError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import DecodeInput, DecodeOutput
from rankloom_engine.packing import Segment
from rankloom_engine.prompt import Prompt, PromptFormat
from rankloom_engine.scheduler import Kind, Sequence
from rankloom_engine.sequence import RequestOptions

MAX_EXPLAIN_TOKENS = 256
DEFAULT_EXPLAIN_TOKENS = 96  # two sentences with three titles
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of a part of a character


def max_explained_tokens(fmt: PromptFormat) -> int:
    """Tokens of the longest prompt with its verdict's evidence and words."""
    return fmt.max_tokens + fmt.max_evidence_tokens + MAX_EXPLAIN_TOKENS


class StopReason(Enum):
    """Why an explanation ended."""

    STOP_TOKEN = auto()
    MAX_TOKENS = auto()
    DEADLINE = auto()
    GROUNDING = auto()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to decode. ``temperature``: 0 takes the likeliest token, else ``seed`` draws one.

    A guide may take another token than the likeliest.
    """

    max_tokens: int = DEFAULT_EXPLAIN_TOKENS
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """The next tokens of an explanation; ``stop`` is set in the last chunk."""

    token_ids: tuple[int, ...]
    stop: StopReason | None = None


class TokenGuide(Protocol):
    """Decides which tokens may come next in one text."""

    def choose(self, scores: NDArray[np.floating], stops: Set[int]) -> int | None:
        """A token that may come next, by the (vocabulary,) scores: the higher, the sooner.

        It becomes part of the text unless it is a stop. None where no token fits.
        """
        ...


class DecodeRequest(Sequence):
    """An explanation that is being decoded. Each step is scheduled as one candidate.

    ``prompt`` has one candidate; ``behind`` are the tokens that stand behind it, the verdict and
    evidence; ``stop_tokens`` end the text. ``guide``: chooses the tokens; None: any may come.
    ``is_open``: there are further steps to take.
    """

    def __init__(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        behind: Iterable[int],
        stop_tokens: Set[int],
        sampling: SamplingParams,
        options: RequestOptions | None = None,
        cached: PrefixKV | None = None,
        guide: TokenGuide | None = None,
    ) -> None:
        options = options or RequestOptions()
        unread = Segment.joined([*prompt.candidates, Segment.of_ids([*behind])])
        self._unread = unread if cached is not None else Segment.joined([prompt.prefix, unread])
        super().__init__(
            prefix_tokens=0,
            candidate_tokens=(len(self._unread),),
            deadline=options.deadline,
            caller=options.caller,
            kind=Kind.EXPLANATION,
        )
        self.is_open = True
        self._cached, self._weights = cached, weights
        self._stop_tokens, self._sampling, self._guide = stop_tokens, sampling, guide
        self._random = np.random.default_rng(sampling.seed)
        self._num_decoded = 0
        self._chunks: asyncio.Queue[TokenChunk | EngineFailedError] = asyncio.Queue()

    async def next_tokens(self) -> TokenChunk:
        """Waits for the next tokens, or the end at the deadline. Raises EngineFailedError."""
        timeout = None if self.deadline == inf else max(self.deadline - time.monotonic(), 0.0)
        try:
            chunk = await asyncio.wait_for(self._chunks.get(), timeout)
        except TimeoutError:
            return TokenChunk((), StopReason.DEADLINE)
        if isinstance(chunk, EngineFailedError):
            raise chunk
        return chunk

    def decode_input(self) -> DecodeInput:
        """What the next pass reads."""
        return DecodeInput(self._cached, self._unread, self._weights)

    def take(self, output: DecodeOutput) -> None:
        """Chooses the next token, which the next step reads unless the text ends with it."""
        self._cached = output.cached
        chunk = self._next_chunk(output.logits)
        self._chunks.put_nowait(chunk)
        if chunk.stop is not None:
            self.close()
            return
        self._unread = Segment.of_ids(chunk.token_ids)
        self.candidate_tokens, self.num_scheduled, self.tokens_left = (1,), 0, 1

    def fail(self, failure: EngineFailedError) -> None:
        """Ends the text; ``next_tokens`` raises the failure."""
        self._chunks.put_nowait(failure)
        self.close()

    def close(self) -> None:
        """No further step is wanted."""
        self.is_open = False

    def _next_chunk(self, logits: NDArray[np.float32]) -> TokenChunk:
        scores = self._scores(logits)
        guide, stops = self._guide, self._stop_tokens
        token = int(scores.argmax()) if guide is None else guide.choose(scores, stops)
        if token is None:
            return TokenChunk((), StopReason.GROUNDING)
        if token in stops:
            return TokenChunk((), StopReason.STOP_TOKEN)
        self._num_decoded += 1
        is_full = self._num_decoded == self._sampling.max_tokens
        return TokenChunk((token,), StopReason.MAX_TOKENS if is_full else None)

    def _scores(self, logits: NDArray[np.float32]) -> NDArray[np.floating]:
        """(vocabulary,) of which the highest is the token to take."""
        if not self._sampling.temperature:
            return logits
        # The largest of logits with Gumbel noise is a sample of their softmax.
        noise = self._random.gumbel(size=len(logits))
        below = logits.astype(np.float64) - logits.max()  # a small temperature overflows to -inf
        with np.errstate(over="ignore"):
            scores: NDArray[np.float64] = below / self._sampling.temperature + noise
        return scores


class Detokenizer:
    """Token ids to text as they come; a character of several tokens waits for all of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._text = ""

    def add(self, token_ids: tuple[int, ...]) -> str:
        """The new text that later tokens cannot change."""
        self._ids += token_ids
        text: str = self._tokenizer.decode(self._ids)
        return "" if text.endswith(_UNFINISHED) else self._new_part(text)

    def end(self) -> str:
        """The rest of the text, with unfinished characters."""
        text: str = self._tokenizer.decode(self._ids)
        return self._new_part(text)

    def _new_part(self, text: str) -> str:
        new, self._text = text[len(self._text) :], text
        return new
