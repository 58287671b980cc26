"""The commands let idle threads sleep, before anything has loaded torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """
import sys, os
import rankloom_server.commands, rankloom_training.commands
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "kept"), [(None, "passive"), ("active", "active")])
def test_threads_wait_passively_unless_told_otherwise(given: str | None, kept: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    found = subprocess.check_output([sys.executable, "-c", SHOW], env=environment, text=True)
    assert found.split() == [kept, "False"]
