"""The life cycle of a server: listen, report health, stop without dropping a call."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rankloom_server import logs
from rankloom_server.admission import Admission, AdmissionState
from rankloom_server.config import ServerSettings
from rankloom_server.metrics import ServerMetrics
from rankloom_server.metrics_http import metrics_served
from rankloom_server.rpc.identity import Token
from rankloom_server.rpc.interceptors import Boundary
from rankloom_server.rpc.listening import ListenAddress, check_free, socket_mode

Facts = Mapping[str, object]

MAX_MESSAGE_BYTES = 4 << 20  # of rollout commands, among them the pieces of an upload
FLUSH_S = 0.5  # for the last answers to leave
CROSSING_S = 0.1  # in which calls still come that callers sent before they heard of the end
CLOSE_S = 1.5  # for what goes on beside calls; then the process ends nevertheless

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS: Final = (
    # Otherwise two servers may share a port, each with its own bundle, and nobody notices.
    ("grpc.so_reuseport", 0),
    # Finds callers that are gone, so that they do not hold connections for ever.
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_DEFAULT_MODE: Final = 0o660
_ANY_PORT: Final = ListenAddress("127.0.0.1")


class RpcServer:
    """A gRPC server with health, admission and drain; services are added to ``grpc``."""

    def __init__(
        self,
        admission: Admission,
        services: Sequence[str],
        *,
        warm_up: Callable[[], Awaitable[Facts]],
        reflects: bool,
        metrics: ServerMetrics | None = None,
        token: Token | None = None,
        connection_age_s: float = 0.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """``warm_up``: runs before calls are taken; its facts go into the log line "serving".

        ``token``: what callers must bring. ``metrics``: shared with another server.
        ``connection_age_s``: after about this time a caller connects anew; 0 for never.
        """
        self.metrics = metrics or ServerMetrics()
        boundary = Boundary(admission, self.metrics, token)
        self.grpc = grpc.aio.server(
            interceptors=[boundary], options=_options(connection_age_s, max_message_bytes)
        )
        self._admission = admission
        self._health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        self._services = ("", *services)
        self._warm_up = warm_up
        self.beside: list[tuple[RpcServer, ListenAddress]] = []
        """Other servers of callers, which listen as long as this one serves."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if reflects:
            names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.grpc)

    async def serve(
        self,
        settings: ServerSettings,
        admin: RpcServer | None = None,
        admin_address: ListenAddress | None = None,
    ) -> None:
        """Takes calls until a signal to stop, then drains. Raises StartError.

        ``admin``: listens on ``admin_address`` as long as this server serves; by default on any
        free port.
        From the signal on, the process ends within ``drain_delay_s``, ``drain_s`` and CLOSE_S, even
        if a thread hangs: what it keeps on disk survives that.
        """
        stop = stop_event()
        registry, mode = self.metrics.registry, settings.socket_bits
        with metrics_served(registry, settings.metrics_address, mode):
            opening = asyncio.create_task(self._all_serving(settings, admin, admin_address))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                end_process_in(CLOSE_S)
                opening.cancel()
                await asyncio.wait({opening})
                logs.write("stopped", all_ended=True)
                return
            try:
                opening.result()
            except BaseException:
                stopping.cancel()
                raise
            await stopping
            await self._all_drained(settings, admin)

    async def _all_serving(
        self,
        settings: ServerSettings,
        admin: RpcServer | None,
        admin_address: ListenAddress | None,
    ) -> None:
        await self._serving(settings.address, settings.socket_bits)
        if admin:
            await admin._serving(admin_address or _ANY_PORT, settings.socket_bits)
        for other, address in self.beside:
            await other._serving(address, settings.socket_bits)

    async def _all_drained(self, settings: ServerSettings, admin: RpcServer | None) -> None:
        end_process_in(settings.drain_delay_s + settings.drain_s + CLOSE_S)
        await self.announce_end(settings.drain_delay_s)
        drains = [self.drain(settings.drain_s)]
        drains += [other.drain(settings.drain_s) for other, _ in self.beside]
        if admin:
            drains.append(admin.drain(min(2 * FLUSH_S, settings.drain_s)))
        await asyncio.gather(*drains)
        end_process_in(CLOSE_S)

    async def _serving(self, address: ListenAddress, mode: int) -> None:
        bound = await self.start_at(address, mode)
        facts = await self.open()
        logs.write("serving", address=str(bound), **facts)

    async def start(self, host: str, port: int) -> int:
        """Listens, not serving yet; returns the port. Raises ListenError."""
        return (await self.start_at(ListenAddress(host, port))).port

    async def start_at(self, address: ListenAddress, mode: int = _DEFAULT_MODE) -> ListenAddress:
        """Listens, not serving yet; returns the address with the port that was taken.

        ``mode``: the permissions of a Unix socket. Raises ListenError.
        """
        for service in self._services:
            await self._health.set(service, _NOT_SERVING)
        await check_free(address)
        try:
            with socket_mode(mode):
                bound = address.on(self.grpc.add_insecure_port(str(address)))
        except RuntimeError as error:
            raise address.error(str(error)) from error
        await self.grpc.start()
        return bound

    async def open(self) -> Facts:
        """Warms up, then takes calls and reports SERVING. Raises what the warm-up raises."""
        try:
            facts = await self._warm_up()
        except BaseException:
            await self.grpc.stop(None)
            raise
        self._admission.open()
        for service in self._services:
            await self._health.set(service, _SERVING)
        return facts

    async def announce_end(self, delay_s: float) -> None:
        """Reports NOT_SERVING, and still takes calls for this time: callers notice it late."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(delay_s)

    async def report_working(self, works: bool) -> None:
        """Between `open` and `drain`: takes calls and reports SERVING, or neither."""
        if self._admission.state in (AdmissionState.STARTING, AdmissionState.DRAINING):
            return
        if works:
            self._admission.open()
        else:
            self._admission.stall()
        for service in self._services:
            await self._health.set(service, _SERVING if works else _NOT_SERVING)

    async def drain(self, drain_s: float) -> None:
        """Reports NOT_SERVING, takes no more calls, lets calls in flight end, and stops.

        gRPC stops at once, since this tells callers to connect anew: behind one address of several
        servers, a caller would otherwise send each call, and each retry, to this one.
        """
        started = time.monotonic()
        await self._health.enter_graceful_shutdown()
        stopped = asyncio.create_task(self.grpc.stop(drain_s))
        await asyncio.sleep(min(CROSSING_S, drain_s))
        all_ended = await self._admission.drain(max(0.0, drain_s - FLUSH_S))
        left_s = max(0.0, drain_s - (time.monotonic() - started))
        await self.grpc.stop(min(FLUSH_S, left_s) if all_ended else None)
        await stopped
        logs.write("stopped", all_ended=all_ended)


def _options(connection_age_s: float, max_message_bytes: int) -> tuple[tuple[str, int], ...]:
    """gRPC varies the age by a tenth, so that callers do not all come back at once.

    Calls that run on an old connection end there, however long they take.
    """
    options = (*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes))
    if not connection_age_s:
        return options
    return (*options, ("grpc.max_connection_age_ms", max(1, round(connection_age_s * 1e3))))


def end_process_in(seconds: float) -> None:
    """Ends the process then, if it has not ended by itself; whatever its threads do."""

    def end() -> None:
        logs.write("abandoned", reason="a thread did not end in time")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def stop_event() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def heard() -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for each in _SIGNALS:
        loop.add_signal_handler(each, heard)
    return stop
