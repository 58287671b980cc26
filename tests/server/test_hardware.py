"""A bundle answers alike on every device, in every number format, compiled or not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rankloom_engine.loading import Hardware
from rankloom_engine.model import DecodeInput, DecodeOutput, Decoder
from rankloom_server.app import servers
from rankloom_server.errors import StartError
from server.explanations import explain
from server.explanations import request as explain_request
from server.rankings import rank, ranking_channel, request
from server.served_parts import ServedParts, load_parts, ranking_server
from server.servers import settings

BF16_ERROR = 0.06  # of the scores' standard deviation
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
COMPILING = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
VARIANTS = [
    (Hardware(dtype="bfloat16"), BF16_ERROR),
    pytest.param(Hardware(compiled=True), 1e-3, marks=COMPILING),
    pytest.param(Hardware(dtype="bfloat16", compiled=True), BF16_ERROR, marks=COMPILING),
    *(
        pytest.param(Hardware("cuda", dtype, compiled=compiled), error, marks=ON_GPU)
        for dtype, error in (("float32", 1e-3), ("bfloat16", BF16_ERROR))
        for compiled in (False, True)
    ),
]


async def scores(parts: ServedParts) -> NDArray[np.float64]:
    """Of the same items of the same user, in the order of their names."""
    async with ranking_channel(parts) as channel:
        answer = await rank(channel, request(parts, 40))
        told = await explain(channel, explain_request(parts))
    assert told.final.generated_tokens > 0
    return np.array([item.score for item in sorted(answer.items, key=lambda item: item.item_id)])


@pytest.mark.parametrize(("hardware", "error"), VARIANTS)
async def test_scores_are_those_of_plain_arithmetic(
    parts: ServedParts, served_folder: Path, hardware: Hardware, error: float
) -> None:
    expected = await scores(parts)
    found = await scores(load_parts(served_folder, hardware))
    assert np.sqrt(np.square(found - expected).mean()) <= error * expected.std()


def test_angles_of_late_tokens_are_not_rounded(served_folder: Path) -> None:
    exact, short = (
        dict(load_parts(served_folder, Hardware(dtype=dtype)).decoder.model.named_buffers())
        for dtype in ("float32", "bfloat16")
    )
    angles = [name for name in exact if name.endswith("inv_freq")]
    assert angles
    for name in angles:
        assert short[name].dtype is torch.float32
        assert torch.equal(short[name], exact[name])


async def test_a_model_that_finds_no_words_is_found_before_it_serves(parts: ServedParts) -> None:
    class Speechless(Decoder):
        def decode(self, inputs: Sequence[DecodeInput]) -> list[DecodeOutput]:
            raise ArithmeticError

    decoder = cast("Decoder", Speechless.__new__(Speechless))
    decoder.__dict__.update(parts.decoder.__dict__)
    async with ranking_server(replace(parts, decoder=decoder)) as server:
        await server.start("127.0.0.1", 0)
        with pytest.raises(StartError, match="do not work together"):
            await server.open()


async def test_a_machine_that_cannot_compile_is_refused_in_one_line(
    served_folder: Path, no_compiler: None
) -> None:
    async with servers(settings(bundle=served_folder, compile=True)) as (server, _):
        await server.start("127.0.0.1", 0)
        with pytest.raises(StartError, match=r"compile: .* needs a C\+\+ compiler") as caught:
            await server.open()
    assert "\n" not in str(caught.value)
