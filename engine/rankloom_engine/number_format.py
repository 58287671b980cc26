"""Which number format a machine is fast in. It imports no torch.

A CPU without units for bf16 emulates it, some 17 times slower than float32 with AVX2.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

BF16_UNITS: Final = ("amx_bf16", "avx512_bf16", "bf16")  # the last one as ARM calls it
_CPUINFO: Final = Path("/proc/cpuinfo")


def dtype_for(flags: Collection[str]) -> str:
    """The number format that a CPU with these flags is good at: "bfloat16" or "float32"."""
    return "bfloat16" if any(flag in flags for flag in BF16_UNITS) else "float32"


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """All flags of the CPU; x86 calls them flags, ARM features. Empty where Linux has no file."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
