"""Where keys are configured, nothing of an unsigned bundle is parsed, copied or kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_adapters.bundle import MANIFEST
from rankloom_adapters.signing import SignatureError, generate_keys
from rankloom_server.app import servers
from rankloom_server.errors import StartError
from rankloom_server.feature_app import opened_features
from rankloom_server.keys import keyring_of
from rankloom_server.rpc.lifecycle import RpcServer
from rankloom_server.state import BUNDLES, opened_state
from server.servers import settings


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    return tmp_path / "public.pem"


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    """Its manifest cannot be parsed: whoever tries says so."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST).write_bytes(b"[" * 100_000)
    return tmp_path / "bundle"


@pytest.mark.parametrize("with_state", [False, True])
async def test_a_start_checks_the_signature_first(
    unsigned: Path, key: Path, tmp_path: Path, with_state: bool
) -> None:
    given = settings(bundle=unsigned, bundle_keys=[key])
    with opened_state(tmp_path / "state" if with_state else None) as state:
        async with servers(given, state) as (server, _):
            assert isinstance(server, RpcServer)
            await server.start("127.0.0.1", 0)
            with pytest.raises(StartError, match="not signed"):
                await server.open()
        if state is not None:
            assert not list((tmp_path / "state" / BUNDLES).iterdir())
            assert not state.registry.ledger.newest


def test_a_feature_server_checks_the_signature_first(unsigned: Path, key: Path) -> None:
    with pytest.raises(StartError, match="not signed") as refused:
        opened_features(unsigned, keyring_of([key]))
    assert isinstance(refused.value.__cause__, SignatureError)
