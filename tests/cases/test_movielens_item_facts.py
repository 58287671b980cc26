"""The public facts of MovieLens-1M's films, which lift its ranking most, become item columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from rankloom_training.data import load_dataset
from training.logs import MOVIELENS, on_movielens

FACTS = {"outside_rating", "log_votes", "minutes", "log_budget"}


@on_movielens
def test_facts_of_films_become_item_columns(tmp_path: Path) -> None:
    items = parquet.read_table(MOVIELENS / "items.parquet")
    facts = parquet.read_table(MOVIELENS / "item_facts.parquet")
    wide = items.join(facts, "item_id", join_type="left outer")
    parquet.write_table(wide, tmp_path / "items.parquet")
    (tmp_path / "interactions.parquet").symlink_to(MOVIELENS / "interactions.parquet")
    found = load_dataset(tmp_path)
    columns = found.item_columns
    assert set(columns.names) >= FACTS
    known = ~np.isnan(columns.values[:, columns.names.index("outside_rating")])
    assert known.sum() == pa.compute.count(facts.column("outside_rating")).as_py()
    assert found.source is not None
    assert dict(found.source.items.further)["outside_rating"].startswith("number, ")
