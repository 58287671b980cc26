"""Every causal LM either works, or is refused with the cause: a sample of families.

`python -m benchmarks.bases` tries them all and writes docs/base-models.md.
"""

from __future__ import annotations

import pytest
from benchmarks.bases.exam import TOLERANCE, examine
from benchmarks.bases.families import config_of

WORK = (
    "afmoe",
    "cohere",
    "gemma3",
    "gemma4_text, no per-layer embeddings",
    "granite, multipliers",
    "jetmoe",
    "minicpm3",
    "phi3, longrope from 4096",
    "qwen2_moe, window",
    "smollm3",
)
REFUSED = {
    "bloom": "BloomAttention",
    "falcon": "FalconAttention",
    "gemma4": "token ids beside their vectors",
    "gemma3n": "token ids beside their vectors",
    "gpt2": "Conv1D",
    "gpt_bigcode, 2048 positions": "leave out tokens in its last layer",
    "gptj": "GPTJAttention",
    "llama, dynamic NTK from 512": "longest row",
    "mamba": "MambaMixer",
    "mpt": "MptAttention",
    "phi3, longrope from 512": "longest row",
}


@pytest.mark.parametrize("family", WORK)
def test_the_family_works(family: str) -> None:
    """New and cached prefixes, several rows, soft tokens, experts, decoding, past the window."""
    verdict = examine(family, config_of(family))
    assert verdict.cause is None
    assert verdict.error <= TOLERANCE


@pytest.mark.parametrize("family", REFUSED)
def test_the_family_is_refused_with_its_cause(family: str) -> None:
    verdict = examine(family, config_of(family))
    assert verdict.cause is not None
    assert REFUSED[family] in verdict.cause
