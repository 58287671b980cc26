"""Small logs of reviews for tests, in memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.data.interactions import split_by_time
from rankloom_training.data.reviews import Reviews

NUM_USERS, NUM_ITEMS = 40, 30
_GOOD, _BAD = (
    ("superb plot", "lovely music", "great cast"),
    ("dull plot", "awful noise", "flat cast"),
)
LABELS = ("Heist", "Space")


def few_reviews(number: int = 300, seed: int = 0) -> Reviews:
    """Many rows share a time, so that before and at the same time differ. Ratings follow texts."""
    random = np.random.default_rng(seed)
    rating = random.choice([1.0, 2.0, 3.0, 4.0, 5.0], number, p=[0.1, 0.1, 0.1, 0.2, 0.5])
    time = np.sort(random.integers(0, number // 2, number)).astype(np.float64)
    items = tuple(
        Item(f"i{n}", f"Title {n}", attributes=(LABELS[n % 2],)) for n in range(NUM_ITEMS)
    )
    return Reviews(
        user=random.integers(0, NUM_USERS, number),
        item=random.integers(0, NUM_ITEMS, number),
        time=time,
        rating=rating,
        split=split_by_time(time),
        texts=tuple(_text(stars, random) for stars in rating),
        user_ids=tuple(f"u{n}" for n in range(NUM_USERS)),
        catalogue=Catalogue(items),
    )


def without_text(reviews: Reviews, row: int) -> Reviews:
    texts = list(reviews.texts)
    texts[row] = ""
    return dataclasses.replace(reviews, texts=tuple(texts))


def without_row(reviews: Reviews, row: int) -> Reviews:
    keep = np.arange(len(reviews)) != row
    columns = ("user", "item", "time", "rating", "split")
    changed = {name: getattr(reviews, name)[keep] for name in columns}
    texts = tuple(text for text, kept in zip(reviews.texts, keep, strict=True) if kept)
    return dataclasses.replace(reviews, texts=texts, **changed)


def _text(stars: float, random: np.random.Generator) -> str:
    words = [*random.choice(_GOOD, round(stars) - 1), *random.choice(_BAD, 5 - round(stars))]
    return f"{', '.join(words)}."
