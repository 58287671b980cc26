"""What revisions share of an engine, what they do not, and what is let go."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import safetensors.numpy

from feature_service.boosters import booster
from rankloom_adapters.bundle import PROJECTOR, TREES, BundleError, open_bundle, seal
from rankloom_adapters.bundled_expert import BundledExpert
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_engine.loading import Hardware
from rankloom_engine.parts import EngineParts
from rankloom_engine.pool import EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.ranker import TreeRanker
from rankloom_features.tree_export import export_trees
from rankloom_proto.v1 import rollout_pb2
from rankloom_ranker.loaded import load_bundle
from rankloom_server.config import EngineSettings, LoadingSettings
from rankloom_server.revision_loader import RevisionLoader
from server.rankings import request, scores
from server.rollouts import Running, expert_folder, key, other_bundle, rolling_out, state_name
from server.served_parts import ServedParts
from server.servers import failure_of

T = TypeVar("T")


def with_other_projector(bundle: Path, folder: Path) -> Path:
    """A bundle whose prefixes and rows can share no pass with the first one's."""
    shutil.copytree(bundle, folder)
    tensors = safetensors.numpy.load((folder / PROJECTOR).read_bytes())
    changed = {name: np.asarray(array * 1.5) for name, array in tensors.items()}
    (folder / PROJECTOR).write_bytes(safetensors.numpy.save(changed))
    seal(folder, {**open_bundle(bundle).metadata})
    return folder


def with_other_trees(bundle: Path, folder: Path) -> Path:
    shutil.copytree(bundle, folder)
    num_columns = TreeRanker((bundle / TREES).read_bytes()).num_columns
    (folder / TREES).write_bytes(export_trees([booster(0, num_columns)]))
    seal(folder, {**open_bundle(bundle).metadata})
    return folder


async def retire(server: Running, revision: int, expected: int) -> None:
    message = rollout_pb2.RetireRequest(
        revision=revision, expected_revision=expected, idempotency_key=key()
    )
    await server.rollouts.Retire(message, timeout=10)


