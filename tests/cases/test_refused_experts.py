"""An expert file that cannot be served says why, and what to do, in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cases.peft_adapters import adapted, our_logits, peft_logits, save
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, ExpertError
from rankloom_adapters.expert_files import read_expert

# Configurations of PEFT, and what the refusal says.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "'use_dora' is set.*train with use_dora=False"),
    "biases": ({"bias": "lora_only"}, "'bias' is set.*train with bias='none'"),
    "biases of LoRA": ({"lora_bias": True}, "'lora_bias' is set.*train with lora_bias=False"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "'modules_to_save'.*train with"),
    "LoRA on the head": (
        {"target_modules": ["q_proj", "lm_head"]}, "LoRA on the head; train without",
    ),
    "LoRA on the embeddings": (
        {"target_modules": ["q_proj", "embed_tokens"]}, "LoRA on the embeddings; train without",
    ),
    "trained tokens": ({"trainable_token_indices": [1]}, "'trainable_token_indices'.*train w"),
    "repeated layers": ({"layer_replication": [(0, 2), (0, 2)]}, "'layer_replication'.*save the"),
    "start that changes the base": (
        {"init_lora_weights": "pissa"}, "'init_lora_weights'.*path_initial_model_for_weight",
    ),
}  # fmt: skip


def refusal(folder: Path) -> str:
    with pytest.raises(ExpertError) as caught:
        read_expert("mine", folder)
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_plain_lora_is_named_with_a_remedy(name: str, tmp_path: Path) -> None:
    fields, says = REFUSED[name]
    assert re.search(says, refusal(save(adapted(**fields), tmp_path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(adapted(), tmp_path / "expert")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / WEIGHTS_FILE
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))


def test_an_added_token(tmp_path: Path) -> None:
    model = adapted()
    model.base_model.model.resize_token_embeddings(70)
    model.save_pretrained(str(tmp_path), save_embedding_layers=True)
    assert "a token was added, or they were trained; train without" in refusal(tmp_path)


def test_empty_tensors_of_zero_3(folder: Path) -> None:
    def empty(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({key: torch.empty(0) for key in tensors})

    change_tensors(folder, empty)
    assert "ZeRO-3 saves: gather the weights before saving" in refusal(folder)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_git_lfs_pointer(file: str, folder: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132\n"
    (folder / file).write_text(pointer)
    assert refusal(folder) == f"{file}: a Git LFS pointer, not the file; run 'git lfs pull'"


def test_a_pickle_instead(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which can run code: save with" in refusal(folder)


def test_several_files(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model-00001-of-00002.safetensors")
    assert "it is in several files: save it as one" in refusal(folder)


def test_two_adapters_in_one_file(folder: Path) -> None:
    def double(tensors: dict[str, torch.Tensor]) -> None:
        for key, tensor in list(tensors.items()):
            tensors[key.replace(".weight", ".other.weight")] = tensor.clone()

    change_tensors(folder, double)
    assert "of several forms: save one adapter" in refusal(folder)


def test_a_pattern_that_would_run_for_ever(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["target_modules"] = r"(?:.|..|...)*[A-Z]"
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert "takes too long; write a simpler one" in refusal(folder)


def hub_cache(expert: Path, root: Path) -> Path:
    """The expert as Hugging Face's cache keeps it; returns the snapshot."""
    blobs, snapshot = root / "models--a--b" / "blobs", root / "models--a--b/snapshots/0a1b"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(expert.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_links_inside_a_hub_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(folder, tmp_path / "hub")
    assert torch.allclose(our_logits(snapshot), peft_logits(snapshot), atol=1e-4)


@pytest.mark.parametrize("at", ["outside", "beside", "through a link"])
def test_other_links_are_not(at: str, folder: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(folder, tmp_path / "hub")
    link = snapshot / WEIGHTS_FILE
    if at == "through a link":
        blobs = tmp_path / "hub/models--a--b/blobs"
        blobs.rename(tmp_path / "elsewhere")
        blobs.symlink_to(tmp_path / "elsewhere")
    else:
        target = folder if at == "outside" else snapshot
        shutil.copy(folder / WEIGHTS_FILE, target / "other")
        link.unlink()
        link.symlink_to(os.path.relpath(target / "other", snapshot))
    assert "copy the folder with 'cp -rL'" in refusal(snapshot)


def test_a_linear_layer_that_the_base_lacks(tmp_path: Path) -> None:
    folder = save(adapted(), tmp_path)
    change_tensors(folder, lambda each: each.update(
        {key.replace("q_proj", "extra_proj"): each.pop(key) for key in list(each)}
    ))  # fmt: skip
    config = json.loads((folder / CONFIG_FILE).read_text()) | {"target_modules": "all-linear"}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ExpertError, match=r"no such linear module.*train the expert on this base"):
        our_logits(folder)
