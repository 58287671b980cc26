"""A local Hugging Face causal LM as teacher: one answer at a time, greedy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankloom_training.teachers.chat import (
    Completion,
    Message,
    PromptRefusedError,
    without_thinking,
)
from rankloom_training.teachers.teacher import TeacherError


class LocalChat:
    """``name``: a path or hub id. Uses the model's chat template, or plain lines without one.

    Raises TeacherError if there is no such model.
    """

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, dtype="auto"
            ).eval()
        except Exception as error:  # transformers raises many kinds; all of them mean this
            raise TeacherError(
                f"teacher {name!r}: no causal LM with safetensors weights under that path or hub "
                f"id; check the name, or pass evidence or the URL of an endpoint"
            ) from error

    @property
    def name(self) -> str:
        return self._name

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        """Raises PromptRefusedError for a prompt that leaves no room for an answer."""
        with self._lock, torch.inference_mode():
            ids = self._ids(messages)
            room = min(max_tokens, self._context() - ids.shape[1])
            if room < 1:
                raise PromptRefusedError("the prompt is longer than the model's context")
            out = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False
            )
        answer = out[0, ids.shape[1] :]
        text = self._tokenizer.decode(answer, skip_special_tokens=True)
        return Completion(
            without_thinking(text), len(answer) == room, int(out.shape[1]), datetime.now(UTC)
        )

    def _context(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 4096)

    def _ids(self, messages: Sequence[Message]) -> torch.Tensor:
        """(1, tokens) of the prompt."""
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(
                list(map(dict, messages)), tokenize=False, add_generation_prompt=True
            )
        else:
            text = "\n\n".join([*(each["content"] for each in messages), ""])
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return torch.tensor([ids], dtype=torch.int64)
