"""A name server on a free UDP port, whose answers a test can change."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_HEADER_BYTES = 12
_TYPE_A = 1
_ANSWER = 0x8180  # an answer without an error
_SAME_NAME = 0xC00C  # a pointer to the name in the question


class NameServer:
    """Every name has these IPv4 `addresses`, and nothing else."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        host, port = self._socket.getsockname()
        self.target = f"{host}:{port}"
        self._thread = threading.Thread(target=self._answer_all, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _answer_all(self) -> None:
        while True:
            query, caller = self._socket.recvfrom(1024)
            if not query:
                return
            self._socket.sendto(self._answer(query), caller)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(0, _HEADER_BYTES) + 1
        (kind,) = struct.unpack_from("!H", query, end)
        found = self.addresses if kind == _TYPE_A else ()
        header = query[:2] + struct.pack("!HHHHH", _ANSWER, 1, len(found), 0, 0)
        records = (
            struct.pack("!HHHIH4s", _SAME_NAME, _TYPE_A, 1, 0, 4, socket.inet_aton(address))
            for address in found
        )
        return header + query[_HEADER_BYTES : end + 4] + b"".join(records)
