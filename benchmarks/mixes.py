"""What the engine keeps of the mixtures that it has served: nothing, if memory stays flat."""

from __future__ import annotations

import torch
from measure import progress, rss_mib
from subject import Engine
from workload import Shape, Sizes, random_experts, random_model, random_users

SHAPE = Shape("tiny", 64, 2, 4, 2, 128, 512, tied=False)
SIZES = Sizes(prefix=8, candidates=2, tokens=3)
WARM_UP_MIXES, MIXES = 500, 10_000


def rss_growth_mib() -> float:
    """Growth of resident memory over MIXES different mixtures, after WARM_UP_MIXES others.

    Call it before anything large was freed in the process: a leak could hide there.
    """
    progress(f"memory over {MIXES} mixes")
    model = random_model(SHAPE, torch.bfloat16)
    engine = Engine(model, random_experts(model, 8))
    users = random_users(WARM_UP_MIXES + MIXES, SHAPE, SIZES)
    engine.margins(users[:WARM_UP_MIXES])
    before = rss_mib()
    for at in range(WARM_UP_MIXES, len(users), WARM_UP_MIXES):
        engine.margins(users[at : at + WARM_UP_MIXES])
    return rss_mib() - before
