"""Class-balanced samples of traces, as ReasoningRec trains on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankloom_training.reasons.trace import Trace


def balanced(traces: Sequence[Trace], num: int, seed: int) -> list[Trace]:
    """Up to ``num`` sound traces, as many with Yes as with No, drawn at random; by row.

    Training on them shifts the share of likes: calibrate afterwards.
    """
    order = np.random.default_rng(seed).permutation(len(traces))
    mixed = [traces[at] for at in order if traces[at].problem is None]
    sides = [[each for each in mixed if each.verdict is verdict] for verdict in (True, False)]
    size = min(num // 2, *map(len, sides))
    return sorted((each for side in sides for each in side[:size]), key=lambda each: each.row)
