"""What the blocking clients share: one channel, and gRPC's failures as errors of the SDK."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from rankloom._endpoint import Endpoint
from rankloom._forks import check_process
from rankloom._policy import DEFAULT_TIMEOUT_S, checked_timeout_s, effective_timeout_s
from rankloom._rpc_errors import client_closed, error_from_rpc, not_connected

_Stub = TypeVar("_Stub")
Translating = Callable[[str], AbstractContextManager[None]]


class Connection:
    """A channel to one server, open until `close`; all threads may use it.

    The channel is made for the first call. A process that was forked makes one of its own.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        root_certificates: bytes | None = None,
        plaintext: bool = False,
    ) -> None:
        self._endpoint = Endpoint.checked(target, root_certificates, plaintext)
        self._timeout_s = checked_timeout_s(timeout_s)
        # By process id. A forked child keeps its parent's channel, unused: to destroy it would
        # wait for threads that the child does not have.
        self._channels: dict[int, grpc.Channel] = {}
        self._stubs: dict[grpc.Channel, Any] = {}
        self._closed = False

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=limit_s)
        except grpc.FutureTimeoutError:
            raise not_connected(self._endpoint.target, limit_s) from None
        finally:
            ready.cancel()

    def close(self) -> None:
        """Close the connection; calls in flight end with CallCancelledError."""
        self._closed = True
        if (channel := self._channels.get(os.getpid())) is not None:
            channel.close()

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

    def _translating(self, request_id: str = "") -> AbstractContextManager[None]:
        return _translating(self._endpoint.target, request_id)

    def _stub_of(self, make: Callable[[grpc.Channel], _Stub]) -> _Stub:
        """The stub of this process; always the same `make`. Raise ClientClosedError."""
        channel = self._channel
        if (stub := self._stubs.get(channel)) is None:
            stub = self._stubs.setdefault(channel, make(channel))
        found: _Stub = stub
        return found

    @property
    def _channel(self) -> grpc.Channel:
        """The channel of this process. Raise ClientClosedError after `close`."""
        if self._closed:
            raise client_closed()
        process = os.getpid()
        if (channel := self._channels.get(process)) is None:
            # Of two threads that come here at once, both get the channel of the first.
            channel = self._channels.setdefault(process, open_channel(self._endpoint))
        return channel


@contextmanager
def _translating(target: str, request_id: str) -> Iterator[None]:
    """Raise gRPC's failure of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id, target) from error
    except ValueError as error:
        # gRPC raises this for a closed channel. Testing the flag alone would leave a race.
        raise client_closed() from error


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """Return a channel, which connects when the first call is made.

    Raise ConnectionFailedError if this process cannot use gRPC.
    """
    check_process("blocking")
    if (credentials := endpoint.credentials) is None:
        return grpc.insecure_channel(endpoint.target, endpoint.options)
    return grpc.secure_channel(endpoint.target, credentials, endpoint.options)
