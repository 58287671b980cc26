"""What the asyncio clients share: one channel, and gRPC's failures as errors of the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from rankloom._policy import CHANNEL_OPTIONS, checked_timeout_s, effective_timeout_s, uses_tls
from rankloom._rpc_errors import call_closed, client_closed, error_from_rpc, not_connected


class AsyncConnection:
    """A channel to one server, open until `close`; make it inside the event loop that uses it."""

    def __init__(
        self, target: str, timeout_s: float, root_certificates: bytes | None, plaintext: bool
    ) -> None:
        self._target = target
        self._timeout_s = checked_timeout_s(timeout_s)
        self._channel = _open_channel(target, root_certificates, plaintext)

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                await self._channel.channel_ready()
        except TimeoutError:
            raise not_connected(self._target, limit_s) from None
        except grpc.aio.UsageError as error:
            raise client_closed() from error

    async def close(self) -> None:
        """Close the connection; calls in flight end with CallCancelledError."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _limit_s(self, timeout_s: float | None) -> float:
        return effective_timeout_s(timeout_s, self._timeout_s)


@contextmanager
def translating(request_id: str = "") -> Iterator[None]:
    """Raise gRPC's failure of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id) from error
    except grpc.aio.UsageError as error:
        raise client_closed() from error
    except asyncio.CancelledError as error:
        # gRPC also raises this for a call that was closed on this side. Only the task itself
        # knows whether somebody cancelled it.
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            raise
        raise call_closed(request_id) from error


def _open_channel(
    target: str, root_certificates: bytes | None, plaintext: bool
) -> grpc.aio.Channel:
    has_roots = root_certificates is not None
    if not uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext):
        return grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
