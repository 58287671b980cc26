"""Towers on vectors of reviews with rationales, without them, and with other words instead."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.progress import Progress
from rankloom_training.reccot.alignment import AlignmentOptions
from rankloom_training.reccot.baselines import factor_predictions, mean_predictions
from rankloom_training.reccot.contrast import Contrast
from rankloom_training.reccot.encode import encoder_texts, train_encoder
from rankloom_training.reccot.encoder import TextEncoder
from rankloom_training.reccot.prompts import item_text
from rankloom_training.reccot.rationale_file import ReviewRationale
from rankloom_training.reccot.tower_rows import TowerRows, with_ratings
from rankloom_training.reccot.tower_training import TowerOptions, predict, train_towers

WITH, WITHOUT = "towers, with rationales", "towers, reviews alone"
LABELS = "towers, the items' labels in place of rationales"
UNWEIGHTED = "towers, rationales without frequency weight"
NO_MATCH = "towers, with rationales, no match loss"
FACTORS = "MF with biases"
Predictions = dict[str, list[NDArray[np.float64]]]


@dataclass(frozen=True, slots=True, eq=False)
class RationaleStudy:
    """``rationales``: name of the arm's file → one for each row."""

    reviews: Reviews
    rationales: Mapping[str, Sequence[ReviewRationale]]
    encoder: str | None
    epochs: int

    def predictions(self, num_seeds: int) -> Predictions:
        """Model → (test rows,) of each seed."""
        found: Predictions = {}
        for seed in range(num_seeds):
            for name, predicted in self._of_seed(seed):
                found.setdefault(name, []).append(predicted)
        return found

    def _of_seed(self, seed: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
        reviews, test = self.reviews, self.reviews.rows(Split.TEST)
        for name, texts in self._texts().items():
            rows = TowerRows.of(reviews, self._vectors(texts, seed))
            yield name, self._towers(rows, TowerOptions(seed=seed))
            if name == WITH:
                yield NO_MATCH, self._towers(rows, TowerOptions(seed=seed, match=Contrast.NONE))
                yield FACTORS, factor_predictions(reviews, rows, test, seed)
        yield from mean_predictions(reviews, test).items()

    def _texts(self) -> dict[str, list[str]]:
        reviews = self.reviews
        items = [item_text(reviews.catalogue.items[item]) for item in reviews.item]
        labelled = [
            f"{text}\nPerhaps: {item}" for text, item in zip(reviews.texts, items, strict=True)
        ]
        texts = {WITH: encoder_texts(reviews, self.rationales["rationales"])}
        texts |= {WITHOUT: encoder_texts(reviews, None), LABELS: labelled}
        if "unweighted" in self.rationales:
            texts[UNWEIGHTED] = encoder_texts(reviews, self.rationales["unweighted"])
        return texts

    def _vectors(self, texts: Sequence[str], seed: int) -> NDArray[np.float32]:
        options = dataclasses.replace(AlignmentOptions(), epochs=self.epochs, seed=seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train_encoder(self.reviews, texts, self.encoder, options, folder, Progress())
            return with_ratings(TextEncoder(folder).encode(texts), self.reviews.rating)

    def _towers(self, rows: TowerRows, options: TowerOptions) -> NDArray[np.float64]:
        model = train_towers(self.reviews, rows, options, lambda *_: None)
        return predict(model, rows, self.reviews.rows(Split.TEST))
