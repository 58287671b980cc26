"""What towers predict from the log's reviews, as a column of the trees.

The towers do not know who asks: a user is what they wrote, so that a history that a caller gives
is rated as a stored one is. Only training rows' reviews are read, as the items' statistics are
made of training rows. A training row is rated by towers that were trained on no row of its user.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_features.rated_reviews import event_key, write_rated_reviews
from rankloom_features.review_vectors import ReviewOrigin
from rankloom_training.checkpoints import NO_CHECKPOINT, Checkpoint
from rankloom_training.data import Dataset, Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.folds import NUM_FOLDS, user_folds
from rankloom_training.reccot.factors import RatingFactors, fit_factors
from rankloom_training.reccot.histories import (
    MOST_REVIEWS,
    NOTHING,
    ReviewHistories,
    last_reviews,
)
from rankloom_training.reccot.tower_files import towers_program
from rankloom_training.reccot.tower_parts import newest_reviews
from rankloom_training.reccot.tower_rows import TowerRows
from rankloom_training.reccot.tower_training import (
    TowerOptions,
    train_towers,
    unbounded,
    untrained_towers,
)
from rankloom_training.reccot.towers import TwoTowers
from rankloom_training.visibility import View

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class LoggedReviews:
    """Reviews beside the rows of a log.

    ``reviews``: with the log's own splits, and with the texts of training rows alone. ``of_row``:
    (log rows,) the review of each row; NOTHING where it has none. ``liked``: (reviews,).
    """

    data: Dataset
    reviews: Reviews
    of_row: NDArray[np.int64]
    liked: NDArray[np.bool_]

    @classmethod
    def of(cls, data: Dataset, reviews: Reviews) -> LoggedReviews:
        """``reviews``: of the folder that the log was read from."""
        of_row = _review_of_row(data, reviews)
        rows = np.flatnonzero(of_row != NOTHING)
        split = np.full(len(reviews), Split.TEST, np.int8)
        split[of_row[rows]] = data.log.split[rows]
        liked = np.zeros(len(reviews), np.bool_)
        liked[of_row[rows]] = data.log.liked[rows]
        known = (split == Split.TRAIN).tolist()
        texts = tuple(text if own else "" for text, own in zip(reviews.texts, known, strict=True))
        return cls(data, replace(reviews, split=split, texts=texts), of_row, liked)

    @property
    def spoken(self) -> NDArray[np.int64]:
        """(n,) the training reviews that have a text."""
        return np.flatnonzero(self.reviews.has_text)

    @cached_property
    def alike(self) -> NDArray[np.int64]:
        """(n,) a number of each spoken review's event: equal for events of one item, time and
        label, which are one event where nobody says whose they are.
        """
        spoken, reviews = self.spoken, self.reviews
        times = np.round(reviews.time[spoken] * 1000).astype(np.int64)
        events = np.stack([reviews.item[spoken], times, self.liked[spoken]], axis=1)
        return np.unique(events, axis=0, return_inverse=True)[1].reshape(-1)

    def user_reviews(self, view: View) -> NDArray[np.int64]:
        """(view's rows, MOST_REVIEWS) the last reviews among the events that each row may see."""
        log = self.data.log
        histories, of_visible = view.histories(log), self.of_row[view.visible(log)]
        at_visible = np.flatnonzero(np.isin(of_visible, self.spoken))
        last = np.searchsorted(at_visible, histories.end)[:, None] + np.arange(-MOST_REVIEWS, 0)
        first = np.searchsorted(at_visible, histories.first)[:, None]
        own = np.append(of_visible[at_visible], NOTHING)
        return np.where(last >= first, own[np.maximum(last, 0)], NOTHING)

    def is_known(self, view: View) -> NDArray[np.bool_]:
        """(view's rows,) whether the row's item is among the events that it may see."""
        log = self.data.log
        pair = log.user * len(self.data.catalogue) + log.item
        pairs, first = np.unique(pair[view.visible(log)], return_index=True)
        at = np.minimum(np.searchsorted(pairs, pair[view.rows]), len(pairs) - 1)
        before = first[at] < view.histories(log).end
        return np.asarray((pairs[at] == pair[view.rows]) & before)


def _review_of_row(data: Dataset, reviews: Reviews) -> NDArray[np.int64]:
    """(log rows,) by user, item and time; the last of several."""
    log = data.log
    codes = {name: code for code, name in enumerate(log.user_ids)}
    users = np.array([codes.get(name, NOTHING) for name in reviews.user_ids])
    items = np.array([data.catalogue.index(each.item_id) for each in reviews.catalogue.items])
    pairs = [log.user, log.item, log.time.view(np.int64)]
    others = [users[reviews.user], items[reviews.item], reviews.time.view(np.int64)]
    keys = np.concatenate([np.stack(pairs, axis=1), np.stack(others, axis=1)])
    code = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    found = np.full(int(code.max(initial=-1)) + 1, NOTHING)
    found[code[len(log) :]] = np.arange(len(reviews))
    return found[code[: len(log)]]


class RatingColumn:
    """Trains the towers, and rates rows of the log as the trees will see them."""

    def __init__(
        self,
        logged: LoggedReviews,
        vectors: NDArray[np.float32],
        options: TowerOptions,
        on_step: OnStep,
        checkpoint: Callable[[str], Checkpoint] = lambda _: NO_CHECKPOINT,
    ) -> None:
        """``vectors``: (reviews, dim) what towers read of each. ``checkpoint``: of towers, by name;
        those of a killed run are not trained again.
        """
        self._logged, self._options, self._on_step = logged, options, on_step
        self._num_trained, self._checkpoint = 0, checkpoint
        self._fold = user_folds(logged.data.log.num_users, options.seed)
        self._named = TowerRows.of(logged.reviews, _shared(logged, vectors))
        self._rows = _without_users(logged.reviews, self._named)
        self._model = self._trained("served", logged.reviews)

    def parts(self, encoder: str) -> tuple[bytes, bytes]:
        """The towers' program, and the file of reviews that they read. ``encoder``: its digest.

        Raises ExportError.
        """
        program, reviews = towers_program(self._model, self._rows), self._logged.reviews
        dim, vectors = self._rows.vectors.shape[1], self._rows.vectors
        origin = ReviewOrigin(encoder, sha256(program).hexdigest(), dim, MOST_REVIEWS)
        items = newest_reviews(reviews, reviews.item, self._rows.item, vectors)
        named = ((reviews.catalogue.items[item].item_id, newest) for item, newest in items)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rated_reviews.sqlite"
            write_rated_reviews(path, origin, self._events(), named)
            return program, path.read_bytes()

    def served(self, views: Sequence[View]) -> NDArray[np.float32]:
        """(rows,) as a server would rate them."""
        return np.concatenate([self._rated(self._model, view) for view in views])

    def out_of_fold(self, views: Sequence[View]) -> NDArray[np.float32]:
        """(rows,) each by towers that were trained on no row of its user."""
        found = [np.full(len(view.rows), np.nan, np.float32) for view in views]
        for fold in range(NUM_FOLDS):
            model = self._trained(f"fold-{fold}", self._without(fold))
            for view, rating in zip(views, found, strict=True):
                own = self._fold[self._logged.data.log.user[view.rows]] == fold
                rating[own] = self._rated(model, view.only(own))
        return np.concatenate(found)

    def _events(self) -> list[tuple[bytes, NDArray[np.float32]]]:
        """Key and vector of each event that has a review."""
        reviews, logged = self._logged.reviews, self._logged
        rows = logged.spoken[np.unique(logged.alike, return_index=True)[1]]
        return [
            (
                event_key(
                    reviews.catalogue.items[reviews.item[row]].item_id,
                    float(reviews.time[row]),
                    liked=bool(logged.liked[row]),
                ),
                self._rows.vectors[row],
            )
            for row in rows.tolist()
        ]

    def _without(self, fold: int) -> Reviews:
        """The reviews, of which those of the fold's users are not trained on."""
        log, of_row = self._logged.data.log, self._logged.of_row
        rows = (self._fold[log.user] == fold) & (log.split == Split.TRAIN) & (of_row != NOTHING)
        split = self._logged.reviews.split.copy()
        split[of_row[rows]] = Split.TEST
        return replace(self._logged.reviews, split=split)

    def _trained(self, name: str, reviews: Reviews) -> TwoTowers:
        def on_epoch(epoch: int, epochs: int) -> None:
            done = self._num_trained * epochs + epoch
            self._on_step(done, (NUM_FOLDS + 1) * epochs)

        checkpoint = self._checkpoint(name)
        if (kept := checkpoint.load()) is not None:
            model = untrained_towers(self._rows, self._options)
            model.load_state_dict(kept["towers"])
        else:
            factors = self._factors(reviews)
            model = train_towers(reviews, self._rows, self._options, on_epoch, factors)
            checkpoint.save(lambda: {"towers": model.state_dict()})
        self._num_trained += 1
        return model

    def _factors(self, reviews: Reviews) -> RatingFactors:
        """Of items as their raters tell them apart, and of a user who may be anyone.

        Without what raters say of items, towers that know no user learn little but their means.
        """
        options, trained = self._options, reviews.rows(Split.TRAIN)
        found = fit_factors(reviews, self._named, options.hidden, options.seed)
        return found.for_anyone(np.unique(self._named.user[trained]))

    def _rated(self, model: TwoTowers, view: View) -> NDArray[np.float32]:
        """(view's rows,) NaN for an item that the user knows, and for a row without a review."""
        found = np.full(len(view.rows), np.nan, np.float32)
        review = self._logged.of_row[view.rows]
        asked = (review != NOTHING) & ~self._logged.is_known(view)
        seen = np.full_like(self._rows.histories.user, NOTHING)
        seen[review[asked]] = self._logged.user_reviews(view)[asked]
        rows = replace(self._rows, histories=ReviewHistories(seen, self._rows.histories.item))
        found[asked] = unbounded(model, rows, review[asked])
        return found


def _shared(logged: LoggedReviews, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors, where reviews of events that are alike have their mean."""
    spoken, alike = logged.spoken, logged.alike
    total = np.zeros((int(alike.max(initial=-1)) + 1, vectors.shape[1]), np.float64)
    np.add.at(total, alike, vectors[spoken])
    found = vectors.copy()
    found[spoken] = (total / np.bincount(alike)[:, None])[alike]
    return found


def _without_users(reviews: Reviews, named: TowerRows) -> TowerRows:
    """Users have no code. Rows that are not trained on see all reviews of their item."""
    asked = np.where(reviews.split == Split.TRAIN, reviews.time, np.inf)
    histories = ReviewHistories(named.histories.user, last_reviews(reviews, reviews.item, asked))
    return replace(named, user=np.zeros_like(named.user), histories=histories)
