"""The stage of reviews: towers that rate without knowing who asks, and a column of the trees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankloom_training.data import DataError, Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.options import TrainOptions
from rankloom_training.reccot.encode import encoder_digest, open_vectors, texts_of
from rankloom_training.reccot.encoder import TextEncoder
from rankloom_training.reccot.rating_column import LoggedReviews, RatingColumn
from rankloom_training.reccot.tower_training import TowerOptions
from rankloom_training.stages.artefacts import ReviewsFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol

MAX_STORE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ReviewsStage(Stage):
    """Towers of the log's reviews, and the rating that they predict for every row."""

    protocol: Protocol
    review_encoder: str | None
    seed: int
    makes = ReviewsFiles
    code = (
        "rankloom_features.rated_reviews",
        "rankloom_features.review_vectors",
        "rankloom_training.folds",
        "rankloom_training.reccot",
        "rankloom_training.stages.rows",
    )

    @classmethod
    def is_asked(cls, options: TrainOptions) -> bool:
        return options.review_encoder is not None

    @property
    def options(self) -> dict[str, object]:
        """An encoder counts by what is in its folder."""
        made = super(ReviewsStage, self).options
        return {**made, "review_encoder": encoder_digest(self._encoder)}

    @property
    def _encoder(self) -> Path:
        return Path(self.review_encoder or "")

    def run(self, given: StageInputs) -> None:
        """Trains towers for all users, and without the users of each fold."""
        reviews, files = given.dataset.reviews, ReviewsFiles(given.folder)
        if reviews is None:
            raise DataError("the log was read without its reviews; give --review-encoder")
        vectors = open_vectors(reviews, self._encoder, MAX_STORE_BYTES, given.progress.step)
        logged = LoggedReviews.of(given.dataset, reviews)
        options = TowerOptions(seed=self.seed)
        step, checkpoint = given.progress.step, given.checkpoint
        column = RatingColumn(logged, vectors, options, step, checkpoint)
        rows = LogRows.of(given.dataset, self.protocol, self.seed)
        files.write_towers(*column.parts(encoder_digest(self._encoder)))
        files.write_rows(Split.VALID, column.served(rows.views(Split.VALID)))
        files.write_rows(Split.TRAIN, column.out_of_fold(rows.views(Split.TRAIN)))


def check_encoder(options: TrainOptions, reviews: Reviews | None) -> None:
    """Raises DataError if the folder has no text encoder, or rationales of other reviews."""
    if options.review_encoder is not None and reviews is not None:
        TextEncoder(Path(options.review_encoder))
        texts_of(reviews, Path(options.review_encoder))
