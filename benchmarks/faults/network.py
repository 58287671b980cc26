"""A network that can fail: a TCP proxy in front of a server, with a switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto


class Line(Enum):
    """``REFUSING``: as without the server's process. ``SILENT``: packets vanish, both ways."""

    WORKING = auto()
    REFUSING = auto()
    SILENT = auto()


class FaultyNetwork:
    """Forwards connections to a port. A connection that was once silent stays so for ever."""

    def __init__(self, target: int) -> None:
        self._target, self._line = target, Line.WORKING
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()  # set for the connections that are open when it falls silent
        self.port = 0

    async def switch(self, line: Line) -> None:
        """Changes what becomes of connections, of open ones too."""
        self._line = line
        if line is Line.SILENT:
            self._lost.set()
        self._lost = asyncio.Event()
        if line is Line.REFUSING:
            await self.close()
        elif self._server is None:
            await self.open()

    async def open(self) -> None:
        """Listens, on the former port if there was one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuses connections, and ends those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            try:
                await self._forwarded(reader, writer)
            finally:
                writer.transport.abort()

    async def _forwarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._line is Line.SILENT:
            await asyncio.Event().wait()
        lost = self._lost
        to_server = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copied(reader, to_server[1], lost))
                group.create_task(_copied(to_server[0], writer, lost))
        except* OSError:
            pass
        finally:
            to_server[1].transport.abort()


async def _copied(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
) -> None:
    while data := await reader.read(1 << 16):
        if not lost.is_set():
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def faulty_network(target: int) -> AsyncIterator[FaultyNetwork]:
    """In front of a port of this machine."""
    network = FaultyNetwork(target)
    await network.open()
    try:
        yield network
    finally:
        await network.close()
