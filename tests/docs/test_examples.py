"""The worked examples of CONTRIBUTING.md: each diff applies to the tree, and what it adds works.

After a change of the code that a diff touches, apply it by hand with ``git apply --3way``, mend it,
and write it anew with ``git diff -U1``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.structure import packages

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOUCHED = re.compile(r"^\+\+\+ b/(.+)$", re.MULTILINE)
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.diff"))
MAX_FILES = 3
NO_GENERATOR = "No matching distribution"

USE_MODEL = """
import numpy as np
from rankloom_features.export import export
from rankloom_features.events import History
from rankloom_features.fit import Examples, fit
from rankloom_features.histories import Histories
from rankloom_features.models import MODEL_NAMES, create_model

random = np.random.default_rng(0)
past = [History.untimed(random.integers(0, 8, 6), random.random(6) < 0.5) for _ in range(200)]
target = random.integers(1, 9, 200)
examples = Examples(Histories.of(past), target, target % 2 == 0)
assert "recency" in MODEL_NAMES
model = create_model("recency", num_items=8, dim=4)
before = model.decay.item()
losses = []
fit(model, lambda epoch: examples, examples, seed=0, on_round=lambda n, loss: losses.append(loss))
assert losses[-1] < losses[0] and model.decay.item() != before
assert export(model)  # which compares the ONNX file with torch
"""

USE_GATE = """
import numpy as np
from rankloom_adapters.rollout.evidence import observe
from rankloom_adapters.rollout.judge import judge_canary
from rankloom_adapters.rollout.thresholds import Thresholds

random = np.random.default_rng(0)

def arm(lead):
    found = []
    for user in range(400):
        trees = random.normal(size=10)
        scores = trees + random.normal(0.0, 0.2, 10)
        scores[scores.argmax()] += lead
        found.append(observe(user, "", 0.01, scores, trees, 1 / (1 + np.exp(-scores))))
    return found

def outcomes(lead):
    gates = judge_canary(arm(lead), arm(0.0), Thresholds()).gates
    return {gate.name: gate.outcome.value for gate in gates if not gate.group}

assert outcomes(0.0)["lead_ks"] == "passed"
assert outcomes(1.0)["lead_ks"] == "breached"
"""

USE_RPC = """
import asyncio
import grpc
from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event
from rankloom_features.service import FeatureService
from rankloom_proto.v1 import features_pb2, features_pb2_grpc

store = MemoryEventStore([UserEvent("e1", "42", Event("318", True, 1.0))])

async def main():
    server = grpc.aio.server()
    service = FeatureService(None, store)  # the example needs no features
    features_pb2_grpc.add_FeatureServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = features_pb2_grpc.FeatureServiceStub(channel)

        async def version_of(user_id):
            request = features_pb2.GetHistoryVersionRequest(user_id=user_id)
            return (await stub.GetHistoryVersion(request, timeout=10)).version

        assert [await version_of("42"), await version_of("nobody")] == [1, 0]
    await server.stop(None)

asyncio.run(main())
"""

USES = {"model": USE_MODEL, "gate": USE_GATE, "rpc": USE_RPC}


def touched(name: str) -> list[str]:
    return TOUCHED.findall((EXAMPLES / f"{name}.diff").read_text(encoding="utf-8"))


def test_each_example_is_used() -> None:
    assert set(NAMES) == set(USES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_touches_few_files_and_contributing_names_them(name: str) -> None:
    assert 1 <= len(touched(name)) <= MAX_FILES
    assert f"docs/examples/{name}.diff" in CONTRIBUTING
    for path in touched(name):
        assert f"`{path}`" in CONTRIBUTING, path


@pytest.mark.parametrize("name", NAMES)
def test_an_example_works(name: str, tmp_path: Path) -> None:
    copy_tree(tmp_path)
    diff = EXAMPLES / f"{name}.diff"
    run(["git", "apply", "--whitespace=error", str(diff)], tmp_path)
    if any(path.endswith(".proto") for path in touched(name)):
        regenerate(tmp_path)
    run([sys.executable, "-c", USES[name]], tmp_path)


def copy_tree(folder: Path) -> None:
    """The packages and the scripts, without what a build or a run left behind."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in (*packages(), "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def regenerate(folder: Path) -> None:
    """The stubs, with the generator that is installed here already, if there is one."""
    generator = ROOT / ".venv-protos"
    if (generator / "bin" / "protoc-gen-mypy").exists():
        (folder / ".venv-protos").symlink_to(generator)
    try:
        run([str(folder / "scripts" / "gen_protos")], folder)
    except AssertionError as error:
        if NO_GENERATOR not in str(error):
            raise
        pytest.skip("the generator of the stubs cannot be installed")


def run(command: list[str], folder: Path) -> None:
    """Runs a command with the folder's packages before any other."""
    roots = [str((folder / name).parent) for name in packages()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
    # Git must not take the folder for a part of a repository around it.
    environment["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