async def test_another_base_has_a_decoder_of_its_own_which_goes_with_it(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = with_other_projector(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:
        first = scores(await server.rank(request(parts)))
        one_decoder = (await server.all()).expert_bytes
        await server.stage(other)
        assert (await server.all()).expert_bytes == 2 * one_decoder
        await server.promote(2)
        second = scores(await server.rank(request(parts)))
        assert max(abs(second[item] - first[item]) for item in first) > 1e-4
        await retire(server, 1, 2)
        assert (await server.all()).expert_bytes == one_decoder
        assert scores(await server.rank(request(parts))) == pytest.approx(second, abs=1e-5)


async def test_what_revisions_have_in_common_is_loaded_once(
    served_folder: Path, tmp_path: Path
) -> None:
    loader = RevisionLoader(EngineSettings(dtype="float32"), LoadingSettings())
    first = await loader.load(served_folder)
    for number in range(3):  # none of them takes what they share along when it goes
        other = await loader.load(other_bundle(served_folder, tmp_path / str(number), 2 + number))
        assert other.loaded.trees is first.loaded.trees
        assert other.loaded.features is first.loaded.features
        assert other.loaded.prompts is first.loaded.prompts
        loader.release(other)
        await asyncio.sleep(0)
    different = await loader.load(with_other_trees(served_folder, tmp_path / "trees"))
    assert different.loaded.trees is not first.loaded.trees
    assert different.loaded.features is first.loaded.features
    await loader.close()


async def test_experts_without_room_are_refused_until_there_is_some(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    async with rolling_out(served_folder, tmp_path / "state", expert_slots_mib=0) as server:
        message = rollout_pb2.StageRequest(
            expert=rollout_pb2.ExpertSource(name="global", url=str(files)),
            expected_revision=1,
            idempotency_key=key(),
        )
        failure = await failure_of(server.rollouts.Stage(message, timeout=30))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_ROOM",
        )
        assert "retire a revision" in failure.message
        assert state_name(await server.get(2)) == "staged"
        await server.rank(request(parts))
        await retire(server, 2, 1)
        assert state_name(await server.get(2)) == "retired"


async def test_a_server_with_keys_takes_signed_bundles_alone(
    served_folder: Path, tmp_path: Path
) -> None:
    from rankloom_adapters.signing import generate_keys, read_private_key, sign

    signed = other_bundle(served_folder, tmp_path / "signed")
    unsigned = other_bundle(served_folder, tmp_path / "unsigned", 3.0)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate_keys(private, public)
    own = other_bundle(served_folder, tmp_path / "own", 1.0)
    for folder in (signed, own):
        sign(open_bundle(folder), read_private_key(private))
    async with rolling_out(own, tmp_path / "state", bundle_keys=(public,)) as server:
        message = rollout_pb2.StageRequest(
            bundle_url=str(unsigned), expected_revision=1, idempotency_key=key()
        )
        failure = await failure_of(server.rollouts.Stage(message, timeout=30))
        assert failure.reason == "SIGNATURE_INVALID"
        assert state_name(await server.stage(signed)) == "warmed"
        expert = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
        source = rollout_pb2.ExpertSource(name="global", url=str(expert))
        message = rollout_pb2.StageRequest(
            expert=source, expected_revision=1, idempotency_key=key()
        )
        failure = await failure_of(server.rollouts.Stage(message, timeout=30))
        assert failure.reason == "SIGNATURE_INVALID"
        assert "sign it" in failure.message


async def test_callers_without_the_token_change_and_see_nothing(
    served_folder: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    async with rolling_out(served_folder, tmp_path / "state", rollout_token=token) as server:
        for method in ("Stage", "Promote", "List", "Watch", "StageUpload"):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = server.admin.unary_unary(
                f"/rankloom.v1.RolloutService/{method}"
            )
            if method in ("Watch", "StageUpload"):
                continue
            failure = await failure_of(call(b"", timeout=10))
            assert failure.code is grpc.StatusCode.UNAUTHENTICATED, method
            wrong = (("authorization", "Bearer another-token-of-some-length"),)
            failure = await failure_of(call(b"", timeout=10, metadata=wrong))
            assert failure.code is grpc.StatusCode.PERMISSION_DENIED, method
            assert "another-token" not in failure.raw
        right = (("authorization", "Bearer a-token-of-some-length"),)
        answer = await server.rollouts.List(rollout_pb2.ListRequest(), metadata=right)
        assert answer.revisions.active == 1
        stream = server.rollouts.StageUpload(iter(()))
        failure = await failure_of(stream)
        assert failure.code is grpc.StatusCode.UNAUTHENTICATED


NAMES = {
    "a path that leaves the folder": ["../x"],
    "the folder": ["."],
    "a long name": ["ä" * 200],
    "a file that becomes a folder": ["a", "a/b"],
    "a folder that becomes a file": ["a/b", "a"],
}


@pytest.mark.parametrize("what", ["nothing", "chunk first", *NAMES])
async def test_an_upload_that_is_none_is_refused(
    what: str, served_folder: Path, tmp_path: Path
) -> None:
    header = rollout_pb2.StageUploadRequest(
        header=rollout_pb2.StageUploadHeader(expected_revision=1, idempotency_key="k")
    )
    chunks = [
        rollout_pb2.StageUploadRequest(chunk=rollout_pb2.FileChunk(name=name, data=b"x"))
        for name in NAMES.get(what, ["x"])
    ]
    messages = {"nothing": [], "chunk first": chunks}.get(what, [header, *chunks])
    async with rolling_out(served_folder, tmp_path / "state") as server:
        failure = await failure_of(server.rollouts.StageUpload(iter(messages)))
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.field in ("header", "chunk.name")
        assert not list((tmp_path / "state").glob("staging-*"))
        assert not (tmp_path / "state" / "x").exists()


class HeldBack(ThreadPoolExecutor):
    """Reads experts once it is told to."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked, self.go = threading.Event(), threading.Event()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # noqa: ANN401
        def later() -> T:
            if isinstance(getattr(fn, "__self__", None), BundledExpert):
                self.asked.set()
                assert self.go.wait(30)
            return fn(*args, **kwargs)

        return super().submit(later)


def engine_parts(folder: Path) -> EngineParts:
    return load_bundle(open_bundle(folder)).engine_parts()


async def test_a_decoder_stays_for_one_whose_files_are_still_read(
    served_folder: Path, tmp_path: Path
) -> None:
    files = HeldBack()
    pool = EnginePool(Hardware(), EngineLimits(), 64 << 20, files)
    first = await pool.admit(engine_parts(served_folder))
    other = engine_parts(other_bundle(served_folder, tmp_path / "other"))
    admitted = asyncio.create_task(pool.admit(other))
    assert await asyncio.to_thread(files.asked.wait, 30)
    pool.release(first)
    files.go.set()
    second = await admitted
    assert second.runner is first.runner
    assert pool.runners == (first.runner,)
    pool.release(second)
    assert not pool.runners
    pool.check_integrity()
    await pool.close()
    files.shutdown()


async def test_experts_that_were_read_once_come_back_without_the_disk(
    served_folder: Path, tmp_path: Path
) -> None:
    """Their slots are written over meanwhile: there are some for two bundles, and three come."""
    first = engine_parts(served_folder)
    room = 2 * sum(each.load().num_bytes for each in first.experts)
    pool = EnginePool(Hardware(), EngineLimits(), room, experts=ExpertCache(64 << 20))
    stays = await pool.admit(first)
    folders = [other_bundle(served_folder, tmp_path / f"b{n}", 1.1 + n) for n in range(2)]
    bundles = [engine_parts(folder) for folder in folders]
    for other in bundles:
        pool.release(await pool.admit(other))
    shutil.rmtree(folders[0] / "experts")
    again = await pool.admit(bundles[0])
    assert again.runner is stays.runner
    cold = EnginePool(Hardware(), EngineLimits(), room)
    with pytest.raises(BundleError, match="missing"):
        await cold.admit(bundles[0])
    for handle in (again, stays):
        pool.release(handle)
    for each in (pool, cold):
        each.check_integrity()
        await each.close()
