"""`rankloom rollout watch` against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.operated import Operated, operated
from server.rollouts import other_bundle


@pytest.fixture
async def server(
    served_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Operated]:
    async with operated(served_folder, tmp_path / "state", capsys) as server:
        yield server


@pytest.fixture
def other(served_folder: Path, tmp_path: Path) -> Path:
    return other_bundle(served_folder, tmp_path / "other")


async def watching(server: Operated, *arguments: str, stdout: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rankloom", "rollout", "watch", "--server", server.target, *arguments,
        stdout=stdout, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip


async def test_watch_prints_what_changes_until_it_is_interrupted(
    server: Operated, other: Path
) -> None:
    blocks = await watching(server, stdout=asyncio.subprocess.PIPE)
    lines = await watching(server, "--json", stdout=asyncio.subprocess.PIPE)
    assert blocks.stdout is not None
    assert lines.stdout is not None
    assert b"active" in await asyncio.wait_for(blocks.stdout.readuntil(b"\n\n"), 20)
    assert json.loads(await asyncio.wait_for(lines.stdout.readline(), 20))["active"] == 1
    await server.rollout("stage", other)
    await asyncio.wait_for(blocks.stdout.readuntil(b"warmed"), 20)
    states: list[str] = []
    while states != ["active", "warmed"]:
        event = json.loads(await asyncio.wait_for(lines.stdout.readline(), 20))
        states = [each["state"] for each in event["rollouts"]]
    for process in (blocks, lines):
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, err) == (130, b"rankloom: interrupted\n")


async def test_watch_is_told_that_the_server_stops(server: Operated) -> None:
    process = await watching(server, "--json", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 20)
    draining = asyncio.create_task(server.admin.drain(5.0))
    _, err = await asyncio.wait_for(process.communicate(), 20)
    await draining
    assert process.returncode == 1
    said, hint = err.decode().splitlines()
    assert said == "rankloom: UnavailableError: the server is draining; call another one"
    assert "starting or stopping" in hint


async def test_watch_redraws_a_terminal_and_leaves_it_clean(server: Operated) -> None:
    ours, theirs = pty.openpty()
    process = await watching(server, stdout=theirs)
    os.close(theirs)
    shown = b""
    while b"memory: " not in shown:
        shown += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 20)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (130, b"rankloom: interrupted\n")
    os.set_blocking(ours, False)
    shown += os.read(ours, 65536)
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h")
    assert shown.endswith(b"\x1b[?1049l")
    assert b"\x1b[H" in shown


async def test_watch_ends_quietly_where_nobody_reads(server: Operated, other: Path) -> None:
    process = await watching(server, "--json", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 20)
    process.stdout._transport.close()  # type: ignore[attr-defined]
    await server.rollout("stage", other)
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.read(), 20) == b""
    assert await asyncio.wait_for(process.wait(), 20) == 0
