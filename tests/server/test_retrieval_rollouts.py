"""An item of a staged bundle is retrievable once promoted, and no answer mixes revisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.retrieve.swaps import ADDED, swap_under_calls, with_added_item

from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from server.retrievals import ids, retrieve
from server.rollouts import rolling_out


@pytest.fixture(scope="session")
def grown_folder(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_added_item(served_folder, tmp_path_factory.mktemp("grown") / "bundle")


async def test_an_added_item_comes_with_its_bundle_and_goes_with_it(
    served_folder: Path, grown_folder: Path, tmp_path: Path
) -> None:
    async with rolling_out(served_folder, tmp_path / "state") as server:
        assert ADDED.item_id not in ids(await retrieve(server.ranking, user_id="u1", k=1000))
        await server.stage(grown_folder)
        assert ADDED.item_id not in ids(await retrieve(server.ranking, user_id="u1", k=1000))
        await server.promote(2)
        found = await retrieve(server.ranking, user_id="u1", k=1000)
        assert (found.revision.number, ADDED.item_id in ids(found)) == (2, True)
        await server.roll_back(2, 2)
        found = await retrieve(server.ranking, user_id="u1", k=1000)
        assert (found.revision.number, ADDED.item_id in ids(found)) == (1, False)


async def test_no_answer_mixes_revisions_and_none_is_stale(
    served_folder: Path, grown_folder: Path, tmp_path: Path
) -> None:
    store = SqliteEventStore(events_beside(served_folder))
    users = list(store.users())[:8]
    store.close()
    async with rolling_out(served_folder, tmp_path / "state") as server:
        ranking = server.ranking_address
        counts = await swap_under_calls(
            ranking, server.rollout_address, grown_folder, users, swaps=3, in_flight=3
        )
    assert (counts.swaps, counts.faults) == (3, 0), counts
    assert counts.answers >= 3 * 8
