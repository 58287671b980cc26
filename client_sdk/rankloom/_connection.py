"""What the blocking clients share: one channel, and gRPC's failures as errors of the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from rankloom._policy import CHANNEL_OPTIONS, checked_timeout_s, effective_timeout_s, uses_tls
from rankloom._rpc_errors import client_closed, error_from_rpc, not_connected


class Connection:
    """A channel to one server, open until `close`; all threads may use it."""

    def __init__(
        self, target: str, timeout_s: float, root_certificates: bytes | None, plaintext: bool
    ) -> None:
        self._target = target
        self._timeout_s = checked_timeout_s(timeout_s)
        self._channel = _open_channel(target, root_certificates, plaintext)
        self._closed = False

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        if self._closed:
            raise client_closed()
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=limit_s)
        except grpc.FutureTimeoutError:
            raise not_connected(self._target, limit_s) from None
        finally:
            ready.cancel()

    def close(self) -> None:
        """Close the connection; calls in flight end with CallCancelledError."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _limit_s(self, timeout_s: float | None) -> float:
        return effective_timeout_s(timeout_s, self._timeout_s)


@contextmanager
def translating(request_id: str = "") -> Iterator[None]:
    """Raise gRPC's failure of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id) from error
    except ValueError as error:
        # gRPC raises this for a closed channel. Testing the flag alone would leave a race.
        raise client_closed() from error


def _open_channel(target: str, root_certificates: bytes | None, plaintext: bool) -> grpc.Channel:
    has_roots = root_certificates is not None
    if not uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext):
        return grpc.insecure_channel(target, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
