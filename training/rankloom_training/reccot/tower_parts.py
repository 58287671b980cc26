"""Text encoder, towers and the newest vectors of reviews as parts of a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_features.review_ratings import ReviewRatings, ReviewRatingsError
from rankloom_features.review_vectors import (
    NewestReviews,
    ReviewOrigin,
    ReviewVectors,
    write_review_vectors,
)
from rankloom_training.data import DataError
from rankloom_training.data.reviews import Reviews
from rankloom_training.progress import Progress
from rankloom_training.reccot import encoder as text_encoder
from rankloom_training.reccot import tower_files
from rankloom_training.reccot.encode import MADE_FROM, open_vectors, towers_made_from
from rankloom_training.reccot.histories import MOST_REVIEWS
from rankloom_training.reccot.tower_rows import TowerRows

_AGAIN = "train them again with `rankloom reccot towers`"


@dataclass(frozen=True, slots=True)
class TrainedTowers:
    """``encoder``, ``towers``: the folders that `encode` and `towers` wrote. ``max_bytes``: of
    the encoder's store of vectors.
    """

    reviews: Reviews
    encoder: Path
    towers: Path
    max_bytes: int

    def bundle_parts(self, progress: Progress) -> dict[str, bytes]:
        """Raises DataError where encoder, towers and reviews are not of each other."""
        with progress.stage("vectors"):
            vectors = open_vectors(self.reviews, self.encoder, self.max_bytes, progress.step)
        program = _read(self.towers / tower_files.PROGRAM, "towers")
        self._check_made_from()
        encoder = _read(self.encoder / text_encoder.PROGRAM, "encode")
        origin = ReviewOrigin(_digest(encoder), _digest(program), vectors.shape[1], MOST_REVIEWS)
        return {
            parts.TEXT_ENCODER: encoder,
            parts.TEXT_TOKENIZER: _read(self.encoder / text_encoder.TOKENIZER, "encode"),
            parts.TEXT_SETTINGS: _read(self.encoder / text_encoder.SETTINGS, "encode"),
            parts.TOWERS: program,
            parts.REVIEW_VECTORS: self._vector_part(origin, program, vectors),
        }

    def _check_made_from(self) -> None:
        """Raises DataError: another encoder's vectors give ratings, and wrong ones."""
        report = self.towers / tower_files.REPORT
        try:
            found = json.loads(_read(report, "towers"))[MADE_FROM]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{report}: does not say what the towers learnt; {_AGAIN}") from error
        if found != towers_made_from(self.reviews, self.encoder):
            raise DataError(f"{self.towers}: of another encoder or other reviews; {_AGAIN}")

    def _vector_part(
        self, origin: ReviewOrigin, program: bytes, vectors: NDArray[np.float32]
    ) -> bytes:
        reviews, rows = self.reviews, TowerRows.of(self.reviews, vectors)
        item_ids = reviews.catalogue.item_ids
        users = newest_reviews(reviews, reviews.user, rows.user, vectors)
        items = newest_reviews(reviews, reviews.item, rows.item, vectors)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "review_vectors.sqlite"
            write_review_vectors(
                path,
                origin,
                ((reviews.user_ids[user], newest) for user, newest in users),
                ((item_ids[item], newest) for item, newest in items),
            )
            self._try_out(program, path, rows)
            return path.read_bytes()

    def _try_out(self, program: bytes, path: Path, rows: TowerRows) -> None:
        """Predicts for the last codes, which towers of fewer users or items do not know."""
        user = self.reviews.user_ids[self.reviews.user[rows.user.argmax()]]
        item = self.reviews.catalogue.items[self.reviews.item[rows.item.argmax()]].item_id
        try:
            vectors = ReviewVectors(path)
            ReviewRatings(program, vectors).predicted(vectors.of_user(user), [item])
        except ReviewRatingsError as error:
            raise DataError(f"{self.towers}: {error}") from error


def newest_reviews(
    reviews: Reviews,
    group: NDArray[np.int64],
    code: NDArray[np.int64],
    vectors: NDArray[np.float32],
) -> Iterator[tuple[int, NewestReviews]]:
    """Of each user, or item, with its index: the last reviews with a text."""
    order = np.argsort(group, kind="stable")  # rows stay in the order of time
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for own in np.split(order, starts[1:]):
        last = own[reviews.has_text[own]][-MOST_REVIEWS:]
        yield (
            int(group[own[0]]),
            NewestReviews(int(code[own[0]]), reviews.time[last], vectors[last]),
        )


def _read(path: Path, command: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; make it with `rankloom reccot {command}`"
        ) from error


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()
