"""A disk that fails under a rollout: rankings go on, and nothing half is ever seen."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from rankloom_adapters.store import BundleStore
from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_server.app import Parts
from server.rankings import request, scores
from server.rollouts import Running, expert_folder, key, other_bundle, rolling_out
from server.servers import Failure, failure_of

CODES = {
    errno.ENOSPC: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EROFS: grpc.StatusCode.UNAVAILABLE,
    errno.EIO: grpc.StatusCode.UNAVAILABLE,
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = ("os.mkdir", "os.rename", "tempfile.mkdtemp")


class FailingDisk:
    """Every write under a folder is counted; one of them can be told to fail."""

    def __init__(self) -> None:
        self.folder, self.error = "", 0
        self.num_writes, self.failing = 0, -1
        self._fsync = os.fsync
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or (event != "open" and event not in _EVENTS):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        if str(arguments[0]).startswith(self.folder):
            self._count()

    def _count(self) -> None:
        self.num_writes += 1
        if self.num_writes - 1 == self.failing:
            raise OSError(self.error, os.strerror(self.error))

    def fsync(self, handle: int) -> None:
        if self.folder and os.readlink(f"/proc/self/fd/{handle}").startswith(self.folder):
            self._count()
        self._fsync(handle)

    @contextmanager
    def fails_at(self, folder: Path, failing: int, error: int) -> Iterator[None]:
        self.num_writes, self.failing, self.error = 0, failing, error
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
        expected_generation=1,
        idempotency_key=key(),
        **source,  # type: ignore[arg-type]
    )
    call = server.rollouts.Stage(message, timeout=60)
    try:
        await call
    except grpc.aio.AioRpcError:
        return await failure_of(call)
    return None


async def _staged(server: Running, bundle: Path) -> Failure | None:
    return await _refusal(server, bundle_url=str(bundle))


async def _num_writes(disk: FailingDisk, served: Path, bundle: Path, folder: Path) -> int:
    async with rolling_out(served, folder) as server:
        with disk.fails_at(folder, -1, 0):
            assert await _staged(server, bundle) is None
    return disk.num_writes


@pytest.mark.parametrize("error", CODES, ids=["full", "read-only", "broken"])
async def test_a_staging_that_cannot_be_kept_changes_nothing(
    error: int, disk: FailingDisk, served_folder: Path, parts: Parts, tmp_path: Path
) -> None:
    other = other_bundle(served_folder, tmp_path / "other")
    total = await _num_writes(disk, served_folder, other, tmp_path / "counted")
    assert total >= 20
    async with rolling_out(served_folder, tmp_path / "state") as server:
        before = scores(await server.rank(request(parts)))
        for failing in range(total):
            with disk.fails_at(tmp_path / "state", failing, error):
                failure = await _staged(server, other)
                during = scores(await server.rank(request(parts)))
            assert during == pytest.approx(before, abs=1e-5)
            generations = (await server.all()).rollouts
            if failure is None:  # the link that could not be made became a copy
                assert len(generations) == 2
                break
            assert failure.code is CODES[error], (failing, failure)
            assert failure.retry_after_s
            assert len(generations) == 1
            store = BundleStore(tmp_path / "state" / "bundles")
            for digest in store.digests:  # a bundle whose last sync failed may be there, whole
                store.check(digest)
        assert await _staged(server, other) is None, "once the disk is well"


async def test_an_expert_that_cannot_be_derived_changes_nothing(
    disk: FailingDisk, served_folder: Path, parts: Parts, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    source = rollout_pb2.ExpertSource(name="global", url=str(files))
    async with rolling_out(served_folder, tmp_path / "state") as server:
        failures = []
        for failing in range(12):
            with disk.fails_at(tmp_path / "state", failing, errno.ENOSPC):
                failure = await _refusal(server, expert=source)
                await server.rank(request(parts))
            if failure is None:  # a folder that could not be made was there
                break
            failures.append(failure.code)
            assert [each.generation for each in (await server.all()).rollouts] == [1]
        assert set(failures) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(failures) >= 2
        assert not list((tmp_path / "state").glob("staging-*"))


async def test_a_registry_that_cannot_be_written_refuses_changes_and_rankings_go_on(
    served_folder: Path, parts: Parts, tmp_path: Path
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
                generation=2, expected_generation=1, idempotency_key=key() * 10, percent=percent
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
        assert (await server.rank(request(parts))).generation.number in (1, 2)
    async with rolling_out(served_folder, tmp_path / "state") as server:
        assert (await server.get(2)).percent == last


async def test_jumps_of_the_clock_promote_and_end_nothing(
    served_folder: Path, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = other_bundle(served_folder, tmp_path / "other", 1.0), time.time
    years = 10 * 365.25 * 24 * 3600
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(other)
        await server.start_canary(2, 50, min_samples=10, max_latency_ratio=50.0)
        for n in range(20):
            offset = years if n % 2 else -years
            monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
            message = request(parts, 1, user_id=f"user-{n % 5}")
            # No deadline: gRPC's own client would count it by the clock that jumps.
            await RankingServiceStub(server.ranking).Rank(message)
        found = await server.get(2)
        assert found.state == rollout_pb2.ROLLOUT_STATE_CANARY
        assert found.judgement.outcome == rollout_pb2.GATE_OUTCOME_NO_DATA
        assert (await server.all()).active == 1
