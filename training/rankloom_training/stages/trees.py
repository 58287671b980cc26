"""The stage of the trees: tabular features, the tree ranker and its out-of-fold logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.loading import statistics_to_bytes
from rankloom_features.ranker import TreeRanker
from rankloom_features.tabular import LOG_COUNT
from rankloom_training.data import Split
from rankloom_training.metrics import auc
from rankloom_training.stages.artefacts import CollaborativeFiles, ReviewsFiles, TreesFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.trees import (
    Boosters,
    FeatureTable,
    HeldOutFeatures,
    held_out_prior,
)
from rankloom_training.visibility import Protocol


@dataclass(frozen=True, slots=True)
class TreesStage(Stage):
    """Tabular features of every row, boosters as ONNX, and the trees' logits."""

    protocol: Protocol
    seed: int
    makes = TreesFiles
    needs = (CollaborativeFiles,)
    may_need = (ReviewsFiles,)
    code = (
        "rankloom_features.item_columns",
        "rankloom_features.item_statistics",
        "rankloom_features.loading",
        "rankloom_features.model_columns",
        "rankloom_features.ranker",
        "rankloom_features.running",
        "rankloom_features.session_columns",
        "rankloom_features.tabular",
        "rankloom_features.tree_export",
        "rankloom_features.user_model",
        "rankloom_training.folds",
        "rankloom_training.item_factors",
        "rankloom_training.metrics",
        "rankloom_training.session_factors",
        "rankloom_training.stages.rows",
        "rankloom_training.trees",
        "rankloom_training.user_models",
    )

    def run(self, given: StageInputs) -> None:
        """Fits the user model and boosters, and one more for each fold of users."""
        data, files = given.dataset, TreesFiles(given.folder)
        reviews = given.maybe(ReviewsFiles)
        prior, rates = held_out_prior(data, self.seed), reviews is not None
        held_out = HeldOutFeatures(data, self.seed, prior, rates_reviews=rates)
        rows = LogRows.of(data, self.protocol, self.seed)
        train = _table(held_out, rows, Split.TRAIN, given)
        valid = _table(held_out, rows, Split.VALID, given)
        # Likes alone say what users choose: the trees say what differs from popularity.
        start = LOG_COUNT if data.log.sampled else None
        boosters = Boosters(train, valid, held_out.names, given.progress.step, start)
        ranker = boosters.ranker()
        statistics, users = statistics_to_bytes(held_out.statistics), held_out.user_model.to_bytes()
        files.write_ranker(ranker, statistics, users)
        files.write_logits(Split.TRAIN, boosters.out_of_fold_logits(held_out.fold))
        valid_logits = TreeRanker(ranker).logits(valid.features)
        files.write_logits(Split.VALID, valid_logits)
        found = auc(valid.label, valid_logits + rows.sampling_offset(Split.VALID))
        given.progress.note(f"AUC {found:.4f}")


def _columns(given: StageInputs, split: Split) -> NDArray[np.float32]:
    """(columns, rows) of other models, in the order of ``model_columns``."""
    reviews, logits = given.maybe(ReviewsFiles), given.of(CollaborativeFiles).logits(split)
    return np.stack([*([reviews.ratings(split)] if reviews else []), logits])


def _table(
    held_out: HeldOutFeatures, rows: LogRows, split: Split, given: StageInputs
) -> FeatureTable:
    """Of all rows of train or valid, with the features in the stage's own file."""
    views, columns = rows.views(split), _columns(given, split)
    shape = columns.shape[1], len(held_out.names)
    features = TreesFiles(given.folder).new_tabular(split, shape)
    ends = np.cumsum([len(view.rows) for view in views])[:-1]
    parts = zip(views, np.split(columns, ends, axis=1), np.split(features, ends), strict=True)
    tables = [held_out.table(view, *others, out=out) for view, others, out in parts]
    return FeatureTable(
        features,
        np.concatenate([table.label for table in tables]),
        np.concatenate([table.user for table in tables]),
        rows.sampling_offset(split),
        rows.weight(split),
    )
