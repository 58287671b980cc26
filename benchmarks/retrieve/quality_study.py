"""Retrieves and ranks for the users of a log's test rows, in this process, as a server does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.timing import progress
from rankloom_adapters.bundle import open_bundle
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_features.encoder import Encoder
from rankloom_features.events import known_history
from rankloom_features.export import export
from rankloom_features.fit import add_to_biases, fit, forget_untrained, one_thread
from rankloom_features.item_index import ItemIndex
from rankloom_features.models import create_model
from rankloom_features.scorer import Scorer
from rankloom_features.vector_space import CollaborativeSpace
from rankloom_training.all_items import Unseen, unseen_items
from rankloom_training.data import Dataset, Interactions, Split, load_dataset
from rankloom_training.data.negatives import Negatives, NegativeSampling
from rankloom_training.evaluate import like_above_of, sampling_of
from rankloom_training.metrics import Estimate, mean_over_users, ndcg
from rankloom_training.scoring import BundleScorer
from rankloom_training.stages.collaborative import LATENT_DIM
from rankloom_training.stages.rows import LogRows
from rankloom_training.visibility import Protocol

K, TOP, SEED = 100, 10, 0
SAMPLING: Final = NegativeSampling(4)
POPULARITY, BUNDLE = "popularity", "collaborative model of the bundle"
RECOMMEND: Final = "`recommend`: retrieved by the bundle's vectors, ranked"
LIKES: Final = "likes"  # with sampled negatives, in place of ratings


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A user's unseen items. ``liked``, ``allowed``: (items,) of the catalogue."""

    unseen: Unseen
    liked: NDArray[np.bool_]
    allowed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Vectors:
    """A collaborative model that retrieves. ``likes_alone``: histories without dislikes."""

    encoder: Encoder
    index: ItemIndex
    space: CollaborativeSpace
    likes_alone: bool = False

    def retrieve(self, data: Dataset, case: _Case) -> NDArray[np.int64]:
        """(k,) catalogue indices, best first."""
        events = case.unseen.history.events
        if self.likes_alone:
            events = tuple(event for event in events if event.liked)
        vector = self.encoder.encode([known_history(events, data.catalogue)[1]])
        return self.index.search(self.space.users(vector)[0], K, case.allowed)[0]


def run_quality_study(
    bundle: Path, folder: Path, num_users: int | None, models: Sequence[str]
) -> dict[str, Any]:
    """The figures of the room. ``models``: to fit, such as "sasrec-likes"."""
    opened = open_bundle(bundle)
    data = load_dataset(folder, like_above_of(opened), sampling_of(opened))
    scorer = BundleScorer(opened)
    cases = [
        _case_of(data, unseen)
        for unseen in unseen_items(data, np.arange(data.log.num_users)[:num_users])
    ]
    ways = _ways(data, scorer, models)
    recalls: dict[str, list[float]] = {name: [] for name in (POPULARITY, *ways)}
    ndcgs: dict[str, list[float]] = {}
    for done, case in enumerate(cases):
        if done % 20 == 0:
            progress(f"user {done} of {len(cases)}")
        retrieved = {POPULARITY: _most_popular(scorer, case)}
        retrieved |= {name: way.retrieve(data, case) for name, way in ways.items()}
        for name, items in retrieved.items():
            recalls[name].append(float(case.liked[items].sum() / case.liked.sum()))
        for name, ranked in _ranked(scorer, case, retrieved).items():
            ndcgs.setdefault(name, []).append(_ndcg(case, ranked))
    return {
        "users": len(cases),
        "items": len(data.catalogue),
        "recall100": _table(recalls, POPULARITY, sign=1.0),
        "ndcg10": _table(ndcgs, RECOMMEND, sign=-1.0),
    }


def _case_of(data: Dataset, unseen: Unseen) -> _Case:
    liked, allowed = np.zeros((2, len(data.catalogue)), np.bool_)
    allowed[unseen.items] = True
    liked[unseen.items[unseen.liked]] = True
    return _Case(unseen, liked, allowed)


def _ways(data: Dataset, scorer: BundleScorer, models: Sequence[str]) -> dict[str, _Vectors]:
    provider = scorer.loaded.provider
    counts, sampled = scorer.loaded.features.popularity, data.sampling is not None
    space = CollaborativeSpace(provider.scorer, counts, sampled=sampled)
    ways = {BUNDLE: _Vectors(provider.encoder, scorer.loaded.retriever.index, space)}
    for model in models:
        progress(f"fitting {model}")
        kind, _, learns = model.partition("-")
        ways[f"{kind.upper()} on {learns}"] = _fitted(data, kind, sampled=learns == LIKES)
    return ways


