"""What figures depend on besides the settings: machine, versions, commit, number format."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rankloom_engine.number_format import cpu_flags

ROOT: Final = Path(__file__).parents[2]
PACKAGES = ("torch", "onnxruntime", "transformers", "peft", "numpy", "rankloom")
# CPU flags that decide how fast matrices are multiplied.
SPEED_FLAGS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "sve", "bf16", "i8mm"),
)


def machine() -> dict[str, object]:
    """CPU model, cores, the flags among SPEED_FLAGS, and the load at this moment."""
    return {
        "cpu": cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "flags": [flag for flag in SPEED_FLAGS if flag in cpu_flags()],
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The repository's short commit, ``-dirty`` where files differ; "unknown" without git."""
    try:
        found = _git("rev-parse", "--short", "HEAD")
        others = (":!benchmarks/results", ":!benchmarks/README.md")
        return f"{found}-dirty" if _git("status", "--porcelain", "--", ".", *others) else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpuinfo(name: str) -> str:
    """The first ``name: value`` of /proc/cpuinfo; empty if there is none."""
    return field_of(Path("/proc/cpuinfo"), name)


def field_of(path: Path, name: str) -> str:
    """The first ``name: value`` of a file under /proc; empty if there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
