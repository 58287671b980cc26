"""Random cases to explain, from an invented catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.case import EventInfluence, TraceCase

WORDS = (
    *("Silent", "Crimson", "Broken", "Golden", "Hidden", "Paper", "Winter", "Glass", "Velvet"),
    *("Last", "Endless", "Distant", "Burning", "Quiet", "Second", "Hollow"),
)
NOUNS = (
    *("Harbor", "Orchard", "Signal", "Ledger", "Lantern", "Mirror", "Garden", "Comet", "River"),
    *("Frontier", "Verdict", "Cellar", "Parade", "Compass", "Station", "Promise"),
)
LABELS = ("Heist", "Space", "Western", "Satire", "Voyage")
CATALOGUE = Catalogue(
    Item(f"{one}-{two}", f"The {one} {two}", 1960 + at, (LABELS[at % 5], LABELS[(at // 9) % 5]))
    for one in WORDS
    for at, two in enumerate(NOUNS)
)


def random_case(seed: int, *, num_events: int = 20) -> TraceCase:
    """Events of the catalogue with influences of either sign; some have none."""
    random = np.random.default_rng(seed)
    picked = random.permutation(len(CATALOGUE))[: num_events + 1]
    *seen, candidate = (CATALOGUE.items[at] for at in picked)
    influences = random.normal(0.0, 0.3, num_events) * (random.random(num_events) < 0.8)
    liked = random.random(num_events) < random.choice([0.2, 0.5, 0.85])
    return case_of(seen, liked.tolist(), influences.tolist(), candidate, liked=seed % 2 == 0)


def case_of(
    items: Sequence[Item],
    opinions: Sequence[bool],
    influences: Sequence[float],
    candidate: Item,
    *,
    liked: bool,
) -> TraceCase:
    events = tuple(map(EventInfluence, items, opinions, influences))
    row = sum(map(ord, candidate.item_id)) + len(items)
    return TraceCase(row, events, candidate, liked, float(sum(influences)))
