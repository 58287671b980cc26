"""Where a server listens: a TCP address or a Unix socket, and whether something else does.

gRPC itself takes a Unix socket over from a server that lives, and only prints why it cannot
listen. So both are found out before.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rankloom_server.errors import ListenError

_SOCKET: Final = "unix:"
_MAX_PATH_BYTES: Final = 107  # of a socket; the system's limit
_CONNECT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """``host``: an address or name, an IPv6 address with or without brackets, or `unix:PATH`.

    ``port``: 0 takes any free one; a socket has none. ``str`` gives what clients connect to.
    """

    host: str
    port: int = 0

    @property
    def path(self) -> Path | None:
        """Of the Unix socket, if it is one."""
        found = self.host.removeprefix(_SOCKET)
        return None if found == self.host else Path(found).absolute()

    @property
    def bare_host(self) -> str:
        """Without brackets, as the system's functions take it."""
        return self.host.strip("[]")

    def on(self, port: int) -> ListenAddress:
        """The same host with the port that was taken."""
        return self if self.path else replace(self, port=port)

    def __str__(self) -> str:
        if self.path:
            return f"{_SOCKET}{self.path}"
        return f"[{self.bare_host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def error(self, reason: str) -> ListenError:
        taken = reason.lower() == os.strerror(errno.EADDRINUSE).lower()
        remedy = "; stop what listens there, or choose another port" if taken else ""
        return ListenError(f"cannot listen on {self}: {reason}{remedy}")


async def check_free(address: ListenAddress) -> None:
    """Raises ListenError with the reason why nothing can listen there.

    A socket that a killed server left behind is removed.
    """
    check_socket(address)
    if address.path:
        return
    loop = asyncio.get_running_loop()
    try:
        probe = await loop.create_server(asyncio.Protocol, address.bare_host, address.port)
    except OSError as error:
        raise address.error(str(error.strerror).rpartition(": ")[2]) from error
    probe.close()
    await probe.wait_closed()


async def check_all_free(addresses: Iterable[ListenAddress | None]) -> None:
    """`check_free` of each that is given. Raises ListenError also for one that is given twice."""
    given = [address for address in addresses if address is not None]
    times = Counter(map(str, given))
    for address in given:
        if times[str(address)] > 1 and (address.path or address.port):
            raise address.error("two services have this address; give one of them another")
        await check_free(address)


@contextmanager
def socket_mode(mode: int) -> Iterator[None]:
    """Unix sockets that are made in the block have these permissions from the start."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def check_socket(address: ListenAddress) -> None:
    """`check_free` of a Unix socket; nothing for a TCP address."""
    if (path := address.path) is None:
        return
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise address.error(f"a socket's path has at most {_MAX_PATH_BYTES} bytes; choose another")
    try:
        if path.exists():
            _remove_dead(address, path)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        raise address.error(str(error.strerror)) from error


def _remove_dead(address: ListenAddress, path: Path) -> None:
    """Removes the socket of a server that is gone. Raises ListenError if it is not."""
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise address.error("there is a file that is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # nobody listens
            path.unlink(missing_ok=True)
            return
        except (TimeoutError, BlockingIOError):
            pass  # a server that is too busy to answer
    raise address.error("another server listens there")
