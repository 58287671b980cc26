"""The public facts of MovieLens-1M's films, which lift its ranking most, become item columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyarrow import parquet

from rankloom_training.data import load_dataset
from rankloom_training.data.arrow import compute as pc
from training.logs import MOVIELENS, on_movielens

FACTS = {"outside_rating", "log_votes", "minutes", "log_budget"}


@on_movielens
def test_facts_of_films_become_item_columns(tmp_path: Path) -> None:
    items = parquet.read_table(MOVIELENS / "items.parquet")
    facts = parquet.read_table(MOVIELENS / "item_facts.parquet")
    own = facts.drop("item_id").take(pc.index_in(items["item_id"], value_set=facts["item_id"]))
    for name in own.column_names:
        items = items.append_column(name, own.column(name))
    parquet.write_table(items, tmp_path / "items.parquet")
    (tmp_path / "interactions.parquet").symlink_to(MOVIELENS / "interactions.parquet")
    found = load_dataset(tmp_path)
    columns = found.item_columns
    assert set(columns.names) >= FACTS
    known = ~np.isnan(columns.values[:, columns.names.index("outside_rating")])
    assert known.sum() == pc.count(facts.column("outside_rating")).as_py()
    assert found.source is not None
    assert dict(found.source.items.further)["outside_rating"].startswith("number, ")
