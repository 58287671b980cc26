"""Which number format a machine computes fast in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankloom_engine.loading import DTYPES, dtype_on
from rankloom_engine.number_format import cpu_flags, dtype_for


def test_bfloat16_is_for_cpus_with_units_for_it() -> None:
    assert dtype_for({"avx2", "avx512f", "avx512_vnni"}) == "float32"
    for flag in ("amx_bf16", "avx512_bf16", "bf16"):
        assert dtype_for({"avx2", flag}) == "bfloat16"


@pytest.mark.parametrize("name", ["flags", "Features"])
def test_flags_are_those_of_the_first_core(name: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\n{name}\t\t: fp avx2 bf16\n\n{name} : other\n")
    assert cpu_flags(file) == {"fp", "avx2", "bf16"}


def test_an_unknown_cpu_has_no_flags(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "nothing") == frozenset()
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


def test_auto_is_what_the_cpu_is_fast_in() -> None:
    assert dtype_on("cpu", "auto") == dtype_for(cpu_flags())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_auto_without_a_gpu_is_float32_there() -> None:
    assert dtype_on("cuda", "auto") == "float32"  # and loading then says what is missing


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_named_format_is_taken_as_it_is(dtype: str) -> None:
    assert dtype_on("cpu", dtype) == dtype
