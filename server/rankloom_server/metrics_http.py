"""GET /metrics for Prometheus, on a TCP port or a Unix socket, in a thread of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from rankloom_server.rpc.listening import ListenAddress, check_socket, socket_mode


@contextmanager
def metrics_served(
    registry: CollectorRegistry, address: ListenAddress | None, mode: int = 0o660
) -> Iterator[None]:
    """Answers while the block runs, if there is an address. Raises ListenError.

    ``mode``: the permissions of a Unix socket.
    """
    if address is None:
        yield
        return
    try:
        server, thread = _started(registry, address, mode)
    except OSError as error:
        raise address.error(str(error.strerror)) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if address.path:
            address.path.unlink(missing_ok=True)


def _started(
    registry: CollectorRegistry, address: ListenAddress, mode: int
) -> tuple[WSGIServer, Thread]:
    check_socket(address)
    if address.path is None:
        return start_http_server(address.port, address.bare_host, registry)
    with socket_mode(mode):
        server = _SocketServer(cast("Any", str(address.path)), _Handler)
    server.set_app(make_wsgi_app(registry))
    thread = Thread(target=server.serve_forever, name="rankloom-metrics", daemon=True)
    thread.start()
    return server, thread


class _SocketServer(ThreadingMixIn, WSGIServer):
    """The library's server takes host and port for granted; a socket has neither."""

    address_family = socket.AF_UNIX
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        return connection, ("localhost", 0)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
