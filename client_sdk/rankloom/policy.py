"""How calls are sent: deadlines, retries, keepalive, sizes, TLS. Numbers and rules; no gRPC.

Retries are left to gRPC's own machinery: it knows whether the server has seen the call, honours
the server's pushback, and stops at the call's deadline.
"""

from __future__ import annotations

import json
import math
from ipaddress import ip_address
from typing import Final

from rankloom._version import __version__
from rankloom.errors import InvalidRequestError

DEFAULT_TIMEOUT_S: Final = 2.0
ROLLOUT_TIMEOUT_S: Final = 10.0  # a change waits for the one before it, and for the disk
STAGING_TIMEOUT_S: Final = 300.0
MAX_ATTEMPTS: Final = 3
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

_SERVICE_CONFIG: Final = {
    # Every address of the target gets its share, and a restarting server is passed over.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            # A change of rollouts has a key: sent twice, it is done once.
            "name": [
                {"service": "rankloom.v1.RankingService"},
                {"service": "rankloom.v1.RolloutService"},
            ],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                # An overloaded server is not on the list: retries would keep it so.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Over time at most one retry per ten answered calls: a dead fleet is not hit threefold.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Pings more often than every 300 s make a server with gRPC's defaults hang up. The timeout
    # also bounds how long sent bytes may stay unacknowledged, so a dead peer is found by calls.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's default waits up to two minutes before it looks again for a server that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", f"rankloom-python/{__version__}"),
)


def checked_timeout_s(timeout_s: float) -> float:
    """Return the timeout, or raise InvalidRequestError: every call has a finite deadline."""
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not math.isfinite(timeout_s) or timeout_s <= 0:
        raise InvalidRequestError.of_field("timeout_s", "must be a positive number of seconds")
    return float(timeout_s)


def uses_tls(target: str, *, has_root_certificates: bool, plaintext: bool) -> bool:
    """Return whether to encrypt: always, but to this machine or where the caller says not to."""
    if not _is_text(target):
        raise InvalidRequestError.of_field("target", "must be text that can be sent as UTF-8")
    if has_root_certificates and plaintext:
        raise InvalidRequestError.of_field("plaintext", "cannot be combined with root_certificates")
    return has_root_certificates or not (plaintext or _is_loopback(target))


def _is_text(target: str) -> bool:
    """Whether it has a form in UTF-8; bytes of a command line may have none."""
    try:
        target.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_loopback(target: str) -> bool:
    """Whether the gRPC target can only be this machine; in doubt, no."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:")
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
