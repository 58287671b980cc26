"""Commands that other packages add to `rankloom`, and what it says of packages that are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankloom._cli.installation import install_command

PLUGIN = """
import argparse

class Command:
    help = "from the plugin"

    def __init__(self, name):
        self.name = name

    def configure(self, parser):
        parser.add_argument("--word", required=True)

    def run(self, args):
        if args.word == "import":
            import a_package_that_nobody_has
        if args.word == "embed":
            raise ModuleNotFoundError(name="sentence_transformers.models")
        print(self.name, args.word)
        return 7

hello = serve = Command("hello")
"""


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """Make an installation with commands of the test; return the environment that runs it."""
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "needy.py").write_text("import a_package_that_nobody_has.part\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import rankloom.nothing\n", encoding="utf-8")
    metadata = tmp_path / "rankloom-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: rankloom\nVersion: 0.1.0\n", encoding="utf-8")
    commands = "hello=plugin:hello\nserve=needy:x\ntrain=needy:x\nother=needy:x\nbroken=broken:x\n"
    text = f"[rankloom.commands]\n{commands}"
    (metadata / "entry_points.txt").write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rankloom", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_plugin_runs(plugins: dict[str, str]) -> None:
    done = run(plugins, "hello", "--word", "world")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello world\n", "")


def test_listing_imports_no_plugin(plugins: dict[str, str]) -> None:
    done = run(plugins, "--help")
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert "other" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["serve", "--help"], f"rankloom serve needs: {install_command('server')}\n"),
        (["train"], f"rankloom train needs: {install_command('train')}\n"),
        (["hello", "--word", "embed"], f"rankloom hello needs: {install_command('text')}\n"),
        (["other"], "rankloom other needs: the package a_package_that_nobody_has\n"),
        (
            ["hello", "--word", "import"],
            "rankloom hello needs: the package a_package_that_nobody_has\n",
        ),
    ],
)
def test_missing_package_is_named(
    plugins: dict[str, str], arguments: list[str], needs: str
) -> None:
    done = run(plugins, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", needs)


def test_a_missing_module_of_ours_is_a_defect(plugins: dict[str, str]) -> None:
    done = run(plugins, "broken")
    assert done.returncode == 1
    assert "No module named 'rankloom.nothing'" in done.stderr
