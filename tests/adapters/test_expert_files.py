"""Folders that are not an expert are refused at once, whatever their files are."""

from __future__ import annotations

import os
import pickle
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from adapters.adapter_files import AdapterFiles
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, ExpertError
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES, read_expert

TIME_S, TIME_OF_LARGEST_S = 0.1, 1.0
MANY = 4  # times the time limit, for a busy machine
Harm = Callable[[Path], object]


@pytest.fixture
def folder(adapter: AdapterFiles, tmp_path: Path) -> Path:
    found = tmp_path / "expert"
    found.mkdir()
    (found / CONFIG_FILE).write_bytes(adapter.config)
    (found / WEIGHTS_FILE).write_bytes(adapter.weights)
    return found


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a file was looked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"x")


def linked(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    path.unlink()
    at = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(at)


def link_to(target: str | None = None) -> Harm:
    """To itself if no target is given."""

    def harm(path: Path) -> None:
        path.unlink()
        path.symlink_to(target or path)

    return harm


class Evil:
    """A pickle that creates a folder when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


HARMS: dict[str, Harm] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "link": linked,
    "link to nothing": link_to("nothing"),
    "link to itself": link_to(),
    "folder": as_folder,
    "pipe": as_pipe,
    "socket": as_socket,
    "a terabyte of nothing": lambda path: os.truncate(path, 1 << 40),
    "one byte too many": lambda path: os.truncate(path, MAX_WEIGHTS_BYTES + 1),
    "zip": zipped,
    "pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "text": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
}


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_what_is_no_expert_is_refused_at_once(folder: Path, file: str, harm: Harm) -> None:
    harm(folder / file)
    started = time.perf_counter()
    with pytest.raises(ExpertError, match=f"expert mine: {file}"):
        read_expert("mine", folder)
    assert time.perf_counter() - started <= MANY * TIME_S
    assert not Path("unpickled").exists()


def test_the_largest_legal_size_is_refused_within_a_second(folder: Path) -> None:
    os.truncate(folder / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    started = time.perf_counter()
    with pytest.raises(ExpertError, match="bytes long, its header says"):
        read_expert("mine", folder)
    assert time.perf_counter() - started <= MANY * TIME_OF_LARGEST_S


def test_a_pickle_beside_no_weights_is_not_read(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ExpertError, match=WEIGHTS_FILE):
        read_expert("mine", folder)
    assert not Path("unpickled").exists()


def test_a_good_folder_is_read_whatever_else_it_holds(folder: Path, adapter: AdapterFiles) -> None:
    (folder / "README.md").write_text("peft writes one")
    found = read_expert("mine", folder)
    assert (found.config, found.weights) == (adapter.config, adapter.weights)
    assert found.expert.name == "mine"


def test_two_thousand_generated_files_are_refused(folder: Path, adapter: AdapterFiles) -> None:
    """Each is a good file with a few bytes removed, inserted, doubled or altered."""
    random, times = np.random.default_rng(0), []
    good = safetensors.numpy.load(adapter.weights)
    for number in range(2000):
        data = harmed(adapter.weights, random)
        (folder / WEIGHTS_FILE).write_bytes(data)
        started = time.perf_counter()
        try:
            found = read_expert("mine", folder)
        except ExpertError:
            times.append(time.perf_counter() - started)
            continue
        # An accepted file differs only in finite weights.
        loaded = safetensors.numpy.load(found.weights)
        assert {n: a.shape for n, a in loaded.items()} == {n: a.shape for n, a in good.items()}
        assert all(np.isfinite(array).all() for array in loaded.values()), number
    assert len(times) > 1000
    assert np.quantile(times, 0.99) <= TIME_S


def harmed(data: bytes, random: np.random.Generator) -> bytes:
    index = int(random.integers(0, len(data)))
    some = random.bytes(int(random.integers(1, 9)))
    match int(random.integers(0, 5)):
        case 0:
            return data[:index]
        case 1:
            return data[:index] + some + data[index:]
        case 2:
            return data[:index] + data[index + len(some) :]
        case 3:
            return data[:index] + some + data[index + len(some) :]
        case _:
            at = int(random.integers(0, 8 + int.from_bytes(data[:8], "little")))
            return data[:at] + some + data[at + len(some) :]
