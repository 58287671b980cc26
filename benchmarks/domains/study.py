"""Trains a bundle of two domains and adds a third, and scores the test rows of each domain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.router import Router
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_training.added_group import add_group
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.metrics import Estimate, auc, auc_difference
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.scoring import BundleScorer, PreparedRequest, requests_of
from rankloom_training.synthetic_domains import BOOKS, COLUMN, FILMS, GAMES, write_domains
from rankloom_training.train import TrainingJob
from rankloom_training.visibility import Protocol, scoring_view

ADDED_PASSES = 2  # of the others' epochs: base and global expert have read nothing of this domain
MIXED = "users of both"
MIXTURES = ("served", "fused", "single", "global", "no experts")


@dataclass(frozen=True, slots=True, eq=False)
class DomainScores:
    """Scores of test rows, (rows,) each. ``domain``: of the row's item, or MIXED."""

    domain: NDArray[np.str_]
    user: NDArray[np.int64]
    label: NDArray[np.bool_]
    scores: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class DomainTable:
    """AUC of each score over one domain's rows, and differences with paired intervals."""

    rows: int
    auc: Mapping[str, float]
    served_less_global: Estimate
    served_less_trees: Estimate


@dataclass(frozen=True, slots=True)
class DomainsStudy:
    """Tables by domain: of the first two, and of the third one when it was added.

    ``largest_change``: of a served score of the first two when the third was added.
    """

    two: Mapping[str, DomainTable]
    added: Mapping[str, DomainTable]
    largest_change: float


def run_domains_study(
    folder: Path, work: Path | None, num_users: int, options: TrainOptions, progress: Progress
) -> DomainsStudy:
    """Trains under ``folder``. ``work``: of finished stages. ``num_users``: of each domain."""
    write_domains(folder / "two", (FILMS, BOOKS), num_users)
    write_domains(folder / "third", (GAMES,), num_users)
    options = dataclasses.replace(options, group_by=COLUMN)
    TrainingJob.checked(folder / "two", folder / "bundle", options, work).run(progress)
    bundle = open_bundle(folder / "bundle")
    recipe = options.group_recipe
    longer = dataclasses.replace(recipe, epochs=ADDED_PASSES * recipe.epochs)
    options = dataclasses.replace(options, group_recipe=longer)
    add_group(bundle, GAMES.name, folder / "third", folder / "added", options, progress)
    two, added = load_dataset(folder / "two"), open_bundle(folder / "added")
    before, after = scores_of(bundle, two, MIXTURES), scores_of(added, two, ("served",))
    return DomainsStudy(
        tables_of(before),
        tables_of(scores_of(added, load_dataset(folder / "third"), MIXTURES)),
        float(np.abs(after.scores["served"] - before.scores["served"]).max()),
    )


def scores_of(bundle: Bundle, data: Dataset, mixtures: Sequence[str]) -> DomainScores:
    """Scores all test rows with each of the mixtures, by the code that a server runs."""
    scorer = BundleScorer(bundle)
    requests = requests_of(data, scoring_view(data.log, Protocol.P1, Split.TEST))
    prepared = [scorer.prepare(each.query(), each.rows) for each in requests]
    made = [_weights(scorer.loaded.router, each) for each in prepared]
    asked = {name: [MixtureWeights(each[name]) for each in made] for name in mixtures}
    margins = scorer.margins(prepared, asked, lambda num_scored, num_prompts: None)
    trees = np.concatenate([each.tree_logits for each in prepared])
    rows = np.concatenate([each.rows for each in prepared])
    scores = {name: trees + found for name, found in margins.items()} | {"trees": trees}
    return DomainScores(_domains(data, rows), data.log.user[rows], data.log.liked[rows], scores)


def tables_of(found: DomainScores) -> dict[str, DomainTable]:
    """One for each domain, and one for the users of both."""
    return {str(name): _table(found, found.domain == name) for name in np.unique(found.domain)}


def _table(found: DomainScores, rows: NDArray[np.bool_]) -> DomainTable:
    user, label = found.user[rows], found.label[rows]
    scores = {name: score[rows] for name, score in found.scores.items()}
    return DomainTable(
        int(rows.sum()),
        {name: auc(label, score) for name, score in scores.items()},
        auc_difference(user, label, scores["served"], scores["global"]),
        auc_difference(user, label, scores["served"], scores["trees"]),
    )


def _weights(router: Router, one: PreparedRequest) -> dict[str, NDArray[np.float32]]:
    """The router's mixture, and others in its place; a user without a group has the global one."""
    served, everyone = router.route(one.routing_vector), router.global_mixture()
    found = router.weights(one.routing_vector)
    fused = everyone.weights if found is None else np.append(found, 0.0).astype(np.float32)
    return {
        "served": served.weights,
        "fused": fused,
        "single": np.eye(len(fused), dtype=np.float32)[fused.argmax()],
        "global": everyone.weights,
        "no experts": np.zeros_like(fused),
    }


def _domains(data: Dataset, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    items, log = data.catalogue.items, data.log
    domain = np.array([items[item].item_id.partition("-")[0] for item in log.item])
    num = [len(set(own)) for own in np.split(domain, log.start[1:])]
    return np.where(np.array(num)[log.user[rows]] > 1, MIXED, domain[rows])
