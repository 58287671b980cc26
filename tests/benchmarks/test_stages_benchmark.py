"""The cost of a training's stages: what is counted, and what share of the machine that is."""

from __future__ import annotations

import json

import pytest
import torch
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.stages import clock
from benchmarks.stages.clock import ClockedProgress, ComputeCount, counted, flops_per_cpu_s
from benchmarks.stages.report import StageCost, figures, summary
from torch import nn
from torch.nn import functional

from rankloom_features.export import export
from rankloom_features.models import MODEL_NAMES, create_model
from rankloom_training.side_by_side import OnStep, SideBySide

ROWS, INNER, COLUMNS = 5, 7, 11


def test_matrix_products_are_counted_in_both_directions() -> None:
    layer, x = nn.Linear(INNER, COLUMNS), torch.randn(ROWS, INNER, requires_grad=True)
    with ComputeCount() as forward:
        y = layer(x)
    with ComputeCount() as backward:
        y.sum().backward()
    assert forward.flops == 2 * ROWS * INNER * COLUMNS
    assert backward.flops == 2 * forward.flops, "for the weights and for the input"


def test_attention_is_counted_in_both_directions() -> None:
    query, key, value = (torch.randn(2, 3, ROWS, INNER, requires_grad=True) for _ in range(3))
    with ComputeCount() as forward:
        y = functional.scaled_dot_product_attention(query, key, value)
    with ComputeCount() as backward:
        y.sum().backward()
    assert forward.flops == 2 * 3 * 2 * (2 * ROWS * INNER * ROWS), "scores, and weighted values"
    assert backward.flops > forward.flops


def test_all_is_counted_without_gradients_too() -> None:
    table, layer = nn.Embedding(9, INNER), nn.Linear(INNER, INNER)
    with ComputeCount() as count, torch.inference_mode():
        x = layer(table(torch.zeros(2, ROWS, dtype=torch.long)))
        functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])
    assert count.embedded == 2 * ROWS
    assert count.flops == 2 * 2 * ROWS * INNER * INNER + 2 * 2 * (2 * ROWS * INNER * ROWS)


@pytest.mark.parametrize("kind", MODEL_NAMES)
def test_what_is_exported_is_not_counted_and_not_disturbed(kind: str) -> None:
    model = create_model(kind, 20, 8)
    with counted() as count:
        assert export(model)
    assert count.flops < 1e9


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_runs_side_by_side_is_counted_once(num_threads: int) -> None:
    def job(model: nn.Linear, on_step: OnStep) -> None:
        model(torch.randn(ROWS, INNER, requires_grad=True)).sum().backward()
        on_step(1, 1)

    layers = [nn.Linear(INNER, COLUMNS) for _ in range(num_threads)]
    with counted() as count:
        SideBySide(layers, lambda *_: None).run([job] * 3, [1] * 3)
    assert count.flops == 3 * 3 * 2 * ROWS * INNER * COLUMNS


def test_a_stage_is_clocked_by_name() -> None:
    progress, x = ClockedProgress(), torch.randn(64, 64)
    with progress.stage("base") as shown:
        torch.mm(x, x)
        shown.note("loss 1")
    with progress.stage("trees"):
        pass
    assert progress.costs["base"].flops == 2 * 64**3
    assert progress.costs["base"].note == "loss 1"
    assert progress.costs["base"].cpu_s > 0
    assert progress.costs["trees"].flops == 0


def test_the_roofline_is_measured_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "ROUNDS", 2)
    first, second = flops_per_cpu_s()
    assert min(first, second) > 1e8


def test_a_table_shows_tokens_of_the_language_model_and_shares_of_the_roofline() -> None:
    costs = {
        "trees": StageCost(wall_s=5.0, cpu_s=4.0, flops=0, embedded=0, note=""),
        "base": StageCost(wall_s=12.0, cpu_s=10.0, flops=60 * 10**9, embedded=5000, note=""),
    }
    found = figures(2000, costs, [20e9, 24e9], total_s=90.0, peak_mib=2048)
    result = BenchmarkResult(
        room="stages",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"rows": 2000, "items": 10, "lm_rows": 50},
        figures=json.loads(json.dumps(found)),
    )
    assert found["stages"]["base"]["of_roofline"] == 0.25
    table = summary(result)
    assert "| trees | 5 s | 4 s | 500 rows | | |" in table
    assert "| base | 12 s | 10 s | 500 tokens | 6.0 | 25% |" in table
    assert "Plain float32 matrix products: 24 GFLOP/s per CPU-second." in table
