"""The stage of the base decoder: trained here on the log, or any causal LM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from rankloom_engine.checks import check_once
from rankloom_engine.explain import max_explained_tokens
from rankloom_engine.prompt import PromptFormat
from rankloom_training import base, embedded
from rankloom_training.data import Interactions, Split
from rankloom_training.options import ItemTextKind, TrainOptions
from rankloom_training.prompt_room import PromptRoom
from rankloom_training.stages.artefacts import BaseFiles, TracesFiles
from rankloom_training.stages.rows import chosen_users
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.words import words_of

MAX_EVENTS_IN_PROMPT = 20


def check_base(options: TrainOptions) -> None:
    """Fails early on a base model that cannot be served. Raises BaseModelError."""
    if options.base is not None:
        room = BaseStage.configured(options).room
        base.check_base(options.base, MAX_EVENTS_IN_PROMPT, room)


@dataclass(frozen=True, slots=True)
class BaseStage(Stage):
    """The base decoder, its tokenizer and the prompt."""

    base: str | None
    base_epochs: int
    lm_rows: int
    item_texts: ItemTextKind
    profiles: bool
    seed: int
    makes = BaseFiles
    needs = (TracesFiles,)
    code = (
        "rankloom_engine.explain",
        "rankloom_engine.profile",
        "rankloom_engine.prompt",
        "rankloom_training.base",
        "rankloom_training.checkpoints",
        "rankloom_training.embedded",
        "rankloom_training.prompt_room",
        "rankloom_training.stages.rows",
        "rankloom_training.words",
    )

    @property
    def room(self) -> PromptRoom:
        """What the prompt has beside titles, labels and opinions."""
        return PromptRoom(self.item_texts is not ItemTextKind.NONE, self.profiles)

    def run(self, given: StageInputs) -> None:
        """Trains or fetches the decoder, and checks that it can be served."""
        made = self._trained(given) if self.base is None else self._fetched(self.base)
        model, tokenizer, fmt = made
        num_tokens = fmt.max_tokens
        config = cast("Any", model).config
        check_once(config, num_tokens, max_explained_tokens(fmt))
        files = BaseFiles(given.folder)
        base.write_base(files.weights.parent, model, tokenizer)
        files.write_prompt(fmt.to_bytes())

    def _trained(self, given: StageInputs) -> tuple[nn.Module, Tokenizer, PromptFormat]:
        catalogue, log = given.dataset.catalogue, given.dataset.log
        traces = given.of(TracesFiles)
        said, is_phrased = traces.read(), traces.are_phrased
        tokenizer = embedded.train_tokenizer(catalogue, (each.text for each in said))
        plain = embedded.embedded_format(tokenizer, MAX_EVENTS_IN_PROMPT, is_phrased=is_phrased)
        fmt = self.room.of(plain)
        model = embedded.train_decoder(
            tokenizer,
            fmt,
            catalogue,
            log,
            self._rows(log),
            words_of(said, catalogue, tokenizer, fmt),
            shape=embedded.DecoderShape(),
            epochs=self.base_epochs,
            seed=self.seed,
            on_step=given.progress.step,
            checkpoint=given.checkpoint("decoder"),
            device=given.machine.device,
        )
        return model, tokenizer, fmt

    def _fetched(self, name: str) -> tuple[nn.Module, Tokenizer, PromptFormat]:
        model, tokenizer, fmt = base.fetch_base(name, MAX_EVENTS_IN_PROMPT)
        return model, tokenizer, self.room.of(fmt)

    def _rows(self, log: Interactions) -> NDArray[np.int64]:
        """(rows,) the training rows of the log that the decoder is trained on."""
        rows = np.flatnonzero(log.happened & (log.split == Split.TRAIN))
        return rows[chosen_users(log, rows, self.lm_rows, self.seed)[log.user[rows]]]
