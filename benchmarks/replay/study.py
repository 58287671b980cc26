"""Compares rows as training computed them with what a server answers at their moment of the log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.live import LiveUpdates, live_updates
from benchmarks.replay.loud import with_random_expert
from benchmarks.replay.offline import OfflineLog, OfflineRows, RowFeatures, held_out_change
from benchmarks.replay.online import OnlineRows, replayed
from rankloom_features.user_model import USER_MODEL_COLUMNS
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import auc

NUM_SHOWN = 5  # columns that holding out changes most


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest absolute differences, relative to values above 1; infinite where NaN is on one
    side alone. ``evaluated``: of the score by which a bundle is evaluated, and the served one."""

    num_rows: int
    vector: float
    tabular: float
    user_model: float
    tree_logit: float
    evaluated: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What training rows have otherwise: their own user is in none of their statistics.

    ``share``: of the values that differ. ``tree_logit``: mean of |held out - served|. ``auc``: of
    the trees' logits over the rows, held out and served. ``columns``: mean differences in standard
    deviations of the column, the largest first.
    """

    share: float
    tree_logit: float
    auc: tuple[float, float]
    columns: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReplayStudy:
    """``train``, ``valid``: rows by training's way beside what was served; the stored files of
    validation rows are those of training itself. ``score``: of ``num_windows`` training rows whose
    window shows the served prompt; ``score_fewer``: mean of the others, whose window shows less.
    ``margin_std``: of the served margins, the score less the trees' logit.
    """

    train: Differences
    valid: Differences
    score: float
    num_windows: int
    score_fewer: float
    margin_std: float
    held_out: HeldOut
    live: LiveUpdates


async def run_replay_study(
    bundle: Path, work: Path, dataset: Dataset, num_rows: int, num_events: int
) -> ReplayStudy:
    """``work``: the stages that made ``bundle`` of ``dataset``, under P1 and seed 0.

    Scores are those of the bundle with a random expert, so that margins differ.
    """
    with tempfile.TemporaryDirectory() as name:
        return await _study(Path(name), bundle, work, dataset, num_rows, num_events)


async def _study(
    folder: Path, trained: Path, work: Path, dataset: Dataset, num_rows: int, num_events: int
) -> ReplayStudy:
    bundle = with_random_expert(trained, folder / "bundle")
    offline = OfflineLog(bundle, work, dataset, seed=0)
    train = offline.drawn(Split.TRAIN, num_rows, seed=0)
    valid = offline.drawn(Split.VALID, num_rows, seed=0)
    names = offline.loaded.provider.columns
    rows = np.concatenate([train.rows, valid.rows])
    online = await replayed(bundle, folder / "log.sqlite", dataset, rows)
    live = await live_updates(bundle, folder / "live.sqlite", num_events, seed=0)
    logits = offline.loaded.trees.logits(online.tabular)
    of_train, of_valid = slice(0, len(train.rows)), slice(len(train.rows), None)
    gap = np.abs(train.score - online.score[of_train])
    whole = train.is_whole
    return ReplayStudy(
        train=_differences(train.computed, train.evaluated, online, logits, of_train, names),
        valid=_differences(valid.stored, valid.evaluated, online, logits, of_valid, names),
        score=float(gap[whole].max()),
        num_windows=int(whole.sum()),
        score_fewer=float(gap[~whole].mean()) if (~whole).any() else 0.0,
        margin_std=float((online.score - logits).std()),
        held_out=_held_out(train, dataset, names),
        live=live,
    )


def _differences(
    offline: RowFeatures,
    evaluated: NDArray[np.floating],
    online: OnlineRows,
    logits: NDArray[np.float64],
    rows: slice,
    names: tuple[str, ...],
) -> Differences:
    modelled = np.isin(names, USER_MODEL_COLUMNS)
    columns = _gap(offline.tabular, online.tabular[rows])
    return Differences(
        num_rows=len(offline.vector),
        vector=float(_gap(offline.vector, online.vector[rows]).max()),
        tabular=float(columns[:, ~modelled].max()),
        user_model=float(columns[:, modelled].max()),
        tree_logit=float(_gap(offline.tree_logit, logits[rows]).max()),
        evaluated=float(_gap(evaluated, online.score[rows]).max()),
    )


def _gap(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    left, right = one.astype(np.float64), other.astype(np.float64)
    gap = np.nan_to_num(np.abs(left - right) / np.maximum(1.0, np.abs(left)))
    return np.where(np.isnan(left) != np.isnan(right), np.inf, gap)


def _held_out(train: OfflineRows, dataset: Dataset, names: tuple[str, ...]) -> HeldOut:
    label, gap = dataset.log.liked[train.rows], _gap(train.stored.tabular, train.computed.tabular)
    change = sorted(held_out_change(train, names).items(), key=lambda each: -each[1])
    logits = train.stored.tree_logit, train.computed.tree_logit
    return HeldOut(
        share=float((gap > 1e-5).mean()),
        tree_logit=float(np.abs(logits[0] - logits[1]).mean()),
        auc=(auc(label, logits[0]), auc(label, logits[1])),
        columns=dict(change[:NUM_SHOWN]),
    )
