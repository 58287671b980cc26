"""Clients in processes that fork, as those of gunicorn and multiprocessing do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from client_sdk.recording_server import RecordingServer

# The child's exit code: 0 for a ranking, 3 for an error of the SDK, 9 if it hangs.
FORK = """
import asyncio, os, signal, sys
from rankloom import AsyncClient, Client, RankloomError

target, before, after = sys.argv[1:]
clients = {"blocking": Client(target, timeout_s=20), "asyncio": AsyncClient(target, timeout_s=20)}

def rank(kind):
    if kind == "blocking":
        clients[kind].rank(["a"], user="u")
    elif kind == "asyncio":
        asyncio.run(rank_async())

async def rank_async():
    await clients["asyncio"].rank(["a"], user="u")

rank(before)
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        rank(after)
    except RankloomError as error:
        print(error, flush=True)
        asyncio.run(clients["asyncio"].close())
        clients["blocking"].close()
        os._exit(3)
    os._exit(0)
_, status = os.waitpid(child, 0)
rank(before)
sys.exit(os.waitstatus_to_exitcode(status))
"""
ADVICE = "make the first call after the fork"


def forked(before: str, after: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a child that makes an ``after`` call, and its parent ``before``."""
    with RecordingServer() as server:
        command = [sys.executable, "-c", FORK, server.target, before, after]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=os.environ | environment
        )
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_client_made_before_a_fork_works_after_it(kind: str) -> None:
    assert forked("no call", kind, GRPC_ENABLE_FORK_SUPPORT="0") == (0, "")


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_blocking_calls_before_a_fork_do_no_harm(kind: str) -> None:
    assert forked("blocking", kind) == (0, "")


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_after_asyncio_calls_a_forked_process_says_what_to_do(kind: str) -> None:
    code, output = forked("asyncio", kind)
    assert (code, ADVICE in output) == (3, True)


def test_without_grpcs_support_a_forked_process_says_what_to_do() -> None:
    code, output = forked("blocking", "blocking", GRPC_ENABLE_FORK_SUPPORT="0")
    assert (code, ADVICE in output) == (3, True)
    assert "GRPC_ENABLE_FORK_SUPPORT is off" in output
