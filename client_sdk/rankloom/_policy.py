"""How calls are sent: deadlines, retries, keepalive, sizes, TLS. Numbers and rules; no gRPC.

gRPC itself retries: it knows whether the server has seen the call, honours the server's
pushback, and stops at the call's deadline.
"""

from __future__ import annotations

import json
import math
from typing import Final

from rankloom._address import is_loopback
from rankloom._version import __version__
from rankloom.errors import InvalidRequestError

DEFAULT_TIMEOUT_S: Final = 2.0
ROLLOUT_TIMEOUT_S: Final = 10.0  # a change waits for the previous one, and for the disk
STAGING_TIMEOUT_S: Final = 300.0
MAX_ATTEMPTS: Final = 3
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024  # of a request: what servers take
ANY_SIZE: Final = -1  # of an answer: features of 256 users with 500 items each have 30 MiB

_SERVICE_CONFIG: Final = {
    # Calls are spread over all addresses of the target; a restarting server gets none.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            # Safe for changes of a rollout too: their idempotency key makes a repeat do nothing.
            "name": [
                {"service": "rankloom.v1.RankingService"},
                {"service": "rankloom.v1.FeatureService"},
                {"service": "rankloom.v1.RolloutService"},
            ],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                # CANCELLED comes from a server that stops just when the call arrives.
                # RESOURCE_EXHAUSTED is missing: retries would keep a server overloaded.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Over time at most one retry per ten answered calls, so that a dead fleet is not flooded.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # A server with gRPC's defaults hangs up if pings come more often than every 300 s. The timeout
    # also bounds how long sent bytes may stay unacknowledged, so calls notice a dead peer.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default gRPC waits up to two minutes before it tries again to reach a lost server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # When a connection ends, the target's name is looked up again, so that added servers are found.
    # By default gRPC keeps what it found for 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.max_receive_message_length", ANY_SIZE),
    ("grpc.primary_user_agent", f"rankloom-python/{__version__}"),
)


def checked_timeout_s(timeout_s: float, field: str = "timeout_s") -> float:
    """Return the timeout if it is finite and positive: every call has a deadline."""
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not math.isfinite(timeout_s) or timeout_s <= 0:
        raise InvalidRequestError.of_field(field, "must be a positive number of seconds")
    return float(timeout_s)


def effective_timeout_s(of_call: float | None, of_client: float) -> float:
    """Return the time that a call has: its own timeout, or else the client's."""
    return of_client if of_call is None else checked_timeout_s(of_call)


def uses_tls(target: str, *, has_root_certificates: bool, plaintext: bool) -> bool:
    """Return whether to encrypt: always, except to this machine or if `plaintext` is set."""
    if has_root_certificates and plaintext:
        raise InvalidRequestError.of_field("plaintext", "cannot be combined with root_certificates")
    return has_root_certificates or not (plaintext or is_loopback(target))
