"""Bases as the hub has them, on disk, through every stage, a server and an explanation."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import rankloom
from rankloom_adapters.bundle import open_bundle
from rankloom_training.evaluate import evaluate
from rankloom_training.machine import Machine
from rankloom_training.options import DEFAULTS, RecipeName, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.serving import serving
from rankloom_training.train import TrainingJob
from rankloom_training.visibility import Protocol
from small_data import small_options

STOP = "<|im_end|>"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
TEXTS = ["What the user thought of items so far.\nItem: The Comedy No 7\nLiked: Yes No, which"] * 9
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# As large bases are trained.
MACHINE = Machine("cuda" if torch.cuda.is_available() else "cpu", recompute=True)
RECIPES = {"qwen3": RecipeName.THINKREC, "llama": RecipeName.REASONINGREC}


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[STOP, "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def decoder(kind: str, num_tokens: int) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(vocab_size=num_tokens, head_dim=8, **SIZES))
    return LlamaForCausalLM(LlamaConfig(vocab_size=num_tokens, **SIZES))


@pytest.fixture(params=["qwen3", "llama"])
def hub_base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The kind, and its folder as the hub's libraries save it."""
    tokenizer, folder = byte_level(), tmp_path / "base"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=STOP, chat_template=CHAT
    ).save_pretrained(folder)
    decoder(request.param, tokenizer.get_vocab_size()).save_pretrained(folder)
    return request.param, folder


def options_of(kind: str, base: Path) -> TrainOptions:
    """The paper's recipe, as short as it can be."""
    recipe, short = DEFAULTS[RECIPES[kind]], small_options()
    return dataclasses.replace(
        recipe,
        base=str(base),
        num_groups=2,
        global_recipe=dataclasses.replace(recipe.global_recipe, epochs=1),
        group_recipe=dataclasses.replace(recipe.group_recipe, epochs=1),
        lm_rows=200,
        base_epochs=short.base_epochs,
    )


@pytest.mark.usefixtures("bundle_folder")
def test_a_base_of_the_hub_goes_through_every_stage(
    hub_base: tuple[str, Path], small_data: Path, finished_stages: Path, tmp_path: Path
) -> None:
    kind, base = hub_base
    work = shutil.copytree(finished_stages, tmp_path / "stages")
    out = tmp_path / "bundle"
    job = TrainingJob.checked(small_data, out, options_of(kind, base), work, MACHINE)
    job.run(Progress())
    bundle = open_bundle(out)
    assert kind in (out / "base" / "config.json").read_text()
    assert len(list((out / "experts").iterdir())) == 3

    report, scored, _ = evaluate(
        out, small_data, Protocol.P1, through_grpc=False, progress=Progress(), max_rows=20
    )
    assert report.bundle_digest == bundle.digest
    assert set(scored.scores) >= {"served", "global", "lightgbm"}

    history = [rankloom.Event(f"i{item}", liked=item % 2 == 0) for item in range(8)]
    with serving(out, "--dtype", "float32") as address, rankloom.Client(address) as client:
        ranking = client.rank(["i20", "i21"], history=history)
        said = client.explain(ranking.items[0].item_id, history=history).result()
    assert said.text
    assert math.isclose(said.probability, ranking.items[0].probability, abs_tol=1e-5)
    assert {each.item_id for each in said.evidence} <= {event.item_id for event in history}
