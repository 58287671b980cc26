"""Cached prefixes stay within the byte budget."""

from __future__ import annotations

import time
from math import inf

import torch
from hypothesis import given
from hypothesis import strategies as st

from rankloom_engine.attention import PrefixKV
from rankloom_engine.prefix_cache import PrefixCache

BYTES_PER_TOKEN = 2 * 4 * 2  # keys and values of one layer, one head of size 4, bf16


def cached(num_tokens: int) -> PrefixKV:
    tensors = (torch.zeros(1, 1, num_tokens, 4, dtype=torch.bfloat16),)
    return PrefixKV(tensors, tensors)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 30)), max_size=60))
def test_the_budget_holds_and_the_latest_prefixes_stay(calls: list[tuple[int, int]]) -> None:
    cache = PrefixCache(max_bytes=40 * BYTES_PER_TOKEN)
    kept: dict[bytes, int] = {}  # the least recently used first
    for name, num_tokens in calls:
        key = bytes([name])
        assert (cache.get(key) is not None) == (key in kept)
        if key in kept:
            kept[key] = kept.pop(key)
            continue
        cache.put(key, cached(num_tokens), inf)
        kept[key] = num_tokens
        while sum(kept.values()) > 40:
            del kept[next(iter(kept))]
        assert cache.num_bytes == sum(kept.values()) * BYTES_PER_TOKEN <= cache.max_bytes
        assert len(cache) == len(kept)
    assert cache.num_hits + cache.num_misses == len(calls)


def test_a_prefix_larger_than_the_budget_is_not_cached() -> None:
    cache = PrefixCache(max_bytes=10 * BYTES_PER_TOKEN)
    cache.put(b"small", cached(4), inf)
    cache.put(b"large", cached(11), inf)
    assert cache.get(b"large") is None
    assert cache.get(b"small") is not None


def test_a_call_that_began_before_the_cache_was_cleared_adds_nothing() -> None:
    cache, before = PrefixCache(max_bytes=10 * BYTES_PER_TOKEN), time.monotonic()
    cache.clear()
    cache.put(b"old", cached(4), before)
    assert not len(cache)
    cache.put(b"new", cached(4), time.monotonic())
    assert cache.get(b"new") is not None
