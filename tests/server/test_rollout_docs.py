"""The walk in docs/rollout.md works as it is written."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from rankloom_adapters.bundle import EVENTS
from rankloom_features.events import EventLog
from rankloom_server.config import Settings
from server.rankings import request
from server.rollouts import Running, expert_folder, rolling_out
from server.served_parts import ServedParts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rollout.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^\$ rankloom (.+)$", re.MULTILINE)
SETTING = re.compile(r"^\| (`.+?`)(?:, (`.+?`))? \|", re.MULTILINE)


async def run(arguments: str, server: Running, folder: Path) -> str:
    """What a command of the page prints, with this server and these files."""
    words = [
        str(folder / word) if (folder / word).exists() or word.endswith(".pem") else word
        for word in shlex.split(arguments)
    ]
    if words[0] == "rollout":
        words += ["--server", server.rollout_address]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rankloom", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{arguments}\n{err.decode()}"
    return out.decode()


async def rank_for_many(server: Running, parts: ServedParts) -> None:
    for user in EventLog.from_bytes(parts.loaded.bundle.read(EVENTS)).users:
        for count in (2, 3):
            await server.rank(request(parts, count, user_id=user))


async def test_the_walk(served_folder: Path, parts: ServedParts, tmp_path: Path) -> None:
    expert_folder(served_folder, "global", tmp_path / "new-expert", 1.01)
    walk = PAGE.partition("## What is promised")[0]
    serve, *commands = COMMAND.findall(walk)
    assert serve.startswith("serve --bundle my-bundle --state")
    assert len(commands) == 8
    said = {}
    async with rolling_out(served_folder, tmp_path / "state") as server:
        for command in commands:
            said[command] = await run(command, server, tmp_path)
            if command.startswith("rollout canary"):
                await rank_for_many(server, parts)
    assert "warmed" in said["rollout list"]
    assert "canary" in said["rollout get 2"]
    last = json.loads(said[commands[-1]])
    assert [each["state"] for each in last["rollouts"]] == ["active", "retired"]


async def test_a_bundle_is_signed_as_the_page_says(served_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(served_folder, tmp_path / "my-bundle")
    commands = COMMAND.findall(PAGE.partition("## What is refused")[2])
    assert [command.split()[1] for command in commands] == ["keygen", "sign", "verify"]
    async with rolling_out(served_folder, tmp_path / "state") as server:
        for command in commands:
            await run(command, server, tmp_path)


def test_each_setting_of_the_page_is_one() -> None:
    table = PAGE.partition("## Settings")[2]
    names = {name.strip("`") for row in SETTING.findall(table) for name in row if name}
    assert len(names) >= 8
    assert names <= set(Settings.model_fields)


@pytest.mark.parametrize("name", ["state", "rollout_port", "bundle_keys", "expert_slots_mib"])
def test_each_setting_of_rollouts_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE
