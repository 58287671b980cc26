"""What is wrong with the data is said at once, before the models' libraries are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
import sys
from rankloom._cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = {"torch", "transformers", "sklearn", "lightgbm"} & set(sys.modules)
print("imported:", *sorted(heavy))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "--data", "/nowhere", "--out", "out"], 2),
        (["train", "--data", ".", "--out", "."], 2),
        (["data", "check", "/nowhere"], 2),
        (["demo", "--data", "/nowhere"], 2),
        (["items", "describe", "--data", "/nowhere"], 2),
        (["traces", "make", "--data", "/nowhere", "--out", "out"], 2),
        (["traces", "check", "nowhere.csv", "--data", "/nowhere"], 2),
        (["traces", "show", "/nowhere"], 2),
        (["traces", "--help"], 0),
        (["groups", "/nowhere"], 2),
        (["groups", "--help"], 0),
        (["train", "--help"], 0),
        (["evaluate", "--help"], 0),
    ],
)
def test_no_heavy_library_is_imported(arguments: list[str], code: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == code
    assert run.stdout.splitlines()[-1] == "imported:"
