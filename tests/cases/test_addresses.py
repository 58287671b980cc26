"""A ranking server under any address: IPv6, all addresses of a machine, a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from client_sdk.clients import AnyClient, ThreadedClient
from rankloom import AsyncClient
from rankloom._cli.main import main
from rankloom_server.rpc.listening import ListenAddress
from server.rankings import item_ids, known_user
from server.served_parts import ServedParts, ranking_server

BOTH = pytest.mark.parametrize("kind", [ThreadedClient, AsyncClient], ids=["sync", "aio"])


@asynccontextmanager
async def listening(parts: ServedParts, host: str) -> AsyncIterator[ListenAddress]:
    async with ranking_server(parts) as server:
        bound = await server.start_at(ListenAddress(host))
        await server.open()
        try:
            yield bound
        finally:
            await server.grpc.stop(None)


async def ranks(kind: AnyClient, target: str, parts: ServedParts) -> None:
    async with kind(target, timeout_s=20.0) as client:
        answer = await client.rank(item_ids(parts, 2), user=known_user(parts))
    assert answer.revision.bundle_digest == parts.loaded.digest


@BOTH
@pytest.mark.parametrize("host", ["::", "[::]"])
async def test_all_addresses_of_the_machine(kind: AnyClient, host: str, parts: ServedParts) -> None:
    async with listening(parts, host) as bound:
        for target in (f"[::1]:{bound.port}", f"127.0.0.1:{bound.port}", f"localhost:{bound.port}"):
            await ranks(kind, target, parts)


@BOTH
async def test_a_unix_socket(kind: AnyClient, parts: ServedParts, tmp_path: Path) -> None:
    async with listening(parts, f"unix:{tmp_path}/ranking.sock") as bound:
        await ranks(kind, str(bound), parts)


@pytest.mark.parametrize("host", ["::1", "unix"])
async def test_the_commands_reach_it_too(
    host: str, parts: ServedParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = f"unix:{tmp_path}/ranking.sock" if host == "unix" else host
    async with listening(parts, host) as bound:
        code = await asyncio.to_thread(main, ["health", "--server", str(bound)])
    assert (code, capsys.readouterr().out) == (0, "SERVING\n")
