"""Every bad folder is refused as an expert, within a short time and little memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.numpy

from adapters.adapter_files import PREFIX
from adapters.bad_adapters import BAD, MAX_BYTES, NAN, make_bad
from adapters.drafts import BASE, SHAPES, good_draft, numbers
from rankloom_adapters.expert import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Expert,
    ExpertError,
    check_base,
    check_shapes,
)
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES, read_expert
from rankloom_adapters.lora_config import MAX_RANK

NUM_FILES = 2000
CPU_S, CPU_OF_LARGEST_S = 0.1, 1.0
KINDS = list(BAD)
# Bytes that reading /proc/self/io itself adds, and one byte per file to find its end.
SLACK_BYTES = 256


@dataclass(frozen=True)
class LoadOutcome:
    """The outcome for one folder; None if it was accepted."""

    error: BaseException | None
    cpu_s: float
    num_read: int


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for")

    for name in ("socket", "create_connection", "getaddrinfo", "socketpair"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap() -> Iterator[None]:
    """Keeps garbage of other modules out of the measured times."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def admitted(folder: Path) -> Expert:
    """An expert of the base of these tests."""
    expert = read_expert("mine", folder).expert
    check_shapes(expert, SHAPES)
    check_base(expert, BASE)
    return expert


def attempt(folder: Path) -> LoadOutcome:
    error: BaseException | None = None
    read, started = bytes_read(), time.process_time()
    try:
        admitted(folder)
    except BaseException as caught:  # a panic of native code is not an Exception
        error = caught
    return LoadOutcome(error, time.process_time() - started, bytes_read() - read)


def bytes_read() -> int:
    """Bytes that this process has read so far."""
    return int(Path("/proc/self/io").read_bytes().split()[1])


def bytes_allowed(folder: Path) -> int:
    """Sizes of the files that are not too large."""
    sizes = ((folder / name).lstat().st_size for name in MAX_BYTES if (folder / name).is_file())
    limits = [MAX_BYTES[name] for name in MAX_BYTES if (folder / name).is_file()]
    return sum(size for size, limit in zip(sizes, limits, strict=True) if size <= limit)


def test_there_are_enough_classes() -> None:
    assert len(BAD) >= 30


def test_what_no_harm_is_done_to_is_admitted(tmp_path: Path) -> None:
    for seed in range(200):
        good_draft(Random(seed)).write(tmp_path / str(seed))
        expert = admitted(tmp_path / str(seed))
        assert expert.modules.keys() == SHAPES.keys()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_says_what_is_wrong(kind: str, seed: int, tmp_path: Path) -> None:
    make_bad(tmp_path / "mine", kind, seed)
    with pytest.raises(ExpertError, match=BAD[kind].says) as caught:
        admitted(tmp_path / "mine")
    assert caught.value.expert == "mine"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_none_of_two_thousand_is_taken_for_an_expert(tmp_path: Path) -> None:
    attempt(tmp_path)  # late imports do not count
    num_open = len(os.listdir("/proc/self/fd"))
    found: dict[str, list[tuple[str, int]]] = {"accepted": [], "crashed": [], "slow": []}
    found |= {"unclear": [], "read beyond its size": []}
    for seed, kind in islice(product(range(NUM_FILES), KINDS), NUM_FILES):
        folder = tmp_path / "mine"
        make_bad(folder, kind, seed)
        allowed = bytes_allowed(folder)
        outcome = attempt(folder)
        if outcome.num_read > allowed + SLACK_BYTES:
            # Other threads of the test runner read too, but hardly at the same file again.
            outcome = attempt(folder)
        shutil.rmtree(folder)
        for fault in faults(outcome, kind, allowed):
            found[fault].append((kind, seed))
    assert not any(found.values()), found
    assert len(os.listdir("/proc/self/fd")) == num_open


def faults(outcome: LoadOutcome, kind: str, allowed: int) -> list[str]:
    matches = pytest.RaisesExc(ExpertError, match=BAD[kind].says).matches(outcome.error)
    judged = {
        "accepted": outcome.error is None,
        "crashed": not isinstance(outcome.error, ExpertError | None),
        "slow": outcome.cpu_s > CPU_S,
        "unclear": not matches,
        "read beyond its size": outcome.num_read > allowed + SLACK_BYTES,
    }
    return [name for name, is_so in judged.items() if is_so]


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_terabyte_is_not_read(file: str, tmp_path: Path) -> None:
    good_draft(Random(0)).write(tmp_path / "mine")
    os.truncate(tmp_path / "mine" / file, 1 << 40)
    outcome = attempt(tmp_path / "mine")
    assert isinstance(outcome.error, ExpertError)
    assert outcome.num_read <= bytes_allowed(tmp_path / "mine") + SLACK_BYTES
    assert outcome.cpu_s <= CPU_S


@pytest.mark.parametrize("dtype", list(NAN))
def test_the_largest_that_is_bad_at_its_end_is_refused_within_a_second(
    dtype: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_largest(folder, dtype)
    outcome = attempt(folder)
    # Most of it is the kernel mapping pages, which is slower when memory is short.
    fastest = min([outcome.cpu_s, *(attempt(folder).cpu_s for _ in range(2))])
    (folder / WEIGHTS_FILE).unlink()
    assert str(outcome.error) == "expert mine: q: a weight is NaN or infinite"
    assert fastest <= CPU_OF_LARGEST_S
    assert MAX_WEIGHTS_BYTES <= outcome.num_read <= MAX_WEIGHTS_BYTES + (1 << 10)


def write_largest(folder: Path, dtype: str) -> None:
    """A file of the largest legal size: a hole of zeros, and NaN at the end."""
    config = {"peft_type": "LORA", "r": MAX_RANK, "lora_alpha": 1, "target_modules": ["q"]}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    size = len(NAN[dtype])
    columns = (MAX_WEIGHTS_BYTES - 4096) // (2 * MAX_RANK * size)
    half = columns * MAX_RANK * size
    entries = {}
    for begin, side, shape in ((0, "A", [MAX_RANK, columns]), (half, "B", [columns, MAX_RANK])):
        fields = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + half]}
        entries[f"{PREFIX}q.lora_{side}.weight"] = fields
    header = json.dumps(entries).encode().ljust(MAX_WEIGHTS_BYTES - 2 * half - 8)
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(MAX_WEIGHTS_BYTES - size)
        file.write(NAN[dtype])


@pytest.mark.parametrize("seed", range(30))
def test_what_is_admitted_is_what_the_library_reads(seed: int, tmp_path: Path) -> None:
    draft = good_draft(Random(seed))
    for one in draft.tensors:
        one.dtype = "F32" if one.dtype == "BF16" else one.dtype  # numpy has no bfloat16
        one.data = numbers(Random(seed), one.dtype, int(np.prod(one.shape)))
    Random(seed).shuffle(draft.tensors)
    draft.write(tmp_path / "mine")
    expected = safetensors.numpy.load((tmp_path / "mine" / WEIGHTS_FILE).read_bytes())
    for module, pair in admitted(tmp_path / "mine").modules.items():
        for side, found in (("A", pair.a), ("B", pair.b)):
            assert np.array_equal(found, expected[f"{PREFIX}{module}.lora_{side}.weight"])
            assert found.flags.writeable
