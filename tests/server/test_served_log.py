"""What was ranked is kept, off the calls' path, and can be learned from."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankloom_features.catalogue import Item
from rankloom_features.provider import UserQuery
from rankloom_ranker.served import KEY_FILE, ServedRanking, user_digest
from rankloom_server import served_log
from rankloom_server.app import servers
from rankloom_server.errors import StartError
from rankloom_server.served_log import ServedLog
from server.rankings import item_ids, known_user, rank, ranking_channel, request, with_options
from server.served_parts import ServedParts
from server.servers import settings


def rows_in(folder: Path) -> list[dict[str, object]]:
    return [row for file in files_in(folder) for row in pq.read_table(file).to_pylist()]


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("served-*"))


async def test_each_ranking_is_a_row(parts: ServedParts, tmp_path: Path) -> None:
    asked = with_options(parts, top_k=2)
    asked.request_id = "first"
    async with ranking_channel(parts, log_served=tmp_path) as channel:
        answer = await rank(channel, asked)
        await rank(channel, request(parts, 3, history={}))
    known, inline = rows_in(tmp_path)
    key = (tmp_path / KEY_FILE).read_bytes()
    assert (known["request_id"], known["user"]) == ("first", user_digest(key, known_user(parts)))
    assert known["items"] == item_ids(parts, 5)
    assert sorted(known["rank"]) == [0, 0, 0, 1, 2]  # type: ignore[call-overload]
    order = np.argsort(np.array(known["rank"]))[3:]
    assert [item_ids(parts, 5)[n] for n in order] == [item.item_id for item in answer.items]
    scores = np.array(known["score"])[order]
    assert scores == pytest.approx([item.score for item in answer.items], abs=1e-6)
    assert known["history_version"] == parts.loaded.provider.events.version(known_user(parts))
    assert known["bundle_digest"] == parts.loaded.digest
    columns = parts.loaded.provider.num_columns
    assert np.array(known["features"]).shape == (5 * columns,)
    assert (inline["user"], inline["history_version"]) == (None, None)


async def test_no_users_id_is_kept(parts: ServedParts, tmp_path: Path) -> None:
    message = request(parts)
    message.user_id = "someone-with-a-long-name"
    async with ranking_channel(parts, log_served=tmp_path) as channel:
        await rank(channel, message)
    (row,) = rows_in(tmp_path)
    assert "someone" not in str(row)
    assert all(b"someone" not in file.read_bytes() for file in tmp_path.iterdir())
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0


async def test_a_folder_keeps_its_key(tmp_path: Path) -> None:
    first = ServedLog(tmp_path, 1 << 20)
    first.close()
    second = ServedLog(tmp_path, 1 << 20)
    second.close()
    assert first.key == second.key
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(StartError, match="is no key; restore it"):
        ServedLog(tmp_path, 1 << 20)


async def test_the_time_is_that_of_the_features(parts: ServedParts, tmp_path: Path) -> None:
    async with ranking_channel(parts, log_served=tmp_path) as channel:
        before = time.time()
        await rank(channel, request(parts))
    (row,) = rows_in(tmp_path)
    query = UserQuery(known_user(parts), None, tuple(map(Item, item_ids(parts, 5))))
    provider = parts.loaded.provider
    again = provider.features(dataclasses.replace(query, at=row["time"])).tabular  # type: ignore[arg-type]
    assert row["time"] > before  # type: ignore[operator]
    assert np.array_equal(np.array(row["features"], np.float32), again.ravel(), equal_nan=True)


async def test_no_title_is_kept(parts: ServedParts, tmp_path: Path) -> None:
    message = request(parts)
    message.candidates[0].item_id = "unknown"
    message.candidates[0].text.title = "A Title Of My Own"
    async with ranking_channel(parts, log_served=tmp_path) as channel:
        await rank(channel, message)
    assert "unknown" in str(rows_in(tmp_path))
    assert "Title" not in str(rows_in(tmp_path))


async def test_a_ranking_by_popularity_has_no_features(parts: ServedParts, tmp_path: Path) -> None:
    async with ranking_channel(parts, log_served=tmp_path, features="127.0.0.1:1") as channel:
        await rank(channel, request(parts))
    (row,) = rows_in(tmp_path)
    assert (row["fallback_level"], row["features"]) == ("POPULARITY", [])
    assert row["history_version"] is None


def ranking(number: int, num_items: int = 2) -> ServedRanking:
    nothing = np.full(num_items, np.nan)
    return ServedRanking(
        float(number), "", bytes(16), 1, 1, "d", "f", "s", "EXACT_MIXTURE", ("a",) * num_items,
        np.zeros(num_items, np.int32), nothing, nothing, np.zeros((num_items, 4), np.float32),
    )  # fmt: skip


def test_many_rankings_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_log, "FILE_BYTES", ranking(0).features.nbytes * 3)
    log = ServedLog(tmp_path, 1 << 20)
    for number in range(8):
        log.offer(ranking(number))
    log.close()
    assert [row["time"] for row in rows_in(tmp_path)] == [float(n) for n in range(8)]
    assert len(files_in(tmp_path)) == 3
    assert (log.num_written, log.num_dropped) == (8, 0)


def test_a_file_is_written_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_log, "FILE_S", 0.05)
    log = ServedLog(tmp_path, 1 << 20)
    log.offer(ranking(1))
    while not log.num_written:
        threading.Event().wait(0.01)
    assert len(rows_in(tmp_path)) == 1
    log.close()


def test_the_oldest_files_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_log, "FILE_BYTES", 1)
    log = ServedLog(tmp_path, 20_000)
    for number in range(20):
        log.offer(ranking(number))
    log.close()
    kept = [row["time"] for row in rows_in(tmp_path)]
    assert kept == [float(n) for n in range(20)][-len(kept) :]
    assert 0 < len(kept) < 20
    assert sum(file.stat().st_size for file in files_in(tmp_path)) <= 20_000


def test_what_too_many_wait_for_is_dropped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "MAX_WAITING", 2)
    writing, go_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        writing.set()
        go_on.wait(10)

    monkeypatch.setattr(served_log, "FILE_BYTES", 1)
    monkeypatch.setattr(pq, "write_table", slow)
    log = ServedLog(tmp_path, 1 << 20)
    log.offer(ranking(0))
    assert writing.wait(10)
    for number in range(1, 6):
        log.offer(ranking(number))
    assert log.num_dropped == 3
    go_on.set()
    log.close()


def test_rankings_that_make_no_file_do_not_end_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_log, "FILE_BYTES", 1)
    log = ServedLog(tmp_path, 1 << 20)
    log.offer(dataclasses.replace(ranking(1), time="no time"))  # type: ignore[arg-type]
    log.offer(ranking(2))
    log.close()
    assert [row["time"] for row in rows_in(tmp_path)] == [2.0]
    assert (log.num_written, log.num_dropped) == (1, 1)


async def test_a_full_disk_costs_no_ranking(
    parts: ServedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    monkeypatch.setattr(served_log, "FILE_BYTES", 1)
    async with ranking_channel(parts, log_served=tmp_path / "served") as channel:
        for _ in range(3):
            assert len((await rank(channel, request(parts))).items) == 5
            await asyncio.sleep(0)
    assert files_in(tmp_path / "served") == []


async def test_a_folder_that_cannot_be_written_ends_the_start(
    served_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"^log_served: .*give a folder"):
        async with servers(settings(bundle=served_folder, log_served=tmp_path / "file")):
            pass
