"""Addresses of servers: which forms are refused, and which proxy gRPC takes for them."""

from __future__ import annotations

import pytest

from rankloom import InvalidRequestError
from rankloom._address import checked_target, proxy_in_force

PROXY = {"http_proxy": "http://proxy.example.com:3128"}


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:50051", "ranker", "[::1]:50051", "unix:/run/r.sock", "unix:r.sock"),
        *("ranker:65535", "unix:/run/r:99999", "vsock:2:99999"),
        *("unix-abstract:r", "dns:///ranker:50051", "dns://8.8.8.8/ranker:50051"),
        *("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv6:[::1]:50051", "xds:///ranker"),
    ],
)
def test_forms_that_grpc_knows_are_taken(target: str) -> None:
    assert checked_target(target) == target


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("tcp://10.0.0.1:50051", "without tcp://"),
        ("http://ranker:50051", "without http://"),
        ("https://ranker:50051", "without https://"),
        ("::1:50051", r"brackets, as in \[::1\]:50051"),
        ("2001:db8::7", "brackets"),
        ("unix:", "unix:PATH"),
        ("127.0.0.1:99999", "the port is from 1 to 65535, not 99999"),
        ("ranker:0", "the port is from 1"),
        ("[::1]:65536", "the port is from 1"),
        ("dns:///ranker:70000", "the port is from 1"),
        ("ipv4:127.0.0.1:1,127.0.0.1:65536", "the port is from 1"),
        (50051, "str"),
    ],
)
def test_forms_that_grpc_would_misread_are_refused(target: str, advice: str) -> None:
    with pytest.raises(InvalidRequestError, match=advice) as caught:
        checked_target(target)
    assert caught.value.violations[0].field == "target"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (PROXY, ("http_proxy", "proxy.example.com:3128")),
        (PROXY | {"https_proxy": "http://other"}, ("https_proxy", "other")),
        (PROXY | {"https_proxy": "http://a:1", "grpc_proxy": "http://b:2"}, ("grpc_proxy", "b:2")),
        ({"http_proxy": "http://user:secret@[::7]:1"}, ("http_proxy", "[::7]:1")),
        (PROXY | {"grpc_proxy": ""}, None),
        ({"http_proxy": "socks5://proxy:1"}, None),
        ({"http_proxy": "http://proxy:many"}, None),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
        (PROXY | {"no_proxy": "other, ranker.example.com"}, None),
        (PROXY | {"no_proxy": ".example.com"}, None),
        (PROXY | {"no_proxy": "example.org"}, ("http_proxy", "proxy.example.com:3128")),
        (
            PROXY | {"no_proxy": "example.com", "no_grpc_proxy": ""},
            ("http_proxy", "proxy.example.com:3128"),
        ),
    ],
)
def test_the_proxy_is_the_one_that_grpc_takes(
    environment: dict[str, str], expected: tuple[str, str] | None
) -> None:
    found = proxy_in_force("ranker.example.com:50051", environment)
    assert (found and (found.variable, found.address)) == expected


@pytest.mark.parametrize(
    ("target", "exempt", "is_used"),
    [
        ("10.1.2.3:50051", "10.0.0.0/8", False),
        ("10.1.2.3:50051", "192.168.0.0/16", True),
        ("[2001:db8::7]:50051", "2001:db8::/32", False),
        ("10.1.2.3:50051", "not/a-network", True),
    ],
)
def test_networks_can_be_exempt(target: str, exempt: str, is_used: bool) -> None:
    assert (proxy_in_force(target, PROXY | {"no_proxy": exempt}) is not None) == is_used


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:1", "127.0.0.1:1", "[::1]:1", "ipv4:127.0.0.1:1,127.0.0.2:1"),
        *("unix:/run/r.sock", "unix-abstract:r", "vsock:2:50051"),
    ],
)
def test_calls_to_this_machine_need_no_proxy(target: str) -> None:
    assert proxy_in_force(target, PROXY) is None
