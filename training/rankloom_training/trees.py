"""Trains the tree ranker: held-out item statistics, out-of-fold logits, final boosters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from lightgbm.callback import CallbackEnv
from numpy.typing import NDArray
from scipy.optimize import root_scalar
from scipy.sparse import csr_matrix
from scipy.special import expit

from rankloom_features.catalogue import Catalogue
from rankloom_features.histories import Histories
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.model_columns import model_columns
from rankloom_features.tabular import MONOTONE, TabularFeatures
from rankloom_features.tree_export import Start, export_trees, raw_scores
from rankloom_features.user_model import UserModel
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.folds import NUM_FOLDS, user_folds
from rankloom_training.item_factors import item_factors
from rankloom_training.session_factors import session_factors
from rankloom_training.user_models.fit import fitted_prior, fitted_user_model
from rankloom_training.user_models.item_features import ItemFeatures
from rankloom_training.user_models.labels import labels_of
from rankloom_training.user_models.variances import USUAL_PRIOR, UserModelPrior
from rankloom_training.visibility import View, runs

OnStep = Callable[[int, int], None]
NUM_BOOSTERS = 3
CO_LIKING_SHRINKAGE, CO_RATING_SHRINKAGE = 5.0, 3.0
MAX_ROUNDS, PATIENCE = 500, 60
MAX_SHIFT = 100.0  # of a logit
PARAMETERS = {
    "objective": "binary",
    "extra_trees": True,
    "learning_rate": 0.04,
    "num_leaves": 31,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "monotone_constraints_method": "intermediate",
    "deterministic": True,
    "verbose": -1,
}
# Trees that correct a good start are smaller: most of what is left to learn is noise.
CORRECTING = {"learning_rate": 0.1, "num_leaves": 15, "lambda_l2": 20.0}


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Rows ready for the trees. ``features``: (n, columns); ``label``, ``user``: (n,).

    ``offset``: (n,) log-odds that sampling adds to the rows, and that the trees leave out.
    ``weight``: (n,) how much each row counts; None: all alike.
    """

    features: NDArray[np.float32]
    label: NDArray[np.bool_]
    user: NDArray[np.int64]
    offset: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None

    def rows(self, start: Start | None, **options: Any) -> lightgbm.Dataset:  # noqa: ANN401
        """``start``: what the trees' scores are added to."""
        first = np.zeros(len(self.label)) if self.offset is None else self.offset
        first = first if start is None else first + start.of(self.features)
        # Given any start, even 0, LightGBM does not start from the mean.
        given = first if first.any() else None
        return lightgbm.Dataset(
            self.features, self.label, weight=self.weight, init_score=given, **options
        )

    def start_from(self, column: int) -> Start:
        """The column's values, less what makes their mean probability the share of likes."""
        logit = Start(column, 0.0).of(self.features)
        logit = logit if self.offset is None else logit + self.offset

        def excess(shift: float) -> float:
            return float(np.average(expit(logit - shift) - self.label, weights=self.weight))

        return Start(column, float(root_scalar(excess, bracket=(-MAX_SHIFT, MAX_SHIFT)).root))


def item_statistics(
    log: Interactions, catalogue: Catalogue, rows: NDArray[np.bool_]
) -> ItemStatistics:
    """Statistics of the log's rows for which the mask ``rows`` is true.

    Sampled negatives are left out: the number of rows says how popular an item is.
    """
    rows = rows & log.happened
    user, item, liked = log.user[rows], log.item[rows], log.liked[rows]
    shape = (log.num_users, len(catalogue))
    counts = np.bincount(item, minlength=len(catalogue)).astype(np.float32)
    likes = np.bincount(item, weights=liked, minlength=len(catalogue)).astype(np.float32)
    none = np.zeros((len(catalogue), 0), np.float32)
    mean = ItemStatistics(counts, likes, none, none).mean
    liking = csr_matrix((liked.astype(np.float64), (user, item)), shape=shape)
    rating = csr_matrix(((liked - mean[item]).astype(np.float64), (user, item)), shape=shape)
    return ItemStatistics(
        counts,
        likes,
        item_factors(liking, CO_LIKING_SHRINKAGE),
        item_factors(rating, CO_RATING_SHRINKAGE),
        session_factors(log, rows, len(catalogue)) if log.sampled else None,
    )


def held_out_prior(data: Dataset, seed: int) -> UserModelPrior:
    """The user model's prior, from the users of one fold and the items of the others."""
    log = data.log
    train, own = log.split == Split.TRAIN, user_folds(log.num_users, seed)[log.user] == 0
    statistics = item_statistics(log, data.catalogue, train & ~own)
    features = ItemFeatures.of(data, statistics, labels_of(log, train & ~own))
    return fitted_prior(log, features, train & ~own, train & own)


