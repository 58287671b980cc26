"""Scoring of many prompts in this thread, without an event loop: for training and evaluation."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import Decoder
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import FairQueue
from rankloom_engine.sequence import ScoreRequest


def score_all(
    decoder: Decoder,
    prompts: collections.abc.Sequence[tuple[Prompt, MixtureWeights]],
    max_batch_tokens: int,
    on_step: Callable[[int, int], None] = lambda num_scored, num_prompts: None,
) -> list[NDArray[np.float32]]:
    """(candidates,) margins of each prompt, computed in micro-batches as a server forms them.

    ``on_step`` is called after each micro-batch with the number of prompts that are done and
    the number of all. Whatever the model raises is passed on.
    """
    requests = [ScoreRequest(prompt, weights) for prompt, weights in prompts]
    queue: FairQueue[ScoreRequest] = FairQueue(max_batch_tokens, max_batch_tokens)
    for request in requests:
        queue.add(request)
    while len(queue):
        chunks = queue.schedule(0.0).chunks
        outputs = decoder.forward([chunk.sequence.forward_input(chunk) for chunk in chunks])
        for chunk, output in zip(chunks, outputs, strict=True):
            chunk.sequence.take(chunk, output)
        on_step(len(requests) - len(queue), len(requests))
    return [request.margins for request in requests]
