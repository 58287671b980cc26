"""What the asyncio clients share: a channel for each loop, and gRPC's failures as SDK errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from rankloom._endpoint import Endpoint
from rankloom._forks import check_process
from rankloom._policy import DEFAULT_TIMEOUT_S, checked_timeout_s, effective_timeout_s
from rankloom._rpc_errors import (
    call_closed,
    client_closed,
    error_from_rpc,
    not_connected,
    unreadable_answer,
)

_Stub = TypeVar("_Stub")
_Message = TypeVar("_Message")


@dataclass(slots=True, eq=False)
class _LoopChannel:
    """A channel, which works in the event loop that it was made in, and its stub."""

    channel: grpc.aio.Channel
    process: int
    stub: Any = None


class AsyncConnection:
    """Channels to one server, one for each event loop that makes a call, open until `close`."""

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
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopChannel] = {}
        self._closed = False

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                await self._here().channel.channel_ready()
        except TimeoutError:
            raise not_connected(self._endpoint.target, limit_s) from None
        except grpc.aio.UsageError as error:
            raise client_closed() from error

    async def close(self) -> None:
        """Close all connections; calls in flight end with CallCancelledError."""
        self._closed = True
        here = asyncio.get_running_loop()
        for loop, opened in self._own_channels():
            if loop is here:
                await opened.channel.close()
            elif loop.is_running():  # in another thread
                asyncio.run_coroutine_threadsafe(opened.channel.close(), loop)
            self._by_loop.pop(loop, None)

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

    def _translating(self, request_id: str = "") -> AbstractContextManager[None]:
        return _translating(self._endpoint.target, request_id)

    def _stub_of(self, make: Callable[[grpc.aio.Channel], _Stub]) -> _Stub:
        """The stub of the running loop; always the same `make`. Raise ClientClosedError."""
        here = self._here()
        if here.stub is None:
            here.stub = make(here.channel)
        found: _Stub = here.stub
        return found

    def _here(self) -> _LoopChannel:
        """The channel of the running loop. Raise ClientClosedError after `close`.

        Raise RuntimeError if no loop runs.
        """
        if self._closed:
            raise client_closed()
        loop = _running_loop()
        if (found := self._by_loop.get(loop)) is None:
            found = self._by_loop[loop] = _LoopChannel(_open_channel(self._endpoint), os.getpid())
            self._forget_ended_loops()
        return found

    def _forget_ended_loops(self) -> None:
        """Let their channels go: gRPC destroys one that nobody refers to."""
        for loop, _ in self._own_channels():
            if loop.is_closed():
                self._by_loop.pop(loop, None)

    def _own_channels(self) -> list[tuple[asyncio.AbstractEventLoop, _LoopChannel]]:
        """Those of this process. A forked child keeps its parent's: to destroy one crashes it."""
        process = os.getpid()
        return [each for each in list(self._by_loop.items()) if each[1].process == process]


def readable(response: _Message | None, request_id: str = "") -> _Message:
    """Return the response. Raise ServerError for bytes that are no message.

    gRPC's asyncio gives None for such bytes, where its blocking calls raise.
    """
    if response is None:
        raise unreadable_answer(request_id)
    return response


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "an asyncio client makes calls inside a running event loop; call it in a coroutine, "
            "or use the blocking client"
        ) from None


@contextmanager
def _translating(target: str, request_id: str) -> Iterator[None]:
    """Raise gRPC's failure of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id, target) from error
    except grpc.aio.UsageError as error:
        raise client_closed() from error
    except asyncio.CancelledError as error:
        # gRPC also raises this for a call that was closed on this side. Only the task itself
        # knows whether somebody cancelled it.
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            raise
        raise call_closed(request_id) from error


def _open_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    check_process("asyncio")
    if (credentials := endpoint.credentials) is None:
        return grpc.aio.insecure_channel(endpoint.target, endpoint.options)
    return grpc.aio.secure_channel(endpoint.target, credentials, endpoint.options)
