"""A server whose state has an active revision serves that, and says where the bundle is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_server.app import servers
from rankloom_server.rpc.lifecycle import Facts
from rankloom_server.state import opened_state
from server.rollouts import other_bundle
from server.servers import settings


async def facts_of(bundle: Path, folder: Path) -> Facts:
    """What a server of this bundle, and of this folder's state, says of itself as it starts."""
    given = settings(bundle=bundle, state=folder, rollout_port=0)
    with opened_state(given.rollout.state) as state:
        async with servers(given, state) as (server, _):
            await server.start("127.0.0.1", 0)
            try:
                return await server.open()
            finally:
                await server.grpc.stop(None)


@pytest.mark.parametrize("again", ["the same", "another", "none"])
async def test_a_bundle_that_is_not_served_is_told(
    again: str, served_folder: Path, tmp_path: Path
) -> None:
    first = await facts_of(served_folder, tmp_path / "state")
    assert "reason" not in first
    given = {"the same": served_folder, "none": tmp_path / "nowhere"}.get(again)
    facts = await facts_of(given or other_bundle(served_folder, tmp_path / "b"), tmp_path / "state")
    assert facts["bundle_digest"] == first["bundle_digest"]
    assert ("reason" in facts) == (again != "the same")
