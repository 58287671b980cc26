"""A disk that fails under a rollout: rankings go on, and nothing half is ever seen."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from rankloom_adapters.store import BundleStore
from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_proto.v1.rollout_pb2_grpc import RolloutServiceStub
from server.rankings import request, scores
from server.rollouts import (
    Running,
    expert_folder,
    key,
    other_bundle,
    rolling_out,
    state_name,
    upload_of,
)
from server.served_parts import ServedParts
from server.servers import Failure, failure_in, failure_of

CODES = {
    errno.ENOSPC: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EROFS: grpc.StatusCode.UNAVAILABLE,
    errno.EIO: grpc.StatusCode.UNAVAILABLE,
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = ("os.mkdir", "os.rename", "os.link", "tempfile.mkdtemp")


class FailingDisk:
    """Every write under a folder is counted; one of them can be told to fail."""

    def __init__(self) -> None:
        self.folder, self.error = "", 0
        self.failed = ("", "")
        self.num_writes, self.failing = 0, -1
        self._fsync = os.fsync
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or (event != "open" and event not in _EVENTS):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        if str(arguments[0]).startswith(self.folder):
            self._count(event, str(arguments[0]))

    def _count(self, event: str, path: str) -> None:
        self.num_writes += 1
        if self.num_writes - 1 == self.failing:
            self.failed = (event, Path(path).name)
            raise OSError(self.error, os.strerror(self.error))

    def fsync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if self.folder and path.startswith(self.folder):
            self._count("fsync", path)
        self._fsync(handle)

    @contextmanager
    def fails_at(self, folder: Path, failing: int, error: int) -> Iterator[None]:
        self.num_writes, self.failing, self.error, self.failed = 0, failing, error, ("", "")
        self.folder = str(folder)
        try:
            yield
        finally:
            self.folder = ""


_DISK: list[FailingDisk] = []  # a hook is there for good: one is enough


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    if not _DISK:
        _DISK.append(FailingDisk())
    monkeypatch.setattr(os, "fsync", _DISK[0].fsync)
    return _DISK[0]


async def _refusal(server: Running, **source: object) -> Failure | None:
    """How a staging was refused; None where it was not."""
    message = rollout_pb2.StageRequest(
        expected_revision=1,
        idempotency_key=key(),
        **source,  # type: ignore[arg-type]
    )
    call = server.rollouts.Stage(message, timeout=60)
    try:
        await call
    except grpc.aio.AioRpcError:
        return await failure_of(call)
    return None


Stage = Callable[[Running], Awaitable[Failure | None]]


def _stagings(served: Path, folder: Path) -> dict[str, Stage]:
    """The three ways in which files come."""
    other = other_bundle(served, folder / "other")
    files = expert_folder(served, "global", folder / "files", 2.0)

    async def upload(server: Running) -> Failure | None:
        header = rollout_pb2.StageUploadHeader(
            expert="global", expected_revision=1, idempotency_key=key()
        )
        messages = [message async for message in upload_of(header, files)]

        def call() -> None:
            # gRPC's aio client calls it INTERNAL where a stream is refused before its end.
            with grpc.insecure_channel(server.rollout_address) as channel:
                RolloutServiceStub(channel).StageUpload(iter(messages), timeout=60)

        try:
            await asyncio.to_thread(call)
        except grpc.RpcError as error:
            return failure_in(error)
        return None

    source = rollout_pb2.ExpertSource(name="global", url=str(files))
    return {
        "bundle": lambda server: _refusal(server, bundle_url=str(other)),
        "expert": lambda server: _refusal(server, expert=source),
        "upload": upload,
    }


async def _live(server: Running) -> list[int]:
    rollouts = (await server.all()).rollouts
    return [each.revision for each in rollouts if state_name(each) != "retired"]


async def _retire(server: Running, revision: int) -> None:
    message = rollout_pb2.RetireRequest(
        revision=revision, expected_revision=1, idempotency_key=key()
    )
    await server.rollouts.Retire(message, timeout=10)


def _does_without(event: str, name: str) -> bool:
    """A folder that is there, a link that becomes a copy, a scratch folder's other name.

    And a write that was not reached: the first staging made a few more.
    """
    return event in ("", "os.mkdir", "os.link") or name.startswith("staging-")


@pytest.mark.parametrize(
    ("source", "error", "step"),
    [
        ("bundle", errno.ENOSPC, 1),
        ("bundle", errno.EROFS, 3),
        ("bundle", errno.EIO, 3),
        ("expert", errno.ENOSPC, 2),
        ("upload", errno.EIO, 3),
    ],
    ids=["bundle full", "bundle read-only", "bundle broken", "expert full", "upload broken"],
)
async def test_a_staging_that_cannot_be_kept_changes_nothing(
    source: str,
    error: int,
    step: int,
    disk: FailingDisk,
    served_folder: Path,
    parts: ServedParts,
    tmp_path: Path,
) -> None:
    """Its writes fail one by one: an opened file, a new folder, a link, a rename, a sync."""
    stage, state = _stagings(served_folder, tmp_path)[source], tmp_path / "state"
    async with rolling_out(served_folder, state) as server:
        before = scores(await server.rank(request(parts)))
        with disk.fails_at(state, -1, 0):
            assert await stage(server) is None
        total, refused = disk.num_writes, Counter[str]()
        assert total >= 50
        await _retire(server, 2)
        for failing in range(0, total, step):
            with disk.fails_at(state, failing, error):
                failure = await stage(server)
                during = scores(await server.rank(request(parts)))
            assert during == pytest.approx(before, abs=1e-5)
            live = await _live(server)
            if failure is None:
                assert _does_without(*disk.failed), (failing, disk.failed)
                await _retire(server, live[1])
                continue
            refused[disk.failed[0]] += 1
            assert failure.code is CODES[error], (failing, failure)
            assert failure.retry_after_s
            assert live == [1]
            store = BundleStore(state / "bundles")
            for digest in store.digests:  # a bundle whose last sync failed may be there, whole
                store.check(digest)
        assert refused.keys() >= {"open", "fsync"}
        assert refused.total() >= total / step / 4, refused
        assert await stage(server) is None, "once the disk is well"
        assert not list(state.glob("staging-*"))


async def test_a_registry_that_cannot_be_written_refuses_changes_and_rankings_go_on(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        registry = server.state.registry
        [pages] = registry._db.execute("PRAGMA page_count").fetchone()
        registry._db.execute(f"PRAGMA max_page_count={pages}")  # as a disk that is full
        failure = None
        for percent in range(1, 99):  # until the pages that are there are full
            message = rollout_pb2.StartCanaryRequest(
                revision=2, expected_revision=1, idempotency_key=key() * 10, percent=percent
            )
            try:
                await server.rollouts.StartCanary(message)
            except grpc.aio.AioRpcError:
                failure = await failure_of(server.rollouts.StartCanary(message))
                break
        assert failure is not None
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "REGISTRY_UNAVAILABLE",
        )
        last = (await server.get(2)).percent
        assert 0 < last < percent, "the last share that was acknowledged"
        assert (await server.rank(request(parts))).revision.number in (1, 2)
        registry._db.execute(f"PRAGMA max_page_count={2 * pages}")  # room again
        assert state_name(await server.roll_back(2, 1)) == "rolled_back"
    async with rolling_out(served_folder, tmp_path / "state") as server:
        found = await server.get(2)
        assert (found.percent, state_name(found)) == (0, "rolled_back")


async def test_jumps_of_the_clock_promote_and_end_nothing(
    served_folder: Path, parts: ServedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = other_bundle(served_folder, tmp_path / "other", 1.0), time.time
    years = 10 * 365.25 * 24 * 3600
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.start_canary(2, 50, min_samples=10, max_latency_ratio=50.0)
        for n in range(100):
            offset = years if n % 2 else -years
            monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
            message = request(parts, 5, user_id=f"user-{n}")
            # No deadline: gRPC's own client would count it by the clock that jumps.
            await RankingServiceStub(server.ranking).Rank(message)
        found = await server.get(2)
        assert found.judgement.outcome == rollout_pb2.GATE_OUTCOME_PASSED, "it is judged"
        assert found.state == rollout_pb2.ROLLOUT_STATE_CANARY, "and waits for its operator"
        assert (await server.all()).active == 1
