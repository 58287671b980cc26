"""A gRPC server in this process, on a free port."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import grpc

_NUM_THREADS: Final = 32  # each call in progress takes one


class InProcessServer:
    """A context manager: serves from its start until its end.

    `target`: its address, for a client. `port`: of it. The server stands before it is started,
    so `target` is known at once.
    """

    def __init__(
        self,
        add_services: Callable[[grpc.Server], None],
        *,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "fake-rankloom")
        self._server = grpc.server(self._threads)
        add_services(self._server)
        address = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.target = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve; for where a `with` block does not fit."""
        self._server.start()

    def stop(self) -> None:
        """End all calls at once, and serve no more."""
        self._server.stop(grace=None).wait()
        self._threads.shutdown(wait=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
