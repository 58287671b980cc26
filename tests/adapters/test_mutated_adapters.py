"""Adapters with bytes changed at random are refused, or as sound as the good one."""

from __future__ import annotations

import math
import random

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.adapter_files import RANK, AdapterFiles, joined_file
from rankloom_adapters.expert import ExpertError, parse_expert
from rankloom_adapters.header import HeaderError, read_header


def mutated(data: bytes, seed: int, count: int, *, last: int) -> bytes:
    """Overwrites, removes or inserts some of the first ``last`` bytes."""
    draw, changed = random.Random(seed), bytearray(data)
    for _ in range(count):
        index = draw.randrange(min(last, len(changed)))
        match draw.randrange(4):
            case 0:
                changed[index] = draw.randrange(256)
            case 1:
                changed[index] ^= 1 << draw.randrange(8)
            case 2:
                changed.insert(index, draw.choice(b'0123456789[]{}",:-.eE\x00'))
            case _:
                del changed[index]
    return bytes(changed)


counts = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)
shared_adapter = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@shared_adapter
@given(seed=seeds, count=counts, anywhere=st.booleans())
def test_mutated_weights_are_refused_or_sound(
    adapter: AdapterFiles, seed: int, count: int, anywhere: bool
) -> None:
    header = 8 + int.from_bytes(adapter.weights[:8], "little")
    last = len(adapter.weights) if anywhere else header
    weights = mutated(adapter.weights, seed, count, last=last)
    good = parse_expert("e", adapter.config, adapter.weights)
    try:
        expert = parse_expert("e", adapter.config, weights)
    except ExpertError:
        return
    shapes = {(pair.a.shape, pair.b.shape) for pair in good.modules.values()}
    assert {(pair.a.shape, pair.b.shape) for pair in expert.modules.values()} == shapes
    assert all(np.isfinite(p.a).all() and np.isfinite(p.b).all() for p in expert.modules.values())


@shared_adapter
@given(seed=seeds, count=counts)
def test_a_mutated_config_is_refused_or_sound(adapter: AdapterFiles, seed: int, count: int) -> None:
    config = mutated(adapter.config, seed, count, last=len(adapter.config))
    try:
        expert = parse_expert("e", config, adapter.weights)
    except ExpertError:
        return
    assert expert.rank == RANK
    assert math.isfinite(expert.scale)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_header_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    for text in (data, joined_file(data, b"")):
        try:
            header = read_header(text)
        except HeaderError:
            continue
        assert header.tensors
