"""A decoder is read from its files in the number format that serves, in little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from engine.tiny import tiny_model
from rankloom_adapters.bundle import BundleError
from rankloom_engine.decoder_files import load_decoder_model, read_config, read_tensors
from rankloom_engine.errors import ModelError

STATE = {
    "wide": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "narrow": torch.arange(4, dtype=torch.bfloat16),
    "whole": torch.arange(6).view(2, 3),
    "one": torch.tensor(2.5),
    "none": torch.zeros(0, 4),
    "flag": torch.tensor([True, False]),
}


def cut(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_tensors_are_the_librarys(size: int) -> None:
    found = read_tensors(cut(safetensors.torch.save(STATE), size), torch.float32)
    assert found.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor)


def test_numbers_with_a_fraction_come_in_the_format_that_serves() -> None:
    found = read_tensors([safetensors.torch.save(STATE)], torch.bfloat16)
    assert found["wide"].dtype == torch.bfloat16
    assert torch.equal(found["wide"], STATE["wide"].bfloat16())
    assert found["whole"].dtype == torch.int64


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:-1], id="ends early"),
        pytest.param(lambda data: data + b"0", id="ends late"),
        pytest.param(lambda data: data[:5], id="no header"),
        pytest.param(lambda data: b"\xff" * 8 + data[8:], id="endless header"),
        pytest.param(lambda data: data.replace(b"BF16", b"BF17"), id="unknown format"),
        pytest.param(lambda data: data.replace(b"[3,5]", b"[4,5]"), id="another shape"),
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda _: b"version https://git-lfs.github.com/spec/v1\n", id="a pointer"),
    ],
)
def test_a_damaged_file_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(ModelError, match="base: the weights are not a safetensors file"):
        read_tensors([change(safetensors.torch.save(STATE))], torch.float32)


def test_an_altered_part_says_so_itself() -> None:
    """Its digest is known at its end, even if it cannot be read as weights."""

    def pieces() -> Iterator[bytes]:
        yield b"garbage" * 100
        raise BundleError("base/model.safetensors", "altered")

    with pytest.raises(BundleError, match="altered"):
        read_tensors(pieces(), torch.float32)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_is_the_saved_one(dtype: torch.dtype, tied: bool) -> None:
    model = tiny_model()
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    left_out = {"lm_head.weight"} if tied else set()
    state = {n: t.contiguous() for n, t in model.state_dict().items() if n not in left_out}
    config = read_config(json.dumps(model.config.to_dict()).encode())
    copy = load_decoder_model(config, [safetensors.torch.save(state)], dtype)
    assert {weight.dtype for weight in copy.parameters()} == {dtype}
    for (name, weight), own in zip(model.named_parameters(), copy.parameters(), strict=True):
        assert torch.equal(weight.to(dtype), own), name
    assert copy.model.rotary_emb.inv_freq.dtype == torch.float32  # type: ignore[union-attr]
    assert torch.equal(copy.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)  # type: ignore[union-attr,arg-type]
    head, table = copy.get_output_embeddings(), copy.get_input_embeddings()  # type: ignore[operator]
    assert (head.weight is table.weight) == tied


def test_weights_of_another_model_are_refused() -> None:
    config = read_config(json.dumps(tiny_model(num_layers=2).config.to_dict()).encode())
    weights = safetensors.torch.save(tiny_model(num_layers=3).state_dict())
    with pytest.raises(ModelError, match="base: the weights do not match the config"):
        load_decoder_model(config, [weights])


_MEASURE = """
import sys, torch
from transformers import AutoModelForCausalLM
from pathlib import Path
from rankloom_engine.decoder_files import load_decoder_model, read_config

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10

def pieces(path):
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            yield piece

folder = Path(sys.argv[1])
config = read_config((folder / "config.json").read_bytes())
type(AutoModelForCausalLM.from_config(read_config((folder / "tiny.json").read_bytes())))
before = peak()
model = load_decoder_model(config, pieces(folder / "model.safetensors"), torch.bfloat16)
print(peak() - before)
"""


def test_loading_takes_the_models_size_in_memory(tmp_path: Path) -> None:
    """Neither a copy of the file nor one in float32 is made."""
    model = tiny_model()
    fields = model.config.to_dict() | {
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "vocab_size": 16_000,
        "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "tiny.json").write_text(json.dumps(model.config.to_dict()))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    big = type(model)(type(model.config)(**fields)).bfloat16()
    (tmp_path / "model.safetensors").write_bytes(safetensors.torch.save(big.state_dict()))
    size = (tmp_path / "model.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\n", done.stdout)
    assert int(done.stdout) < 1.3 * size + (8 << 20)