def _fitted(data: Dataset, kind: str, *, sampled: bool) -> _Vectors:
    """A model of the training rows, as the stage of the collaborative model fits it."""
    if sampled:
        data = _with_sampled_negatives(data)
    rows = LogRows.of(data, Protocol.P1, SEED)
    torch.manual_seed(SEED)
    model = create_model(kind, len(data.catalogue), LATENT_DIM)
    with one_thread():
        valid = rows.examples(Split.VALID)
        fit(model, lambda epoch: rows.examples(Split.TRAIN, epoch), valid, seed=SEED)
    model.settle()
    forget_untrained(model, np.unique(rows.examples(Split.TRAIN).target) - 1)
    if data.negatives is not None:
        add_to_biases(model, -data.negatives.offset)
    tables = (model.vectors.weight, model.item_bias.weight[:, 0])
    scorer = Scorer(*(each.detach().numpy()[1:].copy() for each in tables))
    chosen = data.log.item[data.log.split == Split.TRAIN]
    counts = np.bincount(chosen, minlength=len(data.catalogue)).astype(np.float32)
    space = CollaborativeSpace(scorer, counts, sampled=sampled)
    return _Vectors(Encoder(export(model)), ItemIndex(space.items), space, likes_alone=sampled)


def _with_sampled_negatives(data: Dataset) -> Dataset:
    log = _likes_of(data.log)
    negatives = Negatives(log, len(data.catalogue), SAMPLING, SEED)
    return replace(data, log=negatives.log(), negatives=negatives)


def _likes_of(log: Interactions) -> Interactions:
    """The likes alone, of the users who have some."""
    rows = np.flatnonzero(log.liked)
    users, start, user = np.unique(log.user[rows], return_index=True, return_inverse=True)
    return Interactions(
        user=user,
        item=log.item[rows],
        liked=log.liked[rows],
        time=log.time[rows],
        split=log.split[rows],
        start=start,
        user_ids=tuple(log.user_ids[code] for code in users),
    )


def _most_popular(scorer: BundleScorer, case: _Case) -> NDArray[np.int64]:
    order = np.argsort(-scorer.loaded.features.popularity, kind="stable")
    return order[case.allowed[order]][:K]


def _ranked(
    scorer: BundleScorer, case: _Case, retrieved: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """The catalogue indices of each way's first items, best first."""
    popular, near = retrieved[POPULARITY], retrieved[BUNDLE]
    union = np.union1d(popular, near)
    served, trees = _scores(scorer, case, union)
    ranked = {
        POPULARITY: popular[:TOP],
        "LightGBM over popular items": _best(popular, union, trees),
        "language model and LightGBM over popular items": _best(popular, union, served),
        "LightGBM over retrieved items": _best(near, union, trees),
        RECOMMEND: _best(near, union, served),
    }
    return ranked | {name: items[:TOP] for name, items in retrieved.items() if name != POPULARITY}


def _scores(
    scorer: BundleScorer, case: _Case, items: NDArray[np.int64]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(n,) served scores and tree logits, each for the items in their order."""
    asked = replace(case.unseen, items=items)
    prepared = [scorer.prepare(query, case.unseen.history.rows) for query in asked.queries()]
    weights = scorer.loaded.router.route(prepared[0].routing_vector).weights
    mixtures = {"": [MixtureWeights(weights)] * len(prepared)}
    margins = scorer.margins(prepared, mixtures, lambda num_scored, num_prompts: None)[""]
    trees = np.concatenate([one.tree_logits for one in prepared])
    return trees + margins, trees


def _best(
    items: NDArray[np.int64], union: NDArray[np.int64], scores: NDArray[np.floating]
) -> NDArray[np.int64]:
    own = scores[np.searchsorted(union, items)]
    return items[np.argsort(-own, kind="stable")[:TOP]]


def _ndcg(case: _Case, ranked: NDArray[np.int64]) -> float:
    """Over all liked items, retrieved or not."""
    score = np.full(len(case.liked), -np.inf)
    score[ranked] = -np.arange(len(ranked))
    return ndcg(case.liked, score, TOP)


def _table(
    values: Mapping[str, Sequence[float]], reference: str, sign: float
) -> dict[str, dict[str, Any]]:
    """Means over users, and what each has more (or less) than the reference, paired."""
    return {
        name: {
            "value": asdict(mean_over_users(list(found))),
            "less": None
            if name == reference
            else asdict(_difference(found, values[reference], sign)),
        }
        for name, found in values.items()
    }


def _difference(one: Sequence[float], other: Sequence[float], sign: float) -> Estimate:
    return mean_over_users((sign * (np.array(one) - np.array(other))).tolist())
