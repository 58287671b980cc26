"""Addresses that a server listens on: IPv6, Unix sockets, and what is there already."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import grpc
import pytest

from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest, GetUserFeaturesResponse
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_server.errors import ListenError
from rankloom_server.rpc.listening import ListenAddress
from server.servers import behaving_server

OLD_MASK = 0o022


async def answer(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
    return GetUserFeaturesResponse()


async def call(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await FeatureServiceStub(channel).GetUserFeatures(GetUserFeaturesRequest(), timeout=10)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", 1, "127.0.0.1:1"),
        ("localhost", 2, "localhost:2"),
        ("::", 3, "[::]:3"),
        ("[::]", 4, "[::]:4"),
        ("[::1]", 5, "[::1]:5"),
        ("unix:/run/r.sock", 6, "unix:/run/r.sock"),
        ("unix:r.sock", 7, f"unix:{Path.cwd()}/r.sock"),
    ],
)
def test_an_address_reads_as_clients_write_it(host: str, port: int, expected: str) -> None:
    assert str(ListenAddress(host, port)) == expected


@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
async def test_ipv6_is_listened_on(host: str) -> None:
    server = behaving_server(answer)
    bound = await server.start_at(ListenAddress(host))
    await server.open()
    await call(f"[::1]:{bound.port}")
    if "::1" not in host:
        await call(f"127.0.0.1:{bound.port}")
    await server.grpc.stop(None)


@pytest.fixture
def address(tmp_path: Path) -> ListenAddress:
    return ListenAddress(f"unix:{tmp_path}/ranking.sock")


async def test_a_socket_serves_and_goes_with_its_server(address: ListenAddress) -> None:
    server = behaving_server(answer)
    assert await server.start_at(address) == address
    await server.open()
    await call(str(address))
    await server.drain(1)
    assert address.path
    assert not address.path.exists()


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, "srw-------"), (0o660, "srw-rw----"), (0o666, "srw-rw-rw-")]
)
async def test_a_socket_has_its_permissions(
    address: ListenAddress, mode: int, expected: str
) -> None:
    os.umask(OLD_MASK)
    server = behaving_server(answer)
    await server.start_at(address, mode)
    assert address.path
    assert stat.filemode(address.path.stat().st_mode) == expected
    assert os.umask(OLD_MASK) == OLD_MASK
    await server.grpc.stop(None)


async def test_the_socket_of_a_live_server_is_refused(address: ListenAddress) -> None:
    server = behaving_server(answer)
    await server.start_at(address)
    await server.open()
    with pytest.raises(ListenError, match=f"^cannot listen on {address}: another server listens"):
        await behaving_server(answer).start_at(address)
    await call(str(address))
    await server.grpc.stop(None)


async def test_the_socket_of_a_dead_server_is_replaced(address: ListenAddress) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.path))
        dead.listen()
    assert address.path
    assert address.path.exists()
    server = behaving_server(answer)
    await server.start_at(address)
    await server.open()
    await call(str(address))
    await server.grpc.stop(None)


async def test_a_file_is_left_alone(address: ListenAddress) -> None:
    assert address.path
    address.path.write_text("kept")
    with pytest.raises(ListenError, match="not a socket; choose another path"):
        await behaving_server(answer).start_at(address)
    assert address.path.read_text() == "kept"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no-folder/ranking.sock", "No such file or directory"),
        ("r" * 200, "at most 107 bytes"),
    ],
)
async def test_an_impossible_path_is_refused(path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=reason):
        await behaving_server(answer).start_at(ListenAddress(f"unix:{tmp_path}/{path}"))
