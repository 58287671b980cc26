"""`rankloom bundle inspect` shows what is in an expert's folder, or why it is refused."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest

from cases.peft_adapters import adapted, save
from rankloom._cli.main import main
from rankloom_adapters.bundle import seal

TEXT = r"""expert       mine
digest       [0-9a-f]{64}
base         not named
base_sha256  not named
rank         4, 8
alpha        16
rslora       yes
scale        8
modules      q_proj × 2, v_proj × 2
dtype        float32
size_mib     0.0\d+
conversions  rsLoRA: alpha / √r became the scale, .* 2 modules differs: folded into their factors
"""


def inspect(*arguments: object) -> int:
    return main(["bundle", "inspect", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = adapted(lora_alpha=16, use_rslora=True, rank_pattern={"v_proj": 8})
    return save(model, tmp_path / "mine")


def test_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(folder) == 0
    assert re.fullmatch(TEXT, capsys.readouterr().out)


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["alpha"], found["rslora"]) == ([4, 8], [16.0], True)
    assert found["modules"] == {"q_proj": 2, "v_proj": 2}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = inspect(*arguments)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return code, err


def test_why_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refusal(capsys, save(adapted(use_dora=True), tmp_path / "mine"))
    assert code == 1
    assert "mine: adapter_config.json: 'use_dora' is set, which is not supported: train" in said


def test_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refusal(capsys, tmp_path / "nothing")
    assert (code, "nothing: no such folder" in said) == (2, True)
    code, said = refusal(capsys, tmp_path)
    assert code == 1
    assert "an expert's folder holds adapter_config.json and adapter_model.safetensors" in said
    (tmp_path / "manifest.json").write_text("{}")
    code, said = refusal(capsys, tmp_path, "--bundle", tmp_path)
    assert "give one of its folders experts/NAME" in said
    code, said = refusal(capsys, tmp_path)
    assert (code, f"{tmp_path}: bundle: manifest.json: not a manifest" in said) == (1, True)


def test_a_bundle_is_shown_by_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "reccot").mkdir()
    (tmp_path / "reccot" / "towers.onnx").write_bytes(b"x" * 2**20)
    (tmp_path / "catalogue.jsonl").write_bytes(b"")
    digest = seal(tmp_path, {"derived_from": "an earlier one"})
    towers = sha256(b"x" * 2**20).hexdigest()
    assert inspect(tmp_path) == 0
    head, parts = capsys.readouterr().out.split("\n\n")
    assert head.splitlines() == [
        f"bundle              {digest}",
        "derived_from        an earlier one",
        "signed              no",
        "experts             none",
    ]
    assert f"reccot/towers.onnx  {towers[:12]}      1.000 MiB" in parts
    assert inspect(tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bundle"], list(found["parts"])) == (
        digest, ["catalogue.jsonl", "reccot/towers.onnx"],
    )  # fmt: skip
    assert found["parts"]["reccot/towers.onnx"] == {"sha256": towers, "bytes": 2**20}
