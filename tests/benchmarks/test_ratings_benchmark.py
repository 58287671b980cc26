"""Predicted ratings are timed on a real server, beside features without them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.stored.ratings_study import figures, run_ratings_study, summary

from rankloom._cli.main import main
from rankloom_adapters.bundle import BundleError

NUM_ROWS = 120


@pytest.fixture
def with_towers(bundle_folder: Path, small_data: Path, tmp_path: Path) -> Path:
    """The small bundle with towers of some reviews of its films."""
    reviews, encoder, towers = (tmp_path / name for name in ("reviews", "encoder", "towers"))
    reviews.mkdir()
    (reviews / "items.csv").write_text((small_data / "items.csv").read_text())
    with (small_data / "interactions.csv").open() as log:
        rows = list(csv.DictReader(log))[:NUM_ROWS]
    with (reviews / "interactions.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "rating", "timestamp", "text"])
        for number, row in enumerate(rows):
            rating, text = ((5, "Lovely plot."), (2, "Dull cast."))[number % 2]
            writer.writerow([row["user_id"], row["item_id"], rating, row["timestamp"], text])
    data = ["--data", str(reviews)]
    given = [*data, "--encoder", str(encoder), "--towers", str(towers)]
    for command in (
        ["encode", *data, "--out", str(encoder), "--passes", "1"],
        ["towers", *data, "--encoder", str(encoder), "--out", str(towers), "--passes", "1"],
        ["attach", "--bundle", str(bundle_folder), *given, "--out", str(tmp_path / "bundle")],
    ):
        assert main(["reccot", *command]) == 0
    return tmp_path / "bundle"


async def test_ratings_are_timed_beside_features_without_them(with_towers: Path) -> None:
    found = await run_ratings_study(with_towers, turns=4, num_items=3)
    assert {len(seconds) for seconds in found.values()} == {4}
    result = BenchmarkResult(
        room="stored-ratings",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"items": 3},
        figures=json.loads(json.dumps(figures(found))),
    )
    title, *rows = summary(result).splitlines()
    assert title.startswith("3 items")
    assert len(rows) == 3


async def test_a_bundle_without_towers_is_refused(bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match="rankloom reccot attach"):
        await run_ratings_study(bundle_folder, turns=1, num_items=1)
