from __future__ import annotations

import math

import pytest

from rankloom import InvalidRequestError
from rankloom._policy import checked_timeout_s, uses_tls


@pytest.mark.parametrize("timeout_s", [0, -1, math.inf, math.nan, True, None, "2"])
def test_a_timeout_that_is_not_finite_and_positive_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        checked_timeout_s(timeout_s)
    assert caught.value.violations[0].field == "timeout_s"


@pytest.mark.parametrize("timeout_s", [1, 0.001, 3600.0])
def test_a_timeout_is_seconds(timeout_s: float) -> None:
    assert checked_timeout_s(timeout_s) == timeout_s


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "127.8.9.1:1",
        "[::1]:50051",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:50051",
        "ipv6:[::1]:50051",
        "unix:/run/rankloom.sock",
        "unix-abstract:rankloom",
    ],
)
def test_connections_to_this_machine_are_not_encrypted(target: str) -> None:
    assert not uses_tls(target, has_root_certificates=False, plaintext=False)
    assert uses_tls(target, has_root_certificates=True, plaintext=False)


@pytest.mark.parametrize(
    "target",
    [
        "ranker:50051",
        "10.0.0.7:50051",
        "[2001:db8::1]:50051",
        "localhost.example.com:50051",
        "dns://8.8.8.8/localhost:50051",
        "ipv4:127.0.0.1:1,10.0.0.7:1",
        "0.0.0.0:50051",
        "ranker",
        "",
    ],
)
def test_connections_to_other_machines_are_encrypted_by_default(target: str) -> None:
    assert uses_tls(target, has_root_certificates=False, plaintext=False)
    assert not uses_tls(target, has_root_certificates=False, plaintext=True)
