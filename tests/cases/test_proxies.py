"""A proxy of the environment gets no calls to this machine, and an error elsewhere names it."""

from __future__ import annotations

import pytest

from client_sdk.clients import AnyClient, ThreadedClient
from client_sdk.recording_server import RecordingServer
from rankloom import AsyncClient, ConnectionFailedError
from rankloom_features.provider import UserQuery
from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest, GetUserFeaturesResponse
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.features import RemoteFeatures
from server.servers import behaving_server, opened

DEAD_PROXY = "http://user:secret@127.0.0.1:9"
ELSEWHERE = "192.0.2.1:50051"  # for documentation: nobody has it
BOTH = pytest.mark.parametrize("kind", [ThreadedClient, AsyncClient], ids=["sync", "aio"])


@pytest.fixture(autouse=True, params=["grpc_proxy", "https_proxy", "http_proxy"])
def variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for other in ("no_proxy", "no_grpc_proxy", "grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(other, raising=False)
    name: str = request.param
    monkeypatch.setenv(name, DEAD_PROXY)
    return name


@BOTH
@pytest.mark.parametrize("form", ["{}", "dns:///{}", "ipv4:{}"])
async def test_calls_to_this_machine_use_no_proxy(kind: AnyClient, form: str) -> None:
    with RecordingServer() as server:
        async with kind(form.format(server.target), timeout_s=5) as client:
            await client.wait_ready(5)
            assert (await client.rank(["a"], user="u")).items[0].item_id == "a"


@BOTH
async def test_an_error_elsewhere_names_the_variable_but_no_password(
    kind: AnyClient, variable: str
) -> None:
    expected = rf"proxy 127\.0\.0\.1:9 of the environment variable {variable}: set no_proxy"
    async with kind(ELSEWHERE, plaintext=True, timeout_s=5) as client:
        with pytest.raises(ConnectionFailedError, match=expected) as caught:
            await client.rank(["a"], user="u")
        assert "secret" not in str(caught.value)
        with pytest.raises(ConnectionFailedError, match=expected):
            await client.wait_ready(0.05)


async def test_a_ranking_server_asks_its_feature_service_without_a_proxy() -> None:
    async def nothing(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        return GetUserFeaturesResponse()

    async with opened(behaving_server(nothing)) as target:
        features = RemoteFeatures(target)
        with pytest.raises(FeaturesUnavailableError, match="malformed_answer"):  # so it answered
            await features.get(UserQuery("u", ()), 5.0)
        await features.close()
