"""An expert file that PEFT loads means here what it means there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch

from cases.peft_adapters import (
    adapted,
    base,
    base_logits,
    our_logits,
    peft_logits,
    quiet,
    save,
    scatter,
)
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE

FIRST_Q = "model.layers.0.self_attn.q_proj"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all linear": {"target_modules": "all-linear"},
    "grouped keys and values": {"target_modules": ["k_proj", "v_proj"]},
    "one module": {"target_modules": ["down_proj"]},
    "suffix of two parts": {"target_modules": ["self_attn.q_proj", "mlp.up_proj"]},
    "full paths": {"target_modules": [FIRST_Q, "model.layers.1.mlp.gate_proj"]},
    "full path and suffix": {"target_modules": [FIRST_Q, "v_proj"]},
    "pattern": {"target_modules": r".*\.(q|v)_proj"},
    "pattern of one layer": {"target_modules": r"model\.layers\.1\..*_proj"},
    "pattern that looks ahead": {"target_modules": r".*layers\.(?!0)\d+\.mlp\.(up|down)_proj"},
    "pattern with a reference": {"target_modules": r"model\.layers\.(\d)\.(self_attn|mlp).*"
                                 r"(?<!k)_proj"},
    "excluded suffix": {"target_modules": LINEARS, "exclude_modules": ["k_proj", "mlp.up_proj"]},
    "excluded path": {"exclude_modules": [FIRST_Q]},
    "excluded pattern": {"target_modules": LINEARS, "exclude_modules": r".*layers\.0\..*"},
    "one layer": {"layers_to_transform": 1},
    "layers": {"target_modules": LINEARS, "layers_to_transform": [0]},
    "layers with a pattern": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "layers with patterns": {"layers_to_transform": [1], "layers_pattern": ["h", "lay.*"]},
    "layers, but for a full path": {
        "target_modules": [FIRST_Q, "v_proj"], "layers_to_transform": [1],
    },
    "no layers named": {"layers_to_transform": []},
    "rank by name": {"rank_pattern": {"v_proj": 7}},
    "rank by pattern": {"rank_pattern": {r"layers\.1\..*": 2}},
    "rank by two patterns": {"rank_pattern": {r".*\.1\..*": 2, r".*v_proj": 3}},
    "rank by full path": {"rank_pattern": {f"^{FIRST_Q}": 9}},
    "alpha by name": {"alpha_pattern": {"v_proj": 64}},
    "alpha by pattern": {"alpha_pattern": {r"(0|2)\.self_attn\.q_proj": 1}},
    "rank and alpha": {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {r"layers\.1\..*": 3}},
    "alpha for each": {"alpha_pattern": {"q_proj": 5, "v_proj": 11}},
    "rsLoRA": {"use_rslora": True, "r": 16},
    "rsLoRA of rank 1": {"use_rslora": True, "r": 1},
    "rsLoRA, rank pattern": {"use_rslora": True, "rank_pattern": {"q_proj": 16}},
    "rsLoRA, alpha pattern": {"use_rslora": True, "alpha_pattern": {"q_proj": 2}},
    "rsLoRA, both patterns": {
        "use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 20},
    },
    "rank 1": {"r": 1},
    "rank 64": {"r": 64},
    "rank 128": {"r": 128},
    "rank 256": {"r": 256, "target_modules": LINEARS},
    "alpha of a fraction": {"lora_alpha": 0.5},
    "alpha negative": {"lora_alpha": -6},
    "alpha of 0": {"lora_alpha": 0},
    "alpha negative for some": {"alpha_pattern": {"q_proj": -3}},
    "alpha 0 for some": {"alpha_pattern": {"q_proj": 0}},
    "alpha for some, else 0": {"lora_alpha": 0, "alpha_pattern": {"q_proj": 9}},
    "dropout": {"lora_dropout": 0.3},
    "gaussian start": {"init_lora_weights": "gaussian"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
    "causal LM": {"task_type": "CAUSAL_LM"},
    "transposed, as PEFT ignores": {"fan_in_fan_out": True},
}  # fmt: skip


def check_equal(folder: Path, *, changes: bool = True) -> None:
    theirs = peft_logits(folder)
    assert torch.allclose(our_logits(folder), theirs, atol=1e-4, rtol=0)
    assert torch.allclose(theirs, base_logits(), atol=1e-3) is not changes


def test_there_are_enough_configurations() -> None:
    assert len(CONFIGS) >= 40


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_peft(name: str, tmp_path: Path) -> None:
    folder = save(adapted(**CONFIGS[name]), tmp_path)
    check_equal(folder, changes=name != "alpha of 0")


def change_config(folder: Path, **fields: object) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rename(folder: Path, old: str, new: str) -> None:
    path = folder / WEIGHTS_FILE
    tensors = safetensors.torch.load(path.read_bytes())
    renamed = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    path.write_bytes(safetensors.torch.save(renamed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save(adapted(use_rslora=True).to(dtype), tmp_path)
    check_equal(folder)


def test_all_linear_by_that_name(tmp_path: Path) -> None:
    folder = save(adapted(target_modules="all-linear"), tmp_path)
    change_config(folder, target_modules="all-linear")
    check_equal(folder)


def test_an_adapters_name_in_the_keys(tmp_path: Path) -> None:
    folder = save(adapted(), tmp_path)
    rename(folder, ".weight", ".default.weight")
    check_equal(folder)


@pytest.mark.parametrize(("old", "new"), [(".weight", ".mine.weight"), ("base_model.model.", "")])
def test_names_that_peft_would_ignore_are_not_zeros(old: str, new: str, tmp_path: Path) -> None:
    """PEFT warns of missing keys and adds nothing; the names are plain, so they are read."""
    folder = save(adapted(), tmp_path)
    theirs = peft_logits(folder)
    rename(folder, old, new)
    assert torch.allclose(our_logits(folder), theirs, atol=1e-4, rtol=0)


def test_a_second_adapter_of_a_model(tmp_path: Path) -> None:
    model = adapted()
    with quiet():
        model.add_adapter("other", peft.LoraConfig(r=3, target_modules=["o_proj"]))
    scatter(model)
    save(model, tmp_path)
    check_equal(tmp_path / "other")


def test_a_weighted_sum_of_two_adapters(tmp_path: Path) -> None:
    model = adapted()
    with quiet():
        model.add_adapter("other", peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))
        scatter(model)
        model.add_weighted_adapter(["default", "other"], [0.7, -0.4], "sum", "cat")
    save(model, tmp_path)
    check_equal(tmp_path / "sum")


def test_a_start_that_peft_converts(tmp_path: Path) -> None:
    """PiSSA changes the base; PEFT's conversion gives LoRA of twice the rank on the old base."""
    torch.manual_seed(1)
    fields = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    with quiet():
        model = peft.get_peft_model(base(), peft.LoraConfig(**fields, init_lora_weights="pissa"))
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(str(tmp_path / "start"))
        model.peft_config["default"].init_lora_weights = "pissa"
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(
            str(tmp_path / "end"), path_initial_model_for_weight_conversion=str(tmp_path / "start")
        )
    check_equal(tmp_path / "end")


def test_settings_of_a_start_that_was_not_used(tmp_path: Path) -> None:
    folder = save(adapted(), tmp_path)
    change_config(folder, eva_config={"rho": 2.0}, corda_config={"cache_file": None})
    check_equal(folder)
