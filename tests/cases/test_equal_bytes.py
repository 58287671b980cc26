"""Equal trainings write equal bytes, whatever order Python's hashes give to sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import small_data as small
from rankloom_adapters.bundle import open_bundle
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_training.experts import ExpertTrainer


def save_expert(folder: Path) -> None:
    """An untrained expert of a tiny decoder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    trainer = ExpertTrainer(Decoder(model, Projector(2, 2, 8), yes=1, no=2), 0)
    folder.mkdir()
    base = folder.with_suffix(".base")
    base.write_bytes(b"base")
    trainer.save(folder, base)


def other_hashes() -> dict[str, str]:
    """The environment of a process in which sets have another order than in this one."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = [str(Path(small.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(path)}
    hashes = [sys.executable, "-c", "print(hash('rankloom'))"]
    assert int(subprocess.check_output(hashes, env=environment)) != hash("rankloom")
    return environment


def test_an_expert_is_saved_in_equal_bytes(tmp_path: Path) -> None:
    save_expert(tmp_path / "here")
    program = [sys.executable, "-W", "ignore", __file__, str(tmp_path / "there")]
    subprocess.run(program, env=other_hashes(), check=True)
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    )
    assert here == there


def test_a_training_in_another_process_gives_the_same_digest(
    small_data: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    """The other bundle was trained in this process, whose hashes are others."""
    out = tmp_path / "again"
    train = [sys.executable, "-W", "ignore", small.__file__, str(small_data), str(out)]
    subprocess.run(train, env=other_hashes(), check=True, stderr=subprocess.DEVNULL)
    assert open_bundle(out).digest == open_bundle(bundle_folder).digest


if __name__ == "__main__":
    save_expert(Path(sys.argv[1]))
