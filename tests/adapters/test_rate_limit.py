"""All readers together stay within the rate."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_adapters.bundle import open_bundle, seal
from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.store import BundleStore


class LimiterClock:
    def __init__(self) -> None:
        self.now = 100.0
        self.longest = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.longest = max(self.longest, seconds)


def made(bytes_per_s: float) -> tuple[RateLimiter, LimiterClock]:
    clock = LimiterClock()
    return RateLimiter(bytes_per_s, clock=clock, sleep=clock.sleep), clock


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.0, 5.0)), min_size=1, max_size=30),
    st.floats(1.0, 1e6),
)
def test_never_faster(steps: list[tuple[int, float]], bytes_per_s: float) -> None:
    limiter, clock = made(bytes_per_s)
    began, idle_s = clock.now, 0.0
    for num_bytes, pause_s in steps:
        clock.now += pause_s
        idle_s += pause_s
        limiter.wait(num_bytes)
    needed_s = sum(num for num, _ in steps) / bytes_per_s
    assert needed_s * 0.999 <= clock.now - began <= (needed_s + idle_s) * 1.001 + 1e-6


def test_what_was_not_read_is_not_saved_up() -> None:
    limiter, clock = made(100.0)
    clock.now += 1000.0
    limiter.wait(100)
    assert clock.now == pytest.approx(1101.0)


def test_a_store_reads_at_its_pace(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "part").write_bytes(b"x" * 1000)
    seal(tmp_path / "source", {})
    limiter, clock = made(100.0)
    digest = BundleStore(tmp_path / "store", limiter).put(tmp_path / "source")
    assert clock.now == pytest.approx(110.0)
    open_bundle(tmp_path / "store" / digest, limiter).read("part")
    assert clock.now == pytest.approx(120.0)


def test_no_pace_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="a number above 0"):
        RateLimiter(0.0)


def test_a_large_part_is_read_evenly_and_never_whole(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "part").write_bytes(b"x" * (32 << 20))
    seal(tmp_path / "source", {})
    limiter, clock = made(1 << 20)
    store = BundleStore(tmp_path / "store", limiter)
    tracemalloc.start()
    try:
        store.check(store.put(tmp_path / "source"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert clock.now == pytest.approx(164.0, abs=0.1)
    assert clock.longest <= 1.1
    assert most < 8 << 20
