"""How calls run, the same in both clients: deadlines, retries, closing, threads, TLS."""

from __future__ import annotations

import asyncio
import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo

from client_sdk.clients import AnyClient, ThreadedClient
from client_sdk.recording_server import RecordingServer, answer, fail, wait
from rankloom import (
    AsyncClient,
    AsyncExplanationStream,
    CallCancelledError,
    Client,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    ExplanationStream,
    InvalidRequestError,
    RankloomError,
    UnavailableError,
    __version__,
)
from rankloom._policy import DEFAULT_TIMEOUT_S, MAX_ATTEMPTS

Code = grpc.StatusCode
DRAINING: Message = RetryInfo()
RETRIED = (Code.UNAVAILABLE, Code.CANCELLED)
NOT_RETRIED = [code for code in Code if code not in (Code.OK, *RETRIED)]


async def test_deadline_ends_the_call(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(wait(30.0))
    async with client_class(server.target) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await client.rank(["a"], user="u", timeout_s=0.2)
        elapsed_s = time.monotonic() - started
    assert 0.15 < elapsed_s < 2.0


@pytest.mark.parametrize(
    ("of_client", "of_call", "expected_s"),
    [({}, {}, DEFAULT_TIMEOUT_S), ({"timeout_s": 7.0}, {}, 7.0), ({}, {"timeout_s": 5}, 5.0)],
    ids=["default", "client", "call"],
)
async def test_every_call_has_a_deadline(
    client_class: AnyClient,
    server: RecordingServer,
    of_client: dict[str, Any],
    of_call: dict[str, Any],
    expected_s: float,
) -> None:
    async with client_class(server.target, **of_client) as client:
        await client.rank(["a"], user="u", **of_call)
    # gRPC rounds up what it sends.
    assert expected_s - 1.5 < server.received[0].time_remaining_s < expected_s + 0.1


async def test_unavailable_is_retried(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(*[fail(Code.UNAVAILABLE, "starting", DRAINING)] * (MAX_ATTEMPTS - 1), answer())
    async with client_class(server.target) as client:
        ranking = await client.rank(["a", "b"], user="u")
    assert [item.item_id for item in ranking.items] == ["b", "a"]
    assert len(server.received) == MAX_ATTEMPTS
    assert len({call.payload for call in server.received}) == 1


@pytest.mark.parametrize("code", RETRIED, ids=lambda code: code.name)
async def test_what_a_leaving_server_sends_is_retried(
    client_class: AnyClient, server: RecordingServer, code: Code
) -> None:
    server.will(fail(code), answer())
    async with client_class(server.target) as client:
        await client.rank(["a"], user="u")
    assert len(server.received) == 2


async def test_retries_are_few(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(fail(Code.UNAVAILABLE, "draining", DRAINING))
    async with client_class(server.target) as client:
        with pytest.raises(UnavailableError):
            await client.rank(["a"], user="u")
    assert len(server.received) == MAX_ATTEMPTS


async def test_a_dead_server_is_not_flooded(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(fail(Code.UNAVAILABLE, "draining", DRAINING))
    num_calls = 30
    async with client_class(server.target) as client:
        for _ in range(num_calls):
            with pytest.raises(UnavailableError):
                await client.rank(["a"], user="u")
    assert len(server.received) <= num_calls * 1.2


@pytest.mark.parametrize("code", NOT_RETRIED, ids=lambda code: code.name)
async def test_nothing_else_is_retried(
    client_class: AnyClient, server: RecordingServer, code: Code
) -> None:
    server.will(fail(code))
    async with client_class(server.target) as client:
        with pytest.raises(RankloomError):
            await client.rank(["a"], user="u")
    assert len(server.received) == 1


async def test_server_learns_the_sdk_version(
    client_class: AnyClient, server: RecordingServer
) -> None:
    async with client_class(server.target) as client:
        await client.rank(["a"], user="u")
    assert server.received[0].user_agent.startswith(f"rankloom-python/{__version__} ")


async def test_wait_ready(client_class: AnyClient, server: RecordingServer) -> None:
    async with client_class(server.target) as client:
        await client.wait_ready(5.0)
        assert (await client.rank(["a"], user="u")).items[0].item_id == "a"


async def test_no_server(client_class: AnyClient, server: RecordingServer) -> None:
    server.stop()
    async with client_class(server.target) as client:
        with pytest.raises(ConnectionFailedError, match=r"within 0\.2 s"):
            await client.wait_ready(0.2)
        with pytest.raises(ConnectionFailedError) as caught:
            await client.rank(["a"], user="u", request_id="r")
    assert (caught.value.status, caught.value.request_id) == ("UNAVAILABLE", "r")


async def test_client_finds_a_server_that_comes_back(client_class: AnyClient) -> None:
    with RecordingServer() as first:
        async with client_class(first.target, timeout_s=10.0) as client:
            await client.rank(["a"], user="u")
            first.stop()
            with RecordingServer(port=first.port) as second:
                await client.wait_ready(10.0)
                await client.rank(["a"], user="u")
    assert len(second.received) == 1


async def test_closed_client(client_class: AnyClient, server: RecordingServer) -> None:
    client = client_class(server.target)
    await client.rank(["a"], user="u")
    await client.close()
    await client.close()
    with pytest.raises(ClientClosedError):
        await client.rank(["a"], user="u")
    with pytest.raises(ClientClosedError):
        await client.wait_ready(1.0)


async def test_closing_ends_calls_in_flight(
    client_class: AnyClient, server: RecordingServer
) -> None:
    server.will(wait(30.0))
    client = client_class(server.target, timeout_s=20.0)
    call = asyncio.create_task(client.rank(["a"], user="u", request_id="r"))
    await until_received(server)
    await client.close()
    with pytest.raises(CallCancelledError) as caught:
        await call
    assert (caught.value.status, caught.value.request_id) == ("CANCELLED", "r")


async def test_cancelling_a_task_stays_a_cancellation(server: RecordingServer) -> None:
    server.will(wait(30.0))
    async with AsyncClient(server.target, timeout_s=20.0) as client:
        call = asyncio.create_task(client.rank(["a"], user="u"))
        await until_received(server)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.rank(["a"], user="u")


async def until_received(server: RecordingServer) -> None:
    async with asyncio.timeout(10.0):
        while not server.received:
            await asyncio.sleep(0.005)


def test_threads_share_one_client(server: RecordingServer) -> None:
    def rank(number: int) -> tuple[str, str]:
        ranking = client.rank([f"item-{number}"], user="u", request_id=str(number))
        return ranking.request_id, ranking.items[0].item_id

    with Client(server.target, timeout_s=20.0) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(rank, range(64)))
    assert answers == [(str(number), f"item-{number}") for number in range(64)]


async def test_tasks_share_one_client(server: RecordingServer) -> None:
    async with AsyncClient(server.target, timeout_s=20.0) as client:
        calls = [client.rank([f"item-{n}"], user="u", request_id=str(n)) for n in range(64)]
        rankings = await asyncio.gather(*calls)
    assert [(r.request_id, r.items[0].item_id) for r in rankings] == [
        (str(number), f"item-{number}") for number in range(64)
    ]


def test_both_clients_have_the_same_methods() -> None:
    sync, aio = public_signatures(Client), public_signatures(AsyncClient)
    assert sync == aio
    assert {"rank", "explain", "wait_ready", "close"} <= sync.keys()


def test_both_streams_have_the_same_methods() -> None:
    sync, aio = public_signatures(ExplanationStream), public_signatures(AsyncExplanationStream)
    assert {"result", "close"} <= sync.keys()
    assert sync.keys() == aio.keys()
    assert sync["result"] == aio["result"]


def public_signatures(kind: type) -> dict[str, str]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {
        name: str(inspect.signature(method)).replace("'Async", "'")
        for name, method in methods
        if not name.startswith("_") or name == "__init__"
    }


async def test_both_clients_give_equal_answers(server: RecordingServer) -> None:
    rankings = []
    for kind in (ThreadedClient, AsyncClient):
        async with kind(server.target) as client:
            rankings.append(await client.rank(["a", "b"], user="u", request_id="r"))
    assert rankings[0] == rankings[1]
    assert server.received[0].payload == server.received[1].payload


async def test_tls(client_class: AnyClient) -> None:
    key, certificate = self_signed("127.0.0.1")
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with RecordingServer(credentials=credentials) as server:
        async with client_class(server.target, root_certificates=certificate) as client:
            await client.rank(["a"], user="u")
        async with client_class(server.target) as stranger:
            with pytest.raises(ConnectionFailedError):
                await stranger.rank(["a"], user="u")
    assert len(server.received) == 1


def self_signed(address: str) -> tuple[bytes, bytes]:
    """Key and certificate of an address, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(addresses, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    whole = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(pem, *whole), certificate.public_bytes(pem)


async def test_root_certificates_with_plaintext_are_refused(client_class: AnyClient) -> None:
    with pytest.raises(InvalidRequestError, match="plaintext"):
        client_class("localhost:1", root_certificates=b"", plaintext=True)
