"""What both rollout clients send: keys, the expected revision, gates, files; what they refuse."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client_sdk.clients import AnyRolloutClient, ThreadedRolloutClient
from client_sdk.recording_rollouts import RecordingRollouts
from client_sdk.recording_server import fail
from client_sdk.test_errors import error_info, retry_info
from rankloom import (
    AsyncRolloutClient,
    CallCancelledError,
    ClientClosedError,
    ErrorReason,
    GateSpec,
    InvalidRequestError,
    PreconditionError,
    Rollout,
    RolloutClient,
    UnavailableError,
)
from rankloom._policy import MAX_ATTEMPTS
from rankloom._uploads import CHUNK_BYTES
from rankloom_proto.v1 import rollout_pb2 as wire

Code = grpc.StatusCode
AnyRollouts = ThreadedRolloutClient | AsyncRolloutClient

CHANGES: dict[str, tuple[object, ...]] = {
    "stage": ("/next",),
    "stage_expert": ("x", "/next"),
    "start_shadow": (5,),
    "start_canary": (5, 10),
    "promote": (5,),
    "roll_back": (5,),
    "retire": (5,),
}


@pytest.fixture
def server() -> Iterator[RecordingRollouts]:
    with RecordingRollouts() as server:
        yield server


@pytest.fixture
async def client(
    server: RecordingRollouts, rollout_client_class: AnyRolloutClient
) -> AsyncIterator[AnyRollouts]:
    async with rollout_client_class(server.target) as client:
        yield client


def change(client: AnyRollouts, name: str, **idempotency: object) -> Awaitable[Rollout]:
    made: Awaitable[Rollout] = getattr(client, name)(*CHANGES[name], **idempotency)
    return made


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_is_sent_again_keeps_its_key(
    name: str, server: RecordingRollouts, client: AnyRollouts
) -> None:
    server.failures = [fail(Code.UNAVAILABLE, "starting", retry_info(1))]
    await change(client, name)
    await change(client, name)
    keys = [each.idempotency_key for each in server.changes]
    assert keys[0] == keys[1] != keys[2]
    assert {each.expected_revision for each in server.changes} == {server.active}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_given_expected_and_key_are_sent_without_a_list_call(
    name: str, server: RecordingRollouts, client: AnyRollouts
) -> None:
    await change(client, name, expected=0, key="k")
    sent = server.changes[0]
    assert (sent.expected_revision, sent.idempotency_key) == (0, "k")
    assert server.num_lists == 0


async def test_retries_of_a_change_are_few(server: RecordingRollouts, client: AnyRollouts) -> None:
    detail = error_info("REGISTRY_UNAVAILABLE")
    server.failures = [fail(Code.UNAVAILABLE, "the disk", detail, retry_info(5))] * 9
    with pytest.raises(UnavailableError) as caught:
        await client.retire(5)
    assert len(server.changes) == MAX_ATTEMPTS
    assert caught.value.reason is ErrorReason.REGISTRY_UNAVAILABLE
    assert caught.value.retry_after_s == 5.0


@pytest.mark.parametrize(
    ("sent", "current"),
    [("7", 7), ("0", 0), ("", None), ("-1", None), ("seven", None), ("9" * 5000, None)],
)
async def test_a_stale_change_has_the_active_revision(
    sent: str, current: int | None, server: RecordingRollouts, client: AnyRollouts
) -> None:
    detail = error_info("REVISION_STALE", current=sent)
    server.failures = [fail(Code.ABORTED, "another is active", detail)]
    with pytest.raises(PreconditionError) as caught:
        await client.promote(5)
    assert (caught.value.reason, caught.value.current) == (ErrorReason.REVISION_STALE, current)


async def test_gates_are_sent_as_given(server: RecordingRollouts, client: AnyRollouts) -> None:
    await client.start_shadow(5)
    await client.start_shadow(5, gates=GateSpec(min_samples=30, max_ks=0.5))
    await client.start_canary(5, 10, gates=GateSpec(max_latency_ratio=2))
    await client.start_shadow(5, 20)
    assert not server.changes[0].HasField("gates")
    assert server.changes[1].gates == wire.GateSpec(min_samples=30, max_ks=0.5)
    assert server.changes[2].gates == wire.GateSpec(max_latency_ratio=2.0)
    assert [change.percent for change in server.changes] == [100, 100, 10, 20]


def test_the_specification_has_every_bound_of_the_wire() -> None:
    names = {field.name for field in wire.GateSpec.DESCRIPTOR.fields}
    assert set(GateSpec.__dataclass_fields__) == names


WRONG: dict[str, tuple[Callable[[AnyRollouts], Awaitable[object]], str]] = {
    "revision": (lambda client: client.get(-1), "revision"),
    "a word": (lambda client: client.retire("5"), "revision"),  # type: ignore[arg-type]
    "percent": (lambda client: client.start_canary(5, True), "percent"),
    "percent of a shadow": (lambda client: client.start_shadow(5, -1), "percent"),
    "expected": (lambda client: client.retire(5, expected=2**64), "expected"),
    "key": (lambda client: client.retire(5, key=b"k"), "key"),  # type: ignore[arg-type]
    "url": (lambda client: client.stage(Path("/next")), "url"),  # type: ignore[arg-type]
    "gates": (lambda client: client.start_shadow(5, gates={}), "gates"),  # type: ignore[arg-type]
    "a bound": (
        lambda client: client.start_shadow(5, gates=GateSpec(min_samples=2.5)),  # type: ignore[arg-type]
        "gates.min_samples",
    ),
    "timeout": (lambda client: client.stage("/next", timeout_s=0), "timeout_s"),
    "reason": (lambda client: client.retire(5, reason=None), "reason"),  # type: ignore[arg-type]
    "forced": (
        lambda client: client.promote(5, without_gates=1),  # type: ignore[arg-type]
        "without_gates",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_the_wire_cannot_express_is_refused(
    name: str, server: RecordingRollouts, client: AnyRollouts
) -> None:
    call, field = WRONG[name]
    with pytest.raises(InvalidRequestError) as caught:
        await call(client)
    assert caught.value.violations[0].field == field
    assert server.changes == []


@pytest.mark.parametrize("token", ["", " padded", "two\nlines", "ключ", b"bytes"])
async def test_a_token_that_no_header_can_hold_is_refused(
    token: Any,  # noqa: ANN401
    rollout_client_class: AnyRolloutClient,
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        rollout_client_class("localhost:1", token=token)
    assert caught.value.violations[0].field == "token"
    assert not token or str(token) not in str(caught.value)


def bundle(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    listed: dict[str, object] = {name: {} for name in files}
    (folder / "manifest.json").write_text(json.dumps({"files": listed}))
    return folder


async def test_a_bundle_is_sent_in_pieces(
    server: RecordingRollouts, client: AnyRollouts, tmp_path: Path
) -> None:
    files = {"base/large": bytes(2 * CHUNK_BYTES + 1), "empty": b"", "whole": bytes(CHUNK_BYTES)}
    folder = bundle(tmp_path, files)
    (folder / "manifest.sig").write_bytes(b"sig")
    (folder / "not-listed").write_bytes(b"x")
    await client.upload(folder, key="k")
    assert server.chunks[1:] == [
        ("manifest.sig", 3),
        *[("base/large", CHUNK_BYTES), ("base/large", CHUNK_BYTES), ("base/large", 1)],
        ("empty", 0),
        ("whole", CHUNK_BYTES),
    ]
    assert server.chunks[0][0] == "manifest.json"
    expected = wire.StageUploadHeader(expected_revision=server.active, idempotency_key="k")
    assert server.changes == [expected]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "manifest.json: No such file"),
        (b"[]", "manifest.json: not the manifest"),
        (b"\xff", "manifest.json: not the manifest"),
        (b'{"files": ["a"]}', "manifest.json: lists"),
        (b'{"files": {"../secret": {}}}', "manifest.json: lists"),
        (b'{"files": {"/etc/passwd": {}}}', "manifest.json: lists"),
        (b'{"files": {"": {}}}', "manifest.json: lists"),
        (b'{"files": {"gone": {}}}', "gone: no such file"),
        (b'{"files": {"folder": {}}}', "folder: no such file"),
    ],
)
async def test_a_folder_that_is_not_a_bundle_is_refused(
    manifest: bytes | None,
    message: str,
    server: RecordingRollouts,
    client: AnyRollouts,
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("private")
    folder = tmp_path / "bundle"
    (folder / "folder").mkdir(parents=True)
    if manifest is not None:
        (folder / "manifest.json").write_bytes(manifest)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        await client.upload(folder)
    assert caught.value.violations[0].field == "folder"
    assert (server.chunks, server.changes, server.num_lists) == ([], [], 0)


async def test_an_expert_has_two_files(
    server: RecordingRollouts, client: AnyRollouts, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    with pytest.raises(InvalidRequestError, match=r"adapter_model\.safetensors: no such file"):
        await client.upload(tmp_path, expert="x")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1234")
    await client.upload(tmp_path, expert="x")
    assert server.chunks == [("adapter_config.json", 2), ("adapter_model.safetensors", 4)]
    assert server.changes[0].expert == "x"


async def test_a_refused_upload_has_the_servers_reason(
    server: RecordingRollouts, client: AnyRollouts, tmp_path: Path
) -> None:
    server.failures = [fail(Code.INVALID_ARGUMENT, "no", error_info("BUNDLE_INVALID"))]
    with pytest.raises(InvalidRequestError) as caught:
        await client.upload(bundle(tmp_path, {}))
    assert caught.value.reason is ErrorReason.BUNDLE_INVALID


async def test_a_file_that_breaks_off_ends_an_upload(
    server: RecordingRollouts,
    client: AnyRollouts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(path: Path) -> Iterator[bytes]:
        yield b"some"
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("rankloom._uploads._pieces", broken)
    with pytest.raises(InvalidRequestError, match=r"manifest\.json: Input/output error"):
        await client.upload(bundle(tmp_path, {}))
    # A server on threads may take the cancelled stream for one that ended. Whether it had more
    # than the first piece would show then.
    assert server.chunks in ([], [("manifest.json", 4)])


async def test_closing_ends_an_upload(
    server: RecordingRollouts,
    client: AnyRollouts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()

    def closing(_: Path) -> Iterator[bytes]:
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(10.0)
        yield b""

    monkeypatch.setattr("rankloom._uploads._pieces", closing)
    with pytest.raises(CallCancelledError):
        await client.upload(bundle(tmp_path, {}), expected=4)
    with pytest.raises(ClientClosedError):
        await client.upload(bundle(tmp_path, {}), expected=4)


async def test_watching(server: RecordingRollouts, client: AnyRollouts) -> None:
    changes = client.watch()
    assert [(await anext(changes)).active, (await anext(changes)).active] == [4, 5]
    await changes.aclose()
    assert await asyncio.to_thread(server.watched.wait, 10.0)


async def test_a_closed_client(server: RecordingRollouts, client: AnyRollouts) -> None:
    await client.wait_ready(5.0)
    await client.close()
    for call in (client.list(), client.get(5), client.retire(5, expected=4)):
        with pytest.raises(ClientClosedError):
            await call
    with pytest.raises(ClientClosedError):
        await anext(client.watch())
    assert server.changes == []


async def test_the_token_goes_with_every_call(
    server: RecordingRollouts, rollout_client_class: AnyRolloutClient
) -> None:
    seen = []

    def look(_: object, context: grpc.ServicerContext) -> None:
        seen.append(dict(context.invocation_metadata()).get("authorization"))

    server.failures = [look, look]
    async with rollout_client_class(server.target, token="synthetic") as client:
        await client.retire(5)
    async with rollout_client_class(server.target) as stranger:
        await stranger.retire(5)
    assert seen == ["Bearer synthetic", None]


async def test_both_clients_send_the_same(server: RecordingRollouts) -> None:
    for kind in (ThreadedRolloutClient, AsyncRolloutClient):
        async with kind(server.target) as client:
            for name in CHANGES:
                await change(client, name, key=name)
    first, second = server.changes[: len(CHANGES)], server.changes[len(CHANGES) :]
    assert first == second


def test_both_clients_take_the_same_arguments() -> None:
    for name in (*CHANGES, "upload", "get", "list", "wait_ready", "close", "watch", "__init__"):
        blocking = inspect.signature(getattr(RolloutClient, name))
        asynchronous = inspect.signature(getattr(AsyncRolloutClient, name))
        assert blocking.parameters == asynchronous.parameters, name
