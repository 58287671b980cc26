from __future__ import annotations

from collections.abc import Iterator

import pytest

from client_sdk.clients import AnyClient, ThreadedClient
from client_sdk.recording_server import RecordingServer
from rankloom import AsyncClient


@pytest.fixture(params=[ThreadedClient, AsyncClient], ids=["sync", "aio"])
def client_class(request: pytest.FixtureRequest) -> AnyClient:
    """Each test that asks for it runs once with either client."""
    kind: AnyClient = request.param
    return kind


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as running:
        yield running
