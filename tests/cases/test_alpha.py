"""No alpha of an expert gives NaN at a request: it has PEFT's meaning, or is refused when read."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch

from cases.peft_adapters import TOKENS, adapted, base, our_logits, quiet, save, scatter
from rankloom_adapters.bundle import BASE_WEIGHTS, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, ExpertError
from rankloom_adapters.expert_files import read_expert
from rankloom_adapters.router import Fusion
from rankloom_engine.expert_bank import MixtureWeights, install
from rankloom_ranker.loaded import bundled_experts

WEIGHTS = (0.7, 0.3)


@pytest.mark.parametrize("alphas", [(-8, 4), (-8, -4), (0, 4), (0, 0)])
@torch.inference_mode()
def test_peft_linear_with_any_alpha_is_what_peft_computes(
    alphas: tuple[int, int], tmp_path: Path
) -> None:
    model = adapted(lora_alpha=alphas[0])
    other = peft.LoraConfig(r=4, lora_alpha=alphas[1], target_modules=["q_proj", "v_proj"])
    with quiet():
        model.add_adapter("other", other)
        scatter(model)
        model.add_weighted_adapter(["default", "other"], list(WEIGHTS), "both", "linear")
    save(model, tmp_path)
    model.set_adapter("both")
    theirs = model(input_ids=TOKENS).logits

    experts = [read_expert("e", folder).expert for folder in (tmp_path, tmp_path / "other")]
    ours = base()
    bank = install(ours, experts)
    row = MixtureWeights(np.array(WEIGHTS, dtype=np.float32), Fusion.PEFT_LINEAR)
    with bank.weighted([row, row], [TOKENS.shape[1]] * 2):
        assert torch.allclose(ours(input_ids=TOKENS).logits, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fields", [{"lora_alpha": 1e38}, {"alpha_pattern": {"q_proj": 1e38}}])
def test_an_alpha_that_overflows_is_refused_in_a_first_bundle(
    fields: dict[str, object], tmp_path: Path
) -> None:
    folder = save(adapted(), tmp_path / "bundle/experts/one")
    (folder / "README.md").unlink()
    change_config(folder, **fields)
    (tmp_path / "bundle" / BASE_WEIGHTS).parent.mkdir()
    (tmp_path / "bundle" / BASE_WEIGHTS).write_bytes(b"base")
    seal(tmp_path / "bundle", {})
    (expert,) = bundled_experts(open_bundle(tmp_path / "bundle"), ["one"])
    with pytest.raises(ExpertError, match=r"norm .* is allowed"):
        expert.load()


def test_a_negative_alpha_beside_a_positive_one(tmp_path: Path) -> None:
    """The weights of both are positive, so that no square root of a sum can fail."""
    folder = save(adapted(lora_alpha=-8), tmp_path)
    assert read_expert("e", folder).expert.scale > 0
    assert torch.isfinite(our_logits(folder)).all()


def test_what_is_cached_for_one_alpha_is_not_used_for_another(tmp_path: Path) -> None:
    """The weight files are equal, and the most frequent scale too."""
    folder = save(adapted(target_modules=["q_proj", "k_proj", "v_proj"]), tmp_path)
    first = read_expert("e", folder).expert
    change_config(folder, alpha_pattern={"v_proj": 3})
    second = read_expert("e", folder).expert
    assert (first.digest, first.scale) == (second.digest, second.scale)
    bank = install(copy.deepcopy(base()), [first, second])
    assert len(set(bank.keys)) == 2


def change_config(folder: Path, **fields: object) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
