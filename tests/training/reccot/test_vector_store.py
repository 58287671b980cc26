"""The store of vectors: what it keeps, what gives way, and what a killed process leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import DataError
from rankloom_training.reccot.vector_store import VectorKey, VectorStore

DIM = 4
SIZE = 32 + 4 * DIM  # bytes of a vector with its key


def keys_of(*numbers: int, encoder: str = "a") -> list[VectorKey]:
    return [VectorKey(f"u{n}", f"i{n}", encoder, f"t{n}") for n in numbers]


def vectors_of(*numbers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([[n] * DIM for n in numbers], dtype=np.float32)


def kept(store: VectorStore, *numbers: int) -> list[bool]:
    return [vector is not None for vector in store.get(keys_of(*numbers))]


def test_vectors_outlive_the_process(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v")
    store.put(keys_of(1, 2), vectors_of(1, 2))
    store.close()
    found = VectorStore(tmp_path / "v").get(keys_of(2, 1, 3))
    assert found[2] is None
    np.testing.assert_array_equal(np.stack([v for v in found if v is not None]), vectors_of(2, 1))


@pytest.mark.parametrize(
    "other",
    [
        VectorKey("u2", "i1", "a", "t1"),
        VectorKey("u1", "i2", "a", "t1"),
        VectorKey("u1", "i1", "b", "t1"),
        VectorKey("u1", "i1", "a", "t2"),
        VectorKey("u1i", "1", "a", "t1"),
    ],
)
def test_any_other_part_is_another_key(tmp_path: Path, other: VectorKey) -> None:
    store = VectorStore(tmp_path / "v")
    store.put(keys_of(1), vectors_of(1))
    assert store.get([other]) == [None]


def test_what_was_used_longest_ago_gives_way(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v", max_bytes=3 * SIZE)
    for number in range(3):
        store.put(keys_of(number), vectors_of(number))
    assert store.num_bytes == 3 * SIZE
    assert kept(store, 0) == [True]
    store.put(keys_of(3), vectors_of(3))
    assert store.num_bytes == 3 * SIZE
    assert kept(store, 0, 1, 2, 3) == [True, False, True, True]


@pytest.mark.parametrize("dim", [64, 384, 768])
def test_the_file_is_not_much_larger_than_the_bound(tmp_path: Path, dim: int) -> None:
    store = VectorStore(tmp_path / "v", max_bytes=2 << 20)
    for batch in range(30):
        keys = [VectorKey(f"u{batch}", f"i{number}", "e", "t") for number in range(100)]
        store.put(keys, np.ones((100, dim), np.float32))
    assert (tmp_path / "v").stat().st_size < 1.6 * (2 << 20)


def test_hits_are_counted(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v")
    assert np.isnan(store.hit_rate)
    store.put(keys_of(1), vectors_of(1))
    store.get(keys_of(1, 2, 3, 1))
    assert (store.hits, store.misses, store.hit_rate) == (2, 2, 0.5)


def test_a_killed_put_leaves_all_or_nothing(tmp_path: Path) -> None:
    """The process ends inside a transaction: only what was put before is there."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from rankloom_training.reccot.vector_store import VectorStore\n"
        "from training.reccot.test_vector_store import keys_of, vectors_of\n"
        f"store = VectorStore(Path({str(tmp_path / 'v')!r}))\n"
        "store.put(keys_of(1), vectors_of(1))\n"
        "store._evict = lambda: os._exit(9)\n"
        "store.put(keys_of(2, 3), vectors_of(2, 3))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 9
    assert kept(VectorStore(tmp_path / "v"), 1, 2, 3) == [True, False, False]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("no database" * 100)
    with pytest.raises(DataError, match="is not a store of vectors; move it away"):
        VectorStore(tmp_path / "v")
