"""Fits a small score to measure influences on, where there is no bundle to measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_features.encoder import Encoder
from rankloom_features.event_store.memory import NO_EVENTS
from rankloom_features.export import export
from rankloom_features.fit import Examples, fit, forget_untrained, one_thread, score
from rankloom_features.models import create_model
from rankloom_features.models.base import CollaborativeModel
from rankloom_features.provider import FeatureProvider
from rankloom_features.ranker import TreeRanker
from rankloom_features.scorer import Scorer
from rankloom_features.tabular import TabularFeatures
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.reasons.influences import TreeInfluences
from rankloom_training.trees import Boosters, FeatureTable, HeldOutFeatures, joined
from rankloom_training.visibility import Protocol, View, scoring_view, training_views

LATENT_DIM = 32
OnStep = Callable[[int, int], None]


def fit_influences(
    data: Dataset, protocol: Protocol, seed: int, on_step: OnStep = lambda done, total: None
) -> TreeInfluences:
    """The collaborative model learns from one half of the users, the trees from the other.

    So the trees learn how far a logit of unseen users can be trusted, with one fit of each.
    """
    log = data.log
    views, valid = training_views(log, protocol, seed), scoring_view(log, protocol, Split.VALID)
    half = np.random.default_rng(seed).random(log.num_users) < 0.5
    model = _collaborative(data, [_of_users(view, log, half) for view in views], valid, seed)
    held_out = HeldOutFeatures(data, seed)

    def table(view: View) -> FeatureTable:
        return held_out.table(view, score(model, _examples(view, log)))

    train = joined([table(_of_users(view, log, ~half)) for view in views])
    trees = Boosters(train, table(valid), held_out.names, on_step).ranker()
    return TreeInfluences(_provider(data, model, held_out.served), TreeRanker(trees))


def _provider(
    data: Dataset, model: CollaborativeModel, tabular: TabularFeatures
) -> FeatureProvider:
    """Features of histories that are given; it knows no user."""
    vectors = model.vectors.weight.detach().numpy()[1:]
    biases = model.item_bias.weight.detach().numpy()[1:, 0]
    scorer = Scorer(vectors, biases)
    return FeatureProvider(data.catalogue, Encoder(export(model)), scorer, tabular, NO_EVENTS)


def _collaborative(
    data: Dataset, views: Sequence[View], valid: View, seed: int
) -> CollaborativeModel:
    torch.manual_seed(seed)
    model = create_model("mf", len(data.catalogue), LATENT_DIM)
    train = Examples.joined([_examples(view, data.log) for view in views])
    with one_thread():
        fit(model, lambda epoch: train, _examples(valid, data.log), seed=seed)
    forget_untrained(model, np.unique(train.target) - 1)
    return model


def _examples(view: View, log: Interactions) -> Examples:
    return Examples(view.histories(log), log.item[view.rows] + 1, log.liked[view.rows])


def _of_users(view: View, log: Interactions, users: NDArray[np.bool_]) -> View:
    return view.only(users[log.user[view.rows]])