class HeldOutFeatures:
    """Tabular features from statistics and a user model that leave out the row's own user.

    A training row gets those of the other folds of users; any other row gets those of all
    training rows, as in production. The ``prior``, a few variances, is for all of them.
    ``rates_reviews``: whether there are towers of reviews, which give a column.
    """

    def __init__(
        self,
        data: Dataset,
        seed: int,
        prior: UserModelPrior = USUAL_PRIOR,
        *,
        rates_reviews: bool = False,
    ) -> None:
        self._data, self._prior, self._rates_reviews = data, prior, rates_reviews
        self._catalogue, self._log = data.catalogue, data.log
        self._train = train = self._log.split == Split.TRAIN
        self.fold = user_folds(self._log.num_users, seed)
        self.statistics = item_statistics(self._log, self._catalogue, train)
        self.user_model = self._user_model(train, self.statistics)
        self.served = self._tabular(self.statistics, self.user_model)
        self._held_out = [
            self._features(train & (self.fold[self._log.user] != fold)) for fold in range(NUM_FOLDS)
        ]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.served.names, *model_columns(rates_reviews=self._rates_reviews))

    def table(
        self, view: View, *others: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> FeatureTable:
        """Features of the view's rows, each from the events that the row may see.

        ``others``: (rows,) each, the columns of other models; out of fold for training rows.
        ``out``: (rows, columns) to hold the features; None: a new array.
        """
        histories = view.histories(self._log)
        users = self._log.user[view.rows]
        num_own = len(self.served.names)
        shape = len(view.rows), len(self.names)
        features = np.empty(shape, np.float32) if out is None else out
        features[:, num_own:] = np.stack(others, axis=1)
        for own in runs(users):
            user = int(users[own.start])
            now = self._log.time[view.ends[own]]
            features[own, :num_own] = self._of_user(user, view.rows[own], histories.only(own), now)
        return FeatureTable(features, self._log.liked[view.rows], users)

    def _features(self, rows: NDArray[np.bool_]) -> TabularFeatures:
        """From the log's rows for which the mask is true."""
        statistics = item_statistics(self._log, self._catalogue, rows)
        return self._tabular(statistics, self._user_model(rows, statistics))

    def _tabular(self, statistics: ItemStatistics, model: UserModel) -> TabularFeatures:
        return TabularFeatures(self._catalogue, statistics, model, self._data.item_columns)

    def _user_model(self, rows: NDArray[np.bool_], statistics: ItemStatistics) -> UserModel:
        labels = labels_of(self._log, rows)
        features = ItemFeatures.of(self._data, statistics, labels)
        return fitted_user_model(labels, features, self._prior)

    def _of_user(
        self, user: int, rows: NDArray[np.int64], histories: Histories, now: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """(rows, columns) of one user, whose events are computed with once."""
        features = self._held_out[self.fold[user]] if self._train[rows[0]] else self.served
        first, end = histories.first[0], histories.end
        events = histories.between(int(first), int(end[-1]))
        seen, moment = np.unique(end - first, return_inverse=True)
        candidates = self._catalogue.traits_at(self._log.item[rows])
        return features.matrix(features.profile(events, seen), candidates, moment, now)


class Boosters:
    """Fits boosters that share the bins of one table, stopped early on ``valid``.

    ``on_step``: called with the rounds done and to do, over all boosters. ``start``: the column
    whose values their scores are added to.
    """

    def __init__(
        self,
        train: FeatureTable,
        valid: FeatureTable,
        names: Sequence[str],
        on_step: OnStep,
        start: str | None = None,
    ) -> None:
        constraints = [int(name in MONOTONE) for name in names]
        sizes = {} if start is None else CORRECTING
        self._parameters = PARAMETERS | sizes | {"monotone_constraints": constraints}
        self._start = None if start is None else train.start_from(list(names).index(start))
        self._table = train
        self._train = train.rows(self._start, params=dict(self._parameters))
        self._valid = valid.rows(self._start, reference=self._train)
        self._on_step, self._fitted = on_step, 0

    def ranker(self) -> bytes:
        """Boosters of different seeds as one ONNX model."""
        boosters = [self._fit(self._train, seed) for seed in range(NUM_BOOSTERS)]
        return export_trees(boosters, self._start)

    def out_of_fold_logits(self, fold: NDArray[np.int64]) -> NDArray[np.float64]:
        """(rows,) logits of the training rows, from boosters that never saw the row's user.

        ``fold``: (users,).
        """
        own_fold, logits = fold[self._table.user], np.zeros(len(self._table.label))
        for held_out in range(NUM_FOLDS):
            own = own_fold == held_out
            booster = self._fit(self._train.subset(np.flatnonzero(~own).tolist()), held_out)
            logits[own] = raw_scores([booster], self._table.features[own])
        return logits if self._start is None else logits + self._start.of(self._table.features)

    def _fit(self, rows: lightgbm.Dataset, seed: int) -> lightgbm.Booster:
        def progress(env: CallbackEnv) -> None:
            total = (NUM_BOOSTERS + NUM_FOLDS) * MAX_ROUNDS
            self._on_step(self._fitted * MAX_ROUNDS + env.iteration, total)

        booster = lightgbm.train(
            self._parameters | {"seed": seed},
            rows,
            MAX_ROUNDS,
            valid_sets=[self._valid],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), progress],
        )
        self._fitted += 1
        return booster


def joined(tables: Sequence[FeatureTable]) -> FeatureTable:
    if len(tables) == 1:
        return tables[0]  # without a copy, which may be half a GiB
    return FeatureTable(
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.label for table in tables]),
        np.concatenate([table.user for table in tables]),
    )
