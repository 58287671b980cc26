"""Rows of a log as training computes them: many moments of a user at once, from arrays.

Training holds a row's own user out of item statistics, user model and collaborative model; a server
cannot. So each row is also computed from what the bundle holds, by training's way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.router import GLOBAL
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_features.item_columns import NO_COLUMNS, ItemColumns
from rankloom_features.loading import statistics_from_bytes
from rankloom_features.model_columns import with_columns
from rankloom_features.tabular import TabularFeatures
from rankloom_features.user_model import UserModel
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.base import embeddings_of, read_base
from rankloom_training.data import Dataset, Split
from rankloom_training.experts import ExpertTrainer
from rankloom_training.scoring import BundleScorer, requests_of
from rankloom_training.stages.artefacts import CollaborativeFiles, TreesFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.visibility import Protocol, View, runs
from rankloom_training.windows import Inputs, WindowMaker

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class RowFeatures:
    """``vector``: (n, dim). ``tabular``: (n, columns). ``tree_logit``: (n,)."""

    vector: Floats
    tabular: Floats
    tree_logit: Floats


@dataclass(frozen=True, slots=True, eq=False)
class OfflineRows:
    """Some rows of a log; arrays in their order.

    ``rows``: (n,) indices into the log. ``stored``: what the stages of the training left on disk,
    of training rows with their own user held out. ``computed``: by training's way, from what the
    bundle holds. ``evaluated``: (n,) the score by which a bundle is evaluated. ``score``: (n,) of
    the windows that experts are trained on. ``is_whole``: (n,) whether the row's window has all
    events of the served prompt; in others training shows fewer.
    """

    rows: NDArray[np.int64]
    stored: RowFeatures
    computed: RowFeatures
    evaluated: Floats
    score: Floats
    is_whole: NDArray[np.bool_]


class OfflineLog:
    """A log with the bundle and the stages that were trained on it, under P1.

    The groups of the bundle must have the global expert, since windows are scored by that one.
    """

    def __init__(self, folder: Path, work: Path, dataset: Dataset, seed: int) -> None:
        bundle = open_bundle(folder)
        self._scorer = BundleScorer(bundle)
        self.loaded = self._scorer.loaded
        if len(set(self.loaded.expert_digests)) != 1:
            raise ValueError("the groups have experts of their own; train them for 0 epochs")
        self._dataset, self._rows = dataset, LogRows.of(dataset, Protocol.P1, seed)
        self._tabular = _tabular(bundle, self.loaded)
        self._collaborative = CollaborativeFiles(work / CollaborativeFiles.stage)
        self._trees = TreesFiles(work / TreesFiles.stage)
        self._maker = WindowMaker(dataset.log, self.loaded.catalogue, self.loaded.prompts)
        self._trainer = _trainer(bundle, self.loaded)

    def drawn(self, split: Split, num: int, seed: int) -> OfflineRows:
        """Random rows of train or valid, at most ``num``, in the order of the log."""
        every = self._rows.indices(split)
        random = np.random.default_rng(seed)
        at = np.sort(random.choice(len(every), min(num, len(every)), replace=False))
        view = View(every[at], self._rows.views(split)[0].cutoff)
        stored = RowFeatures(
            self._collaborative.vectors(split)[at],
            self._trees.tabular(split)[at],
            self._trees.tree_logits(split)[at],
        )
        computed = self._computed(view)
        seen = np.array([len(view.visible_before(self._dataset.log, row)) for row in view.rows])
        is_whole = seen < self.loaded.prompts.format.max_events
        evaluated, score = self._evaluated(view), self._scores(view, computed)
        return OfflineRows(view.rows, stored, computed, evaluated, score, is_whole)

    def _computed(self, view: View) -> RowFeatures:
        """Each user's rows at once, as in training; one run of the model gives the logits."""
        log, catalogue = self._dataset.log, self.loaded.catalogue
        histories, made = view.histories(log), list[NDArray[np.float32]]()
        for own in runs(log.user[view.rows]):
            first, end = histories.first[own], histories.end[own]
            events = histories.between(int(first[0]), int(end[-1]))
            seen, moment = np.unique(end - first, return_inverse=True)
            profile = self._tabular.profile(events, seen)
            candidates = catalogue.traits_at(log.item[view.rows[own]])
            made.append(self._tabular.matrix(profile, candidates, moment))
        each = [view.history_before(log, int(row)) for row in view.rows]
        encoder = self.loaded.provider.encoder
        vector, logits = encoder.encode_and_score(each, log.item[view.rows][:, None] + 1)
        tabular = with_columns(np.concatenate(made), [logits[:, 0]])
        return RowFeatures(vector, tabular, self.loaded.trees.logits(tabular))

    def _evaluated(self, view: View) -> Floats:
        """By the code of `rankloom evaluate`, from inline histories."""
        router = self.loaded.router
        requests = requests_of(self._dataset, view)
        prepared = [self._scorer.prepare(each.query(), each.rows) for each in requests]
        routes = [router.route(each.routing_vector).weights for each in prepared]
        mixtures = {"served": list(map(MixtureWeights, routes))}
        margins = self._scorer.margins(prepared, mixtures, lambda num_scored, num_prompts: None)
        trees = np.concatenate([each.tree_logits for each in prepared])
        return np.asarray(trees + margins["served"])

    def _scores(self, view: View, features: RowFeatures) -> Floats:
        """The trees' logit and the margin in training's windows."""
        inputs = Inputs(
            view,
            np.asarray(features.vector, np.float32),
            np.asarray(features.tabular, np.float32),
            np.asarray(features.tree_logit, np.float64),
        )
        windows = self._maker.windows(inputs)
        scores = np.zeros(len(view.rows))
        scores[np.concatenate([each.rows for each in windows])] = self._trainer.margins(windows)
        return scores + features.tree_logit


def held_out_change(found: OfflineRows, names: tuple[str, ...]) -> Mapping[str, float]:
    """By column, the mean of |held out - served|, in standard deviations of the column."""
    stored, computed = found.stored.tabular, found.computed.tabular
    spread = np.nanstd(computed, axis=0)
    change = np.nanmean(np.abs(stored - computed), axis=0) / np.where(spread > 0, spread, 1.0)
    return {name: float(value) for name, value in zip(names, change, strict=True) if value > 0}


def _tabular(bundle: Bundle, loaded: LoadedBundle) -> TabularFeatures:
    num, catalogue = len(loaded.catalogue), loaded.catalogue
    columns = NO_COLUMNS
    if parts.ITEM_COLUMNS in bundle.parts:
        columns = ItemColumns.from_bytes(bundle.read(parts.ITEM_COLUMNS), num)
    statistics = statistics_from_bytes(bundle.read(parts.ITEM_STATISTICS), num)
    users = UserModel.from_bytes(bundle.read(parts.USER_MODEL), num)
    return TabularFeatures(catalogue, statistics, users, columns)


def _trainer(bundle: Bundle, loaded: LoadedBundle) -> ExpertTrainer:
    """The base with the global expert, by the code that trains."""
    fmt = loaded.prompts.format
    model, _ = read_base(bundle.folder)
    projector = Projector.from_bytes(
        bundle.read(parts.PROJECTOR), embeddings_of(model).embedding_dim
    )
    trainer = ExpertTrainer(Decoder(model, projector, yes=fmt.liked, no=fmt.disliked), seed=0)
    trainer.load_adapter(bundle.folder / "experts" / GLOBAL)
    return trainer
