"""What training an expert needs, from the files of the stages before it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_engine.loading import Hardware, move
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptAssembler, PromptFormat
from rankloom_training import base
from rankloom_training.data import Split
from rankloom_training.experts import ExpertTrainer, OnStep, TrainedMargins
from rankloom_training.options import Recipe
from rankloom_training.stages.artefacts import (
    BaseFiles,
    CollaborativeFiles,
    TracesFiles,
    TreesFiles,
)
from rankloom_training.stages.curriculum import Curriculum
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import StageInputs
from rankloom_training.windows import Inputs, Window, WindowMaker
from rankloom_training.words import words_of

# Whatever trains experts needs these files, and its result depends on this code.
LEARNER_NEEDS = (CollaborativeFiles, TreesFiles, TracesFiles, BaseFiles)
LEARNER_CODE = (
    "rankloom_engine.attention",
    "rankloom_engine.layers",
    "rankloom_engine.model",
    "rankloom_engine.packing",
    "rankloom_engine.projector",
    "rankloom_engine.profile",
    "rankloom_engine.prompt",
    "rankloom_training.base",
    "rankloom_training.checkpoints",
    "rankloom_training.experts",
    "rankloom_training.lora",
    "rankloom_training.metrics",
    "rankloom_training.objectives",
    "rankloom_training.stages.learner",
    "rankloom_training.stages.rows",
    "rankloom_training.stages.curriculum",
    "rankloom_training.windows",
    "rankloom_training.words",
)


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A decoder with its projector, and the windows to train and to validate on."""

    decoder: Decoder
    train: list[Window]
    valid: list[Window]

    @classmethod
    def of(
        cls,
        given: StageInputs,
        rows: LogRows,
        lm_rows: int,
        projector: bytes | None,
        curriculum: Curriculum,
    ) -> Learner:
        """``projector``: of an earlier stage; None: a new one. Raises CurriculumError."""
        files = given.of(BaseFiles)
        model, tokenizer = base.read_base(files.folder)
        fmt = PromptFormat.from_bytes(files.prompt())
        hidden = base.embeddings_of(model).embedding_dim
        made = Projector.from_bytes(projector, hidden) if projector else _new(given, rows, hidden)
        builder = PromptAssembler(tokenizer, fmt, given.of(CollaborativeFiles).item_vectors())
        said = given.of(TracesFiles).read()
        words = words_of(said, given.dataset.catalogue, tokenizer, fmt)
        spoken = words if curriculum.with_words else {}
        maker = WindowMaker(given.dataset.log, given.dataset.catalogue, builder, spoken)
        move(model, Hardware(given.machine.device, given.machine.dtype))
        made.to(given.machine.device)
        decoder = Decoder(model, made, yes=fmt.liked, no=fmt.disliked)
        chosen = {
            Split.TRAIN: curriculum.train_rows(rows, lm_rows, words),
            Split.VALID: rows.for_language_model(Split.VALID, lm_rows)[rows.log.user],
        }
        train, valid = (_windows(given, rows, maker, *each) for each in chosen.items())
        return cls(decoder, train, valid)


def learn(
    trainer: ExpertTrainer,
    train: list[Window],
    valid: list[Window],
    recipe: Recipe,
    given: StageInputs,
    name: str,
    *,
    with_projector: bool,
    on_step: OnStep,
) -> TrainedMargins:
    """Trains the expert of that name in place, notes its progress and keeps checkpoints."""
    return trainer.train(
        train,
        valid,
        recipe,
        with_projector=with_projector,
        on_step=on_step,
        on_epoch=lambda epoch, auc: given.progress.note(f"epoch {epoch}: AUC {auc:.4f}"),
        checkpoint=given.checkpoint(name),
    )


def _new(given: StageInputs, rows: LogRows, hidden: int) -> Projector:
    torch.manual_seed(rows.seed)
    tabular = given.of(TreesFiles).tabular(Split.TRAIN)
    latent_dim = given.of(CollaborativeFiles).item_vectors().shape[1]
    projector = Projector(latent_dim, tabular.shape[1], hidden)
    projector.fit_scale(torch.from_numpy(tabular))
    return projector


def _windows(
    given: StageInputs,
    rows: LogRows,
    maker: WindowMaker,
    split: Split,
    chosen: NDArray[np.bool_],
) -> list[Window]:
    """``chosen``: (log rows,). A window's rows are those of the views, in order."""
    vectors, trees = given.of(CollaborativeFiles).vectors(split), given.of(TreesFiles)
    tabular = trees.tabular(split)
    tree_logits = trees.tree_logits(split) + rows.sampling_offset(split)
    windows, first = list[Window](), 0
    for view in rows.views(split):
        kept = np.flatnonzero(chosen[view.rows])
        seen, at = view.only(kept), first + kept
        made = maker.windows(Inputs(seen, vectors[at], tabular[at], tree_logits[at]))
        windows += [dataclasses.replace(window, rows=at[window.rows]) for window in made]
        first += len(view.rows)
    return windows
