"""An operator's command line, on a real server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rankloom._cli.main import main
from rankloom_server.app import servers
from rankloom_server.rpc.lifecycle import RpcServer
from rankloom_server.state import opened_state
from server.servers import opened, settings


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.out)


@dataclass(frozen=True)
class Operated:
    """A real server, and an operator's command line."""

    ranking: str
    target: str
    capsys: pytest.CaptureFixture[str]
    admin: RpcServer

    async def rollout(self, *arguments: object) -> Said:
        self.capsys.readouterr()
        words = ["rollout", *map(str, arguments), "--server", self.target]
        code = await asyncio.to_thread(main, words)
        out, err = self.capsys.readouterr()
        log = re.compile(r"^\{.*\}\n", re.MULTILINE)  # the server is in this process
        return Said(code, out, log.sub("", err))


@asynccontextmanager
async def operated(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str], **values: object
) -> AsyncIterator[Operated]:
    given = settings(bundle=bundle, state=folder, rollout_port=0, **values)
    with opened_state(folder) as state:
        assert state is not None
        async with servers(given, state) as (server, admin), opened(server) as ranking:
            assert admin is not None
            async with opened(admin) as target:
                yield Operated(ranking, target, capsys, admin)
