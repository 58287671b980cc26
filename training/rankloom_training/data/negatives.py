"""Sampled negatives for a log of likes alone: items that a user did not like, drawn by chance.

A negative stands before its like, in the same split, and no row sees it. So both are scored from
the same history: the user's earlier likes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.errors import DataError
from rankloom_training.data.interactions import Interactions, Split

WEIGHTS = ("uniform", "popularity")
MAX_NEGATIVES = 100  # for each like
_STREAM = 1  # other draws of the same seed are independent of these
POPULARITY_POWER = 0.75  # word2vec's (Mikolov et al., NIPS 2013, section 2.2)
_MAX_DRAWS = 20  # until an item is none of the user's likes; most are at once


@dataclass(frozen=True, slots=True)
class NegativeSampling:
    """``per_like``: how many negatives each like gets. ``by``: one of WEIGHTS.

    Raises ValueError, which says what to write instead.
    """

    per_like: int
    by: str = WEIGHTS[0]

    def __post_init__(self) -> None:
        if not 1 <= self.per_like <= MAX_NEGATIVES:
            raise ValueError(f"{self.per_like} negatives: take 1 to {MAX_NEGATIVES} for each like")
        if self.by not in WEIGHTS:
            raise ValueError(f"by {self.by}: use {' or '.join(WEIGHTS)}")

    @classmethod
    def of_text(cls, text: str) -> NegativeSampling:
        """``N`` or ``N:BY``."""
        number, _, by = text.partition(":")
        if not number.isdecimal():
            raise ValueError(f"{text}: write N or N:BY, such as 4 or 4:popularity")
        return cls(int(number), by or WEIGHTS[0])

    @classmethod
    def of_json(cls, given: object) -> NegativeSampling:
        """What ``to_json`` returns; ``by`` may be missing."""
        match given:
            case {"negatives": int(number), **others} if not isinstance(
                number, bool
            ) and others.keys() <= {"by"}:
                return cls(number, str(others.get("by", WEIGHTS[0])))
        raise ValueError('write {"negatives": N}, and "by": "popularity" beside it if you like')

    def to_json(self) -> dict[str, object]:
        return {"negatives": self.per_like, "by": self.by}

    def __str__(self) -> str:
        how = "uniformly from all items" if self.by == WEIGHTS[0] else "by popularity^0.75"
        return f"{self.per_like} for each like, drawn {how}"


class Negatives:
    """Draws negatives for a log of likes: the same for the same seed and epoch.

    A negative of a row is none of the user's likes up to the end of the row's split; later likes
    are not known when the row is used. Popularity is that of the training rows, plus one.

    ``offset``: (items,) what sampling adds to the log-odds of a like, compared with drawing all
    items alike: -log(q n) for probability q and n items. A model of the likes against these
    negatives ranks all items by its logit less the offset (logQ correction: Yi et al., RecSys
    2019, equation 3; Bengio and Senécal, 2008).
    """

    def __init__(
        self, likes: Interactions, num_items: int, sampling: NegativeSampling, seed: int
    ) -> None:
        """Raises DataError if a split has no item to draw."""
        self._likes, self._num_items, self._seed = likes, num_items, seed
        weights = _weights(likes, num_items, sampling.by)
        self._up_to = np.cumsum(weights) / weights.sum()
        self.offset = -np.log(weights / weights.mean())
        self._liked = [_pairs(likes, num_items, likes.split <= split) for split in Split]
        self._of = np.repeat(np.arange(len(likes)), sampling.per_like)  # the like of each negative
        self._first, self._kept = self._draw(0)
        self._refuse_none()

    def log(self) -> Interactions:
        """The likes, each after its negatives."""
        like = np.concatenate([np.arange(len(self._likes)), self._of[self._kept]])
        negative = np.arange(len(like)) >= len(self._likes)
        order = np.lexsort((~negative, like))
        row, log = like[order], self._likes
        item = np.concatenate([log.item, self._first[self._kept]])[order]
        start = np.searchsorted(log.user[row], np.arange(log.num_users)).astype(np.int64)
        return dataclasses.replace(
            log,
            user=log.user[row],
            item=item,
            liked=~negative[order],
            time=log.time[row],
            split=log.split[row],
            start=start,
            sampled=True,
        )

    def items(self, log: Interactions, epoch: int) -> NDArray[np.int64]:
        """(rows,) the items of ``log()`` with negatives of another epoch; that log has epoch 0."""
        drawn, found = self._draw(epoch)
        items = log.item.copy()
        items[~log.liked] = np.where(found, drawn, self._first)[self._kept]
        return items

    def _draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Items for each like, and which of them are negatives: a user may have liked all."""
        random = np.random.default_rng((self._seed, epoch, _STREAM))
        drawn = np.zeros(len(self._of), np.int64)
        wrong = np.ones(len(self._of), np.bool_)
        for _ in range(_MAX_DRAWS):
            drawn[wrong] = self._random_items(random, int(wrong.sum()))
            wrong = self._are_likes(drawn) | self._are_repeats(drawn)
            if not wrong.any():
                break
        return drawn, ~wrong

    def _random_items(self, random: np.random.Generator, num: int) -> NDArray[np.int64]:
        """(num,) items, each with the probability of its weight."""
        return np.searchsorted(self._up_to, random.random(num), side="right").astype(np.int64)

    def _are_likes(self, drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
        pair = self._likes.user[self._of] * self._num_items + drawn
        split, found = self._likes.split[self._of], np.zeros(len(drawn), np.bool_)
        for known in Split:
            found |= (split == known) & _are_in(pair, self._liked[known])
        return found

    def _are_repeats(self, drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the same like has the same negative already."""
        pair = self._of * self._num_items + drawn
        repeats = np.ones(len(pair), np.bool_)
        repeats[np.unique(pair, return_index=True)[1]] = False
        return repeats

    def _refuse_none(self) -> None:
        splits = self._likes.split[self._of[self._kept]]
        for split in Split:
            if not (splits == split).any():
                raise DataError(
                    f"no negatives for the {split.name.lower()} split: its users like every item "
                    f"that could be drawn; add the other items to the item table"
                )


def _weights(likes: Interactions, num_items: int, by: str) -> NDArray[np.float64]:
    """(items,) in proportion to the probability that a draw is the item."""
    counts = np.bincount(likes.item[likes.split == Split.TRAIN], minlength=num_items)
    power = POPULARITY_POWER if by == "popularity" else 0.0
    return np.asarray((counts + 1.0) ** power, dtype=np.float64)


def _pairs(likes: Interactions, num_items: int, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One number for each user and item, ascending."""
    return np.unique(likes.user[rows] * num_items + likes.item[rows])


def _are_in(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)
