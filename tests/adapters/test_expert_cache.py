"""Experts are cached by content within a budget; the least recently used goes first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_adapters.expert import Expert, ExpertError, Factors
from rankloom_adapters.expert_cache import ExpertCache

NUM_BYTES = 2 * 4 * 4  # an expert of rank 1 on a 4 × 4 layer


def expert(name: str, rank: int = 1) -> Expert:
    factors = Factors(np.zeros((rank, 4), np.float32), np.zeros((4, rank), np.float32))
    return Expert(name, "digest", rank, 1.0, {"module": factors})


class Reads:
    """Counts what is read."""

    def __init__(self, cache: ExpertCache) -> None:
        self.cache, self.names = cache, list[str]()

    def get(self, name: str, digest: str = "d", rank: int = 1) -> Expert:
        def read() -> Expert:
            self.names.append(name)
            return expert(name, rank)

        return self.cache.get(name, digest, read)


def test_what_was_read_is_not_read_again() -> None:
    reads = Reads(ExpertCache(10 * NUM_BYTES))
    assert reads.get("one") is reads.get("one")
    assert reads.names == ["one"]
    assert reads.cache.num_bytes == NUM_BYTES


def test_other_bytes_under_the_same_name_are_another_expert() -> None:
    reads = Reads(ExpertCache(10 * NUM_BYTES))
    assert reads.get("one", "first") is not reads.get("one", "second")
    assert reads.names == ["one", "one"]


def test_the_one_used_longest_ago_goes_first() -> None:
    reads = Reads(ExpertCache(2 * NUM_BYTES))
    for name in ("one", "two", "one", "three", "one", "two"):
        reads.get(name)
    assert reads.names == ["one", "two", "three", "two"]


def test_one_that_is_larger_than_all_room_lets_nothing_go() -> None:
    reads = Reads(ExpertCache(2 * NUM_BYTES))
    for name, rank in (("one", 1), ("huge", 3), ("one", 1), ("huge", 3)):
        reads.get(name, rank=rank)
    assert reads.names == ["one", "huge", "huge"]


def test_a_refused_expert_is_not_kept() -> None:
    cache = ExpertCache(10 * NUM_BYTES)

    def refuse() -> Expert:
        raise ExpertError("one", "not finite")

    for _ in range(2):
        with pytest.raises(ExpertError):
            cache.get("one", "d", refuse)
    assert cache.num_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 4)), max_size=60))
def test_never_more_than_its_room(asked: list[tuple[str, int]]) -> None:
    reads = Reads(ExpertCache(5 * NUM_BYTES))
    for name, rank in asked:
        assert reads.get(name, str(rank), rank).rank == rank
        assert reads.cache.num_bytes <= 5 * NUM_BYTES
    assert sum(each.num_bytes for each in reads.cache._kept.values()) == reads.cache.num_bytes


def test_threads_count_alike() -> None:
    reads = Reads(ExpertCache(3 * NUM_BYTES))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(reads.get, "abcdefgh" * 200))
    assert reads.cache.num_bytes == 3 * NUM_BYTES
    assert len(reads.cache._kept) == 3
