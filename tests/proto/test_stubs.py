"""The committed stubs match the .proto files and load with the installed protobuf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
STUBS = sorted(path.relative_to(PROTO) for path in PROTO.glob("rankloom_proto/v1/*_pb2*.py*"))
MODULES = [".".join(path.with_suffix("").parts) for path in STUBS if path.suffix == ".py"]
GENERATOR = ROOT / ".venv-protos"


def test_each_proto_has_its_four_stubs() -> None:
    protos = [path.stem for path in PROTO.glob("rankloom_proto/v1/*.proto")]
    suffixes = ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"]
    assert {path.name for path in STUBS} == {name + end for name in protos for end in suffixes}
    assert protos


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    had_generator = (GENERATOR / "bin" / "protoc-gen-mypy").exists()
    command = [str(ROOT / "scripts" / "gen_protos"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if done.returncode and not had_generator and "No matching distribution" in done.stderr:
        pytest.skip(f"the generator cannot be installed: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*_pb2*.py*")}
    assert made == {path: (PROTO / path).read_bytes() for path in STUBS}


@pytest.mark.parametrize("module", MODULES)
def test_stub_loads(module: str) -> None:
    # Warnings are errors: protobuf and gRPC only warn about stubs that they will soon refuse.
    command = [sys.executable, "-W", "error", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
