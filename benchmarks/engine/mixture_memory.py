"""Memory that the engine keeps for mixtures it has served: flat, if it keeps none."""

from __future__ import annotations

import torch

from benchmarks.common.timing import progress, rss_mib
from benchmarks.common.workload import (
    ModelShape,
    PromptSizes,
    random_experts,
    random_model,
    random_users,
)
from benchmarks.engine.rankloom_engine import RankloomEngine

SHAPE = ModelShape("tiny", 64, 2, 4, 2, 128, 512, tied=False)
SIZES = PromptSizes(prefix=8, candidates=2, tokens=3)
MIXTURES_PER_CALL = 500


def rss_growth_mib(num_mixtures: int, dtype: torch.dtype) -> float:
    """Growth of resident memory over so many mixtures, all different, after a first call.

    Run it before the process frees anything large: a leak could hide there.
    """
    progress(f"memory over {num_mixtures} mixtures")
    model = random_model(SHAPE, dtype)
    engine = RankloomEngine(model, random_experts(model, 8))
    users = random_users(MIXTURES_PER_CALL + num_mixtures, SHAPE, SIZES)
    engine.margins(users[:MIXTURES_PER_CALL])
    before = rss_mib()
    for at in range(MIXTURES_PER_CALL, len(users), MIXTURES_PER_CALL):
        engine.margins(users[at : at + MIXTURES_PER_CALL])
    return rss_mib() - before
