"""A real HTTP server that answers chat completions as a test says, also badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class ServerReply:
    """``missing``: bytes that Content-Length promises beyond the body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0


def says(text: str, *, cut: bool = False, tokens: int | None = 50) -> ServerReply:
    """A chat completion. ``tokens``: None for a server that does not count."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "length" if cut else "stop",
    }
    usage = {} if tokens is None else {"usage": {"total_tokens": tokens}}
    return ServerReply(json.dumps({"choices": [choice], **usage}).encode())


class ChatServer:
    """``answer``: from the messages of a call, and how many calls came before it, to a reply."""

    def __init__(self, answer: Callable[[Messages, int], ServerReply]) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, path: str, key: str | None, body: bytes) -> ServerReply:
        call = json.loads(body)
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            self.keys.append(key)
        if path != "/v1/chat/completions":
            return ServerReply(b"no such path", 404)
        return self.answer(call["messages"], number)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class ChatHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = server.reply(self.path, self.headers["Authorization"], body)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) + reply.missing))
                self.end_headers()
                self.wfile.write(reply.body)
                self.close_connection = bool(reply.missing)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        return ChatHandler


@contextmanager
def serving(answer: Callable[[Messages, int], ServerReply]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    try:
        yield server
    finally:
        server.close()
