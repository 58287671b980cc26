"""The checks of `rankloom doctor`: each looks at one thing and says what to do about it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

from rankloom._cli.installation import (
    Requirement,
    clone,
    install_command,
    requirements,
    tested_versions,
)

MIN_MEMORY_GIB: Final = 2.0
MIN_DISK_GIB: Final = 2.0
_GIB: Final = 1 << 30
_EXTRAS: Final = ("server", "train")
# Flags of Linux for what makes matrix products fast, in the order of their age.
_CPU_FEATURES: Final = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
}


class State(StrEnum):
    """A note is worth knowing; what is wrong has to be mended."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check saw, and what to do; nothing to do if it is empty."""

    area: str
    state: State
    text: str
    remedy: str = ""


def check_machine() -> Iterator[Diagnosis]:
    """Cores, memory and number formats of this machine."""
    cores = len(os.sched_getaffinity(0))
    yield Diagnosis("machine", State.OK, f"{_cpu_name()}, {cores} cores to use")
    yield from _check_memory()
    flags = set(_first_value("/proc/cpuinfo", "flags", "Features").split())
    has = [name for flag, name in _CPU_FEATURES.items() if flag in flags]
    yield Diagnosis("cpu", State.OK, ", ".join(has) or "none of the features that are looked for")
    if flags and not flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        yield Diagnosis("cpu", State.NOTE, "no units for bf16: float32 is faster here")


def check_threads() -> Iterator[Diagnosis]:
    """OMP_NUM_THREADS, which torch and LightGBM obey."""
    cores, given = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    if given is None:
        yield Diagnosis("threads", State.OK, f"OMP_NUM_THREADS is not set: up to {cores} threads")
    elif not given.isdecimal() or not 1 <= int(given) <= cores:
        text = f"OMP_NUM_THREADS is {given[:20]!r}, and {cores} cores can be used"
        yield Diagnosis(
            "threads", State.WRONG, text, f"export OMP_NUM_THREADS={cores}, or unset it"
        )
    else:
        yield Diagnosis("threads", State.OK, f"OMP_NUM_THREADS is {given}")


def check_packages() -> Iterator[Diagnosis]:
    """Python, the extras, and versions against the supported and the tested ones."""
    yield Diagnosis("python", State.OK, platform.python_version())
    needs = sorted(requirements(), key=attrgetter("extra"))
    for extra, members in groupby(needs, attrgetter("extra")):
        if extra in ("", *_EXTRAS):
            yield from _check_extra(extra, list(members))
    tested = tested_versions()
    names = {need.name for need in needs if need.extra in ("", *_EXTRAS) and need.installed}
    other = [
        f"{need.name} {need.installed} (tested: {tested[need.name]})"
        for need in {each.name: each for each in needs if each.name in names}.values()
        if need.name in tested and need.installed.partition("+")[0] != tested[need.name]
    ]
    if other:
        remedy = f"{clone()}/scripts/environment installs the tested versions"
        yield Diagnosis("packages", State.NOTE, ", ".join(other), remedy)


def _check_extra(extra: str, needs: list[Requirement]) -> Iterator[Diagnosis]:
    missing = [need.name for need in needs if not need.installed]
    shown = f"extra {extra}" if extra else "base"
    if missing:
        text = f"{shown}: not installed: {', '.join(missing)}"
        state = State.NOTE if extra else State.WRONG
        remedy = install_command(extra) if extra else "pip install rankloom"
        yield Diagnosis("packages", state, text, remedy)
    wrong = [need for need in needs if need.installed and not need.fits]
    for need in wrong:
        text = f"{need.name} {need.installed}, but {need.bounds} is supported"
        yield Diagnosis("packages", State.WRONG, text, f"pip install '{need.name}{need.bounds}'")
    if not missing and not wrong:
        yield Diagnosis("packages", State.OK, f"{shown}: all {len(needs)} packages")


def check_ports(ports: list[int]) -> Iterator[Diagnosis]:
    """Whether a server on this machine could listen there."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                text = f"port {port} cannot be used: {error.strerror}"
                remedy = "a server may run there already; another one needs another --port"
                yield Diagnosis("ports", State.NOTE, text, remedy)
            else:
                yield Diagnosis("ports", State.OK, f"port {port} is free")


def check_disk(folder: Path) -> Iterator[Diagnosis]:
    """Free space where bundles would be written."""
    free = shutil.disk_usage(folder).free / _GIB
    text = f"{free:.1f} GiB free in {folder.resolve()}"
    if free >= MIN_DISK_GIB:
        yield Diagnosis("disk", State.OK, text)
    else:
        remedy = f"make room: training and a server's state need {MIN_DISK_GIB:g} GiB"
        yield Diagnosis("disk", State.WRONG, text, remedy)


def check_bundle(folder: Path) -> Iterator[Diagnosis]:
    """Whether a bundle's files are those of its manifest."""
    try:
        files = json.loads((folder / "manifest.json").read_bytes())["files"]
        expected = {name: str(described["sha256"]) for name, described in files.items()}
    except OSError as error:
        text = f"{folder}: manifest.json cannot be read: {error.strerror}"
        remedy = "give a folder that `rankloom train` wrote"
        yield Diagnosis("bundle", State.WRONG, text, remedy)
        return
    except (ValueError, KeyError, TypeError, AttributeError):
        yield Diagnosis(
            "bundle", State.WRONG, f"{folder}: not a bundle's manifest", "copy it again"
        )
        return
    altered = [name for name, digest in expected.items() if _digest_of(folder / name) != digest]
    if altered:
        text = f"{folder}: missing or altered: {', '.join(sorted(altered)[:5])}"
        yield Diagnosis("bundle", State.WRONG, text, "copy it again from where it was trained")
    else:
        yield Diagnosis("bundle", State.OK, f"{folder}: all {len(expected)} files are whole")


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _check_memory() -> Iterator[Diagnosis]:
    words = _first_value("/proc/meminfo", "MemAvailable").split()
    if not words:
        return
    gib = int(words[0]) * 1024 / _GIB
    text = f"{gib:.1f} GiB of memory available"
    if gib >= MIN_MEMORY_GIB:
        yield Diagnosis("memory", State.OK, text)
    else:
        remedy = f"end other programs: a small bundle needs {MIN_MEMORY_GIB:g} GiB"
        yield Diagnosis("memory", State.WRONG, text, remedy)


def _cpu_name() -> str:
    return _first_value("/proc/cpuinfo", "model name") or platform.machine() or sys.platform


def _first_value(path: str, *names: str) -> str:
    """The value of the first line `name : value`; empty where the system has no such file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")
