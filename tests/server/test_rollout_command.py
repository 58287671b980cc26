"""`rankloom rollout` and `RolloutClient` against a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from rankloom import (
    AuthenticationError,
    ErrorReason,
    GateSpec,
    PermissionDeniedError,
    PreconditionError,
    RolloutClient,
    RolloutState,
)
from rankloom._uploads import CHUNK_BYTES
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from server.operated import Operated, operated
from server.rankings import request
from server.rollouts import expert_folder, other_bundle
from server.served_parts import ServedParts

TOKEN = "a token of sixteen characters or more"


@pytest.fixture
async def server(
    served_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Operated]:
    async with operated(served_folder, tmp_path / "state", capsys) as server:
        yield server


@pytest.fixture
def other(served_folder: Path, tmp_path: Path) -> Path:
    return other_bundle(served_folder, tmp_path / "other")


async def test_every_action_says_what_it_came_to(server: Operated, other: Path) -> None:
    short = open_bundle(other).digest[:12]
    said = [
        await server.rollout("stage", other),
        await server.rollout("shadow", 2, "--gate", "min_samples=20", "--gate", "max_ks=0.3"),
        await server.rollout("canary", 2, "--percent", 10, "--expected", 1),
        await server.rollout("rollback"),
        await server.rollout("retire", 2, "--reason", "done"),
        await server.rollout("stage", other),
        await server.rollout("promote", 3, "--without-gates", "--reason", "known good"),
        await server.rollout("rollback", "--reason", "after all not"),
    ]
    assert [(each.code, each.err) for each in said] == [(0, "")] * len(said)
    assert [each.out for each in said] == [
        f"revision 2: warmed, bundle {short}\n",
        f"revision 2: shadow of 100 % of the requests, bundle {short}\n",
        f"revision 2: canary of 10 % of the users, bundle {short}\n",
        f"revision 2: rolled_back, bundle {short}\n",
        f"revision 2: retired, bundle {short}\n",
        f"revision 3: warmed, bundle {short}\n",
        f"revision 3: active, bundle {short}\n",
        f"revision 3: rolled_back, bundle {short}\n",
    ]


async def test_the_list_is_a_table(
    server: Operated, served_folder: Path, other: Path, parts: ServedParts
) -> None:
    await server.rollout("stage", other)
    await server.rollout("canary", 2, "--percent", 25)
    await rank_users(server, parts, 8)
    said = await server.rollout("list")
    lines = said.out.splitlines()
    first, second = (open_bundle(each).digest[:12] for each in (served_folder, other))
    cells = [re.split(r" {2,}", line.strip()) for line in lines[:3]]
    head = "revision state share leases loaded bundle samples judgement finding"
    assert cells[0] == head.split()
    assert cells[1] == ["1", "active", "75 %", "0", "yes", first, "-", "-"]
    assert cells[2][:6] == ["2", "canary", "25 %", "0", "yes", second]
    assert re.fullmatch(r"\d+/\d+", cells[2][6])
    assert cells[2][7:] == ["no_data", "there is no evidence yet"]
    assert lines[3] == ""
    memory = r"memory: experts \d+\.\d MiB, process \d+\.\d MiB; at \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(memory, lines[4])
    found = await server.rollout("get", 2)
    assert "state      canary of 25 % of the users\n" in found.out
    assert "judgement  no_data: there is no evidence yet\n" in found.out


async def rank_users(server: Operated, parts: ServedParts, num: int) -> None:
    async with grpc.aio.insecure_channel(server.ranking) as channel:
        for n in range(num):
            message = request(parts, 2, user_id=f"user-{n}")
            await RankingServiceStub(channel).Rank(message, timeout=30)


async def test_a_trial_shows_its_gates(server: Operated, other: Path, parts: ServedParts) -> None:
    await server.rollout("stage", other)
    bounds = ("min_samples=2", "max_ks=1", "max_psi=100", "max_calibration_shift=1")
    gates = [word for bound in bounds for word in ("--gate", bound)]
    await server.rollout("canary", 2, "--percent", 50, *gates)
    await rank_users(server, parts, 30)
    for _ in range(100):
        found = (await server.rollout("get", 2, "--json")).json
        if found["judgement"] and found["judgement"]["gates"]:
            break
        await asyncio.sleep(0.05)
    said = await server.rollout("get", 2)
    rows = [line.split() for line in said.out.split("\n\n")[1].splitlines()]
    assert rows[0] == ["gate", "group", "value", "bound", "users", "outcome"]
    assert {row[0] for row in rows} >= {"errors", "latency", "score_ks"}


async def test_json_is_one_document(server: Operated, other: Path) -> None:
    staged = await server.rollout("stage", other, "--json")
    canary = await server.rollout("canary", 2, "--percent", 10, "--json")
    found = await server.rollout("get", 2, "--json")
    listed = await server.rollout("list", "--json")
    assert (staged.json["revision"], staged.json["state"]) == (2, "warmed")
    assert staged.json["bundle_digest"] == open_bundle(other).digest
    assert canary.json["judgement"]["outcome"] == "no_data"
    assert found.json == canary.json == listed.json["rollouts"][1]
    assert listed.json["active"] == 1
    assert listed.json["time"].endswith("+00:00")


async def test_a_bundle_that_cannot_be_served_is_quarantined(server: Operated, other: Path) -> None:
    (other / "router.json").write_bytes(b"{}")
    seal(other, {})
    said = await server.rollout("stage", other)
    assert (said.code, said.out) == (1, "")
    assert said.err == "rankloom: revision 2 is quarantined: router: unreadable\n"
    again = await server.rollout("stage", other, "--json")
    assert (again.code, again.json["state"]) == (1, "quarantined")
    listed = await server.rollout("list")
    assert listed.out.count("router: unreadable\n") == 2


# What is asked, the exit code, the error's class, and a part of the hint under it.
REFUSED: dict[str, tuple[list[object], int, str, str]] = {
    "stale": (["promote", 1, "--expected", 7], 1, "PreconditionError", "then try again"),
    "unknown": (["retire", 9], 1, "NotFoundError", "rollout list"),
    "unknown get": (["get", 9], 1, "NotFoundError", "rollout list"),
    "wrong state": (["canary", 1, "--percent", 5], 1, "PreconditionError", "rollout list"),
    "nothing to go back to": (["rollback"], 1, "PreconditionError", "rollout list"),
    "no bundle": (["stage", "/nowhere"], 1, "InvalidRequestError", "then stage it"),
    "no expert": (
        ["stage", "/nowhere", "--expert", "x"],
        1,
        "InvalidRequestError",
        "stage it again",
    ),
    "percent": (["canary", 1, "--percent", 0], 1, "InvalidRequestError", ""),
    "gate": (["canary", 1, "--percent", 5, "--gate", "max_ks=7"], 1, "InvalidRequestError", ""),
    "whole": (["shadow", 1, "--gate", "top_k=1.5"], 2, "InvalidRequestError", ""),
    "no reason": (["promote", 1, "--without-gates"], 2, "InvalidRequestError", ""),
    "no folder": (["stage", "/nowhere", "--upload"], 2, "InvalidRequestError", ""),
    "negative": (["stage", "/nowhere", "--expected", -1], 2, "InvalidRequestError", ""),
}


async def test_what_is_refused_says_why_and_what_to_do(server: Operated) -> None:
    for name, (arguments, code, error, hint) in REFUSED.items():
        said = await server.rollout(*arguments)
        assert (said.code, said.out) == (code, ""), name
        lines = said.err.splitlines()
        assert re.match(f"rankloom: ({error}): ", lines[0]), name
        assert len(lines) <= 3, name
        hints = [line for line in lines if line.startswith("  hint: ")]
        assert len(hints) == bool(hint), name
        assert hint in "".join(hints), name


async def test_an_untried_revision_needs_a_trial_or_a_reason(server: Operated, other: Path) -> None:
    await server.rollout("stage", other)
    said = await server.rollout("promote", 2)
    assert said.code == 1
    assert "has not been tried" in said.err
    assert "hint: let its trial see more users, or give --without-gates" in said.err


async def test_a_change_asked_for_again_is_done_once(server: Operated, other: Path) -> None:
    terms = ("--expected", 1, "--key", "the same")
    first = await server.rollout("stage", other, *terms)
    again = await server.rollout("stage", other, *terms)
    assert again == first
    reused = await server.rollout("retire", 2, *terms)
    assert reused.code == 1
    assert "leave out --key" in reused.err


async def test_the_files_of_this_machine_are_sent(
    server: Operated, served_folder: Path, tmp_path: Path, other: Path
) -> None:
    files = expert_folder(served_folder, "global", tmp_path / "files", 2.0)
    (files / "README.md").write_text("is not sent")
    expert = await server.rollout("stage", "--upload", "--expert", "global", files)
    assert expert.out.startswith("revision 2: warmed, ")
    by_path = await server.rollout("stage", "--expert", "global", files)
    assert by_path.out.partition("bundle")[2] == expert.out.partition("bundle")[2]
    (other / "notes.txt").write_text("no part of the bundle")
    sent = await server.rollout("stage", "--upload", other, "--json")
    assert sent.json["bundle_digest"] == open_bundle(other).digest
    assert sent.json["state"] == "warmed"
    assert any(path.stat().st_size > CHUNK_BYTES for path in other.rglob("*"))


async def test_a_file_that_cannot_be_read_ends_the_upload(
    server: Operated, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(other.rglob("*"), key=lambda path: path.stat().st_size)

    def fail(path: Path) -> Any:  # noqa: ANN401
        if path == largest:
            raise OSError(5, "Input/output error", str(path))
        return [path.read_bytes()]

    monkeypatch.setattr("rankloom._uploads._pieces", fail)
    said = await server.rollout("stage", "--upload", other)
    message = f"rankloom: InvalidRequestError: folder: {largest}: Input/output error\n"
    assert (said.code, said.out, said.err) == (2, "", message)
    assert len((await server.rollout("list", "--json")).json["rollouts"]) == 1


async def test_the_client_returns_values(server: Operated, other: Path) -> None:
    with RolloutClient(server.target) as client:
        staged = await asyncio.to_thread(client.stage, str(other))
        assert (staged.state, staged.loaded, staged.judgement) == (RolloutState.WARMED, True, None)
        spec = GateSpec(min_samples=30, max_latency_ratio=2.0)
        canary = await asyncio.to_thread(client.start_canary, 2, 5, gates=spec)
        assert canary == await asyncio.to_thread(client.get, 2)
        with pytest.raises(PreconditionError) as stale:
            await asyncio.to_thread(client.promote, 2, expected=7)
        assert (stale.value.reason, stale.value.current) == (ErrorReason.REVISION_STALE, 1)
        assert stale.value.status == "ABORTED"
        listed = await asyncio.to_thread(client.list)
        assert (listed.active, listed.on_trial) == (1, 2)
        back = await asyncio.to_thread(client.roll_back, 2, reason="enough")
        assert (back.state, back.reason) == (RolloutState.ROLLED_BACK, "enough")


async def test_a_watcher_may_leave_and_come_back(server: Operated, other: Path) -> None:
    with RolloutClient(server.target) as client:
        changes = client.watch()
        first = await asyncio.to_thread(next, changes)
        assert [each.state for each in first.rollouts] == [RolloutState.ACTIVE]
        await asyncio.to_thread(client.stage, str(other))
        while len((await asyncio.to_thread(next, changes)).rollouts) < 2:
            pass
        changes.close()
        again = client.watch()
        assert len((await asyncio.to_thread(next, again)).rollouts) == 2
        again.close()


async def test_who_may_call(
    served_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("another token altogether")
    async with operated(served_folder, tmp_path / "state", capsys, rollout_token=token) as server:
        assert (await server.rollout("list", "--token-file", token)).code == 0
        without = await server.rollout("list")
        denied = await server.rollout("list", "--token-file", wrong)
        with (
            RolloutClient(server.target) as unknown,
            RolloutClient(server.target, token=TOKEN[::-1]) as stranger,
        ):
            with pytest.raises(AuthenticationError) as first:
                await asyncio.to_thread(unknown.list)
            with pytest.raises(PermissionDeniedError) as second:
                await asyncio.to_thread(next, stranger.watch())
    assert (without.code, denied.code) == (1, 1)
    assert "AuthenticationError" in without.err
    assert "hint: give the server's token with --token-file" in without.err
    assert "PermissionDeniedError" in denied.err
    assert "hint: the file of --token-file must hold" in denied.err
    assert first.value.reason is ErrorReason.UNAUTHENTICATED
    assert second.value.reason is ErrorReason.PERMISSION_DENIED


async def test_the_port_for_rankings_is_not_the_one(server: Operated) -> None:
    mistaken = replace(server, target=server.ranking)
    said = await mistaken.rollout("list")
    assert said.code == 1
    assert "hint: this port has no RolloutService" in said.err
