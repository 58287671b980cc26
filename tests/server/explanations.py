"""Calls of Explain, and decoders whose words can be held up, counted or spoilt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np

from rankloom_engine.model import DecodeInput, DecodeOutput, Decoder, ForwardInput, ForwardOutput
from rankloom_proto.v1.ranking_pb2 import (
    ExplainOptions,
    ExplainRequest,
    ExplainResponse,
    Explanation,
)
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from server.rankings import candidates, item_ids, known_user
from server.served_parts import ServedParts

if TYPE_CHECKING:  # generic in the stubs only
    ExplainCall = grpc.aio.UnaryStreamCall[ExplainRequest, ExplainResponse]


@dataclass(frozen=True, slots=True)
class Told:
    """All that came of a call."""

    texts: list[str]
    final: Explanation

    @property
    def text(self) -> str:
        return "".join(self.texts)


def request(parts: ServedParts, **fields: object) -> ExplainRequest:
    """A good request about a known user and item, but for what is given."""
    given = {"candidate": candidates(item_ids(parts, 1))[0], **fields}
    if "history" not in fields:
        given.setdefault("user_id", known_user(parts))
    return ExplainRequest(**given)  # type: ignore[arg-type]


def with_options(parts: ServedParts, **options: object) -> ExplainRequest:
    return request(parts, options=ExplainOptions(**options))  # type: ignore[arg-type]


def call(
    channel: grpc.aio.Channel, message: ExplainRequest, *, timeout_s: float | None = 30
) -> ExplainCall:
    return RankingServiceStub(channel).Explain(message, timeout=timeout_s)


async def explain(
    channel: grpc.aio.Channel, message: ExplainRequest, *, timeout_s: float | None = 30
) -> Told:
    """The whole answer; fails where it is not chunks and then one final message."""
    *chunks, last = [part async for part in call(channel, message, timeout_s=timeout_s)]
    assert all(part.WhichOneof("part") == "chunk" for part in chunks)
    assert last.WhichOneof("part") == "final"
    return Told([part.chunk.text for part in chunks], last.final)


class StubbornDecoder:
    """The bundle's decoder, but it never ends a text by itself.

    ``before_decode`` is called on the model thread before each step of words; ``num_decoded``
    counts the steps.
    """

    def __init__(self, parts: ServedParts) -> None:
        decoder = parts.decoder
        self._decoder, self._stops = decoder, list(parts.loaded.prompts.structural)
        self.bank, self.digest = decoder.bank, decoder.digest
        self.yes, self.no = decoder.yes, decoder.no
        self.before_decode: Callable[[], object] = lambda: None
        self.num_decoded = 0

    def warm_up_steps(self, max_tokens: int) -> Iterator[Callable[[], object]]:
        return self._decoder.warm_up_steps(max_tokens)

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        return self._decoder.forward(inputs)

    def decode(self, inputs: Sequence[DecodeInput]) -> list[DecodeOutput]:
        self.before_decode()
        self.num_decoded += 1
        return [
            replace(found, logits=self._going_on(found)) for found in self._decoder.decode(inputs)
        ]

    def _going_on(self, found: DecodeOutput) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        logits = found.logits.copy()
        logits[self._stops] = -1e9
        return logits


class Hold:
    """Lets ``num_free`` steps pass and holds the next ones until it is opened."""

    def __init__(self, num_free: int) -> None:
        self._num_free = num_free
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._num_free -= 1
        if self._num_free < 0:
            self.reached.set()
            self.open.wait(20)


def stubborn(parts: ServedParts) -> tuple[ServedParts, StubbornDecoder]:
    """The parts with a decoder that goes on until it is stopped."""
    decoder = StubbornDecoder(parts)
    return replace(parts, decoder=cast("Decoder", decoder)), decoder
