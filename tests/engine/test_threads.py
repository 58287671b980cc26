"""How idle threads wait is set before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SHOW = f"""
import sys, os, importlib
importlib.import_module(sys.argv[1])
print(*(os.environ.get(name) for name in {NAMES}), "torch" in sys.modules)
"""


def settled(commands: str, given: dict[str, str]) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | given
    command = [sys.executable, "-c", SHOW, commands]
    return subprocess.check_output(command, env=environment, text=True).split()


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, ["passive", "None"]), ({"OMP_WAIT_POLICY": "active"}, ["active", "None"])],
)
def test_a_servers_threads_sleep_at_once(given: dict[str, str], kept: list[str]) -> None:
    assert settled("rankloom_server.commands", given) == [*kept, "False"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, ["None", "3000"]),
        ({"OMP_WAIT_POLICY": "passive"}, ["passive", "None"]),
        ({"GOMP_SPINCOUNT": "7"}, ["None", "7"]),
    ],
)
def test_in_training_threads_spin_briefly(given: dict[str, str], kept: list[str]) -> None:
    assert settled("rankloom_training.commands", given) == [*kept, "False"]
