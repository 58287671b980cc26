"""Equal trainings write equal bytes, whatever order Python's hashes give to sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import small_data as small
from rankloom_adapters.bundle import open_bundle

SAVE = """
import sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_training.experts import ExpertTrainer

torch.manual_seed(0)
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
trainer = ExpertTrainer(Decoder(model, Projector(2, 2, 8), yes=1, no=2), 0)
folder = Path(sys.argv[1])
folder.mkdir()
base = folder.with_suffix(".base")
base.write_bytes(b"base")
trainer.save(folder, base)
"""


def test_an_expert_is_saved_in_equal_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / seed for seed in "12"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": folder.name},
        )
        for folder in folders
    ]
    assert [run.wait(280) for run in runs] == [0, 0]
    first, second = ({p.name: p.read_bytes() for p in each.iterdir()} for each in folders)
    assert first == second


def test_a_training_in_another_process_gives_the_same_digest(
    small_data: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    """The other bundle was trained in this process, whose hashes are others."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    hashes = [sys.executable, "-c", "print(hash('rankloom'))"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    assert int(subprocess.check_output(hashes, env=environment)) != hash("rankloom")
    out = tmp_path / "again"
    train = [sys.executable, "-W", "ignore", small.__file__, str(small_data), str(out)]
    subprocess.run(train, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert open_bundle(out).digest == open_bundle(bundle_folder).digest
