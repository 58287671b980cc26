"""The stage of the groups' experts: each starts as the global one and must be better to stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Router, group_of
from rankloom_engine.expert_bank import max_stacked
from rankloom_engine.model import Decoder
from rankloom_ranker.item_groups import ItemGroups
from rankloom_training import base
from rankloom_training.data import Split
from rankloom_training.experts import RANK, ExpertTrainer, OnStep
from rankloom_training.groups import gain_of, have_both_classes, window_groups
from rankloom_training.options import ObjectiveName, Recipe
from rankloom_training.side_by_side import SideBySide, copies
from rankloom_training.stages.artefacts import (
    BaseFiles,
    CollaborativeFiles,
    GlobalFiles,
    GroupsFiles,
    RouterFiles,
)
from rankloom_training.stages.curriculum import Curriculum
from rankloom_training.stages.learner import LEARNER_CODE, LEARNER_NEEDS, Learner, learn
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol
from rankloom_training.windows import Window


@dataclass(frozen=True, slots=True)
class GroupsStage(Stage):
    """One expert per group, each trained from the global expert; and the router's limit."""

    protocol: Protocol
    lm_rows: int
    group_experts: bool
    group_recipe: Recipe
    shots: int | None
    seed: int
    makes = GroupsFiles
    needs = (*LEARNER_NEEDS, RouterFiles, GlobalFiles)
    code = (
        *LEARNER_CODE,
        "rankloom_adapters.router",
        "rankloom_engine.expert_bank",
        "rankloom_ranker.item_groups",
        "rankloom_training.groups",
        "rankloom_training.side_by_side",
    )

    def run(self, given: StageInputs) -> None:
        """Trains or copies each group's expert. Raises CurriculumError."""
        rows = LogRows.of(given.dataset, self.protocol, self.seed)
        projector = given.of(GlobalFiles).projector()
        learner = Learner.of(given, rows, self.lm_rows, projector, self._curriculum(given, rows))
        router = _served_router(given, learner)
        GroupsFiles(given.folder).write_router(router, _item_groups(given))
        if self.group_experts:
            self._train(given, learner, rows, router)
        else:
            self._copy(given, learner.decoder, router)

    def _train(self, given: StageInputs, learner: Learner, rows: LogRows, router: Router) -> None:
        """Trains each expert on the windows of its group."""
        groups = list(_groups(given, learner, rows, router))
        jobs = [partial(self._make, given, rows, group) for group in groups]
        decoders = copies(learner.decoder, len(jobs))
        trainers = [
            ExpertTrainer(each, self.seed, recompute=given.machine.recompute) for each in decoders
        ]
        SideBySide(trainers, given.progress.step).run(jobs, [len(each.train) for each in groups])

    def _copy(self, given: StageInputs, decoder: Decoder, router: Router) -> None:
        trainer = ExpertTrainer(decoder, self.seed)
        trainer.load_adapter(given.of(GlobalFiles).expert)
        for name in router.groups:
            trainer.save(GroupsFiles(given.folder).expert(name), given.of(BaseFiles).weights)

    def _make(
        self,
        given: StageInputs,
        rows: LogRows,
        group: _GroupWindows,
        trainer: ExpertTrainer,
        on_step: OnStep,
    ) -> None:
        """Trains the expert of a group from the global one, and writes the better of the two."""
        trainer.load_adapter(given.of(GlobalFiles).expert)
        start = trainer.state()
        train, valid, recipe = group.train, group.valid, self.group_recipe
        found = learn(
            trainer,
            train,
            valid,
            recipe,
            given,
            group.name,
            with_projector=False,
            on_step=on_step,
        )
        gain = gain_of(_users_of(rows, valid), valid, found)
        given.progress.note(f"{group.name}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        if gain.low <= 0.0:
            # The best of several epochs looks better than it is. An expert that is not
            # clearly better than the global one would add noise to the mixture.
            trainer.load(start)
        trainer.save(GroupsFiles(given.folder).expert(group.name), given.of(BaseFiles).weights)

    def _curriculum(self, given: StageInputs, rows: LogRows) -> Curriculum:
        # With the mixed objective words come from the base and the global expert: groups that
        # learnt them too gained half.
        with_words = self.group_recipe.objective is ObjectiveName.COMPLETION
        group = None if self.shots is None else _row_groups(given, rows)
        return Curriculum(with_words, self.shots, group)


@dataclass(frozen=True, slots=True, eq=False)
class _GroupWindows:
    """The windows of one group, or those of all groups to validate on if its own say nothing."""

    name: str
    train: list[Window]
    valid: list[Window]


def _groups(
    given: StageInputs, learner: Learner, rows: LogRows, router: Router
) -> Iterator[_GroupWindows]:
    vectors = {split: _routing_vectors(given, rows, split) for split in (Split.TRAIN, Split.VALID)}
    train_group = window_groups(learner.train, vectors[Split.TRAIN], router)
    valid_group = window_groups(learner.valid, vectors[Split.VALID], router)
    for index, name in enumerate(router.groups):
        valid = _only(learner.valid, valid_group == index)
        valid = valid if have_both_classes(valid) else learner.valid
        yield _GroupWindows(name, _only(learner.train, train_group == index), valid)


def _row_groups(given: StageInputs, rows: LogRows) -> NDArray[np.int64]:
    """(log rows,) the group of each training row; of a row in two views that of the first."""
    router, group = given.of(RouterFiles).router(), np.zeros(len(rows.log), dtype=np.int64)
    vectors = _routing_vectors(given, rows, Split.TRAIN)
    found = group_of(vectors, router.centre, router.centroids)
    group[rows.indices(Split.TRAIN)[::-1]] = found[::-1]
    return group


def _routing_vectors(given: StageInputs, rows: LogRows, split: Split) -> NDArray[np.floating]:
    """(rows, dim): what the router compares with its centroids."""
    groups = _item_groups(given)
    if groups is None:
        return given.of(CollaborativeFiles).vectors(split)
    return groups.shares(rows.histories(split))


def _item_groups(given: StageInputs) -> ItemGroups | None:
    return given.of(RouterFiles).item_groups(len(given.dataset.catalogue))


def _only(windows: list[Window], mask: NDArray[np.bool_]) -> list[Window]:
    return [window for window, kept in zip(windows, mask, strict=True) if kept]


def _served_router(given: StageInputs, learner: Learner) -> Router:
    hidden = base.embeddings_of(learner.decoder.model).embedding_dim
    router = given.of(RouterFiles).router()
    return dataclasses.replace(router, max_experts=max_stacked(hidden, RANK))


def _users_of(rows: LogRows, valid: list[Window]) -> NDArray[np.int64]:
    """(rows,) the user of each row of validation windows."""
    chosen = np.concatenate([window.rows for window in valid])
    users: NDArray[np.int64] = rows.log.user[rows.valid.rows[chosen]]
    return users
