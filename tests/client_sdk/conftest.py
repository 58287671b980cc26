from __future__ import annotations

from collections.abc import Iterator

import pytest

from client_sdk.clients import (
    AnyClient,
    AnyFeatureClient,
    AnyRolloutClient,
    ThreadedClient,
    ThreadedFeatureClient,
    ThreadedRolloutClient,
)
from client_sdk.recording_server import RecordingServer
from rankloom import AsyncClient, AsyncFeatureClient, AsyncRolloutClient
from rankloom.testing import FakeServer


@pytest.fixture(params=[ThreadedClient, AsyncClient], ids=["sync", "aio"])
def client_class(request: pytest.FixtureRequest) -> AnyClient:
    """A test that asks for it runs once with either client; the same goes for those below."""
    kind: AnyClient = request.param
    return kind


@pytest.fixture(params=[ThreadedFeatureClient, AsyncFeatureClient], ids=["sync", "aio"])
def feature_client_class(request: pytest.FixtureRequest) -> AnyFeatureClient:
    kind: AnyFeatureClient = request.param
    return kind


@pytest.fixture(params=[ThreadedRolloutClient, AsyncRolloutClient], ids=["sync", "aio"])
def rollout_client_class(request: pytest.FixtureRequest) -> AnyRolloutClient:
    kind: AnyRolloutClient = request.param
    return kind


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as running:
        yield running


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running
