"""`rankloom doctor` says what is wrong here and what to do; exit code 1 if something is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from rankloom._cli import installation
from rankloom._cli.installation import Requirement
from rankloom._cli.main import main


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["doctor", "--port", "0", *arguments])
    return code, capsys.readouterr().out


def test_a_sound_installation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys)
    assert (code, out.splitlines()[-1]) == (0, "nothing is wrong")
    areas = {line.split()[1] for line in out.splitlines()[:-1]}
    assert areas >= {"machine", "cpu", "threads", "python", "packages", "ports", "disk"}


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys, "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    assert found["findings"][0].keys() == {"area", "state", "text", "remedy"}


@pytest.mark.parametrize("threads", ["0", "none", "999999"])
def test_threads(
    threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    code, out = doctor(capsys)
    assert code == 1
    assert f"export OMP_NUM_THREADS={len(os.sched_getaffinity(0))}, or unset it" in out


def write_bundle(folder: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    folder.mkdir()
    (folder / "router.json").write_bytes(b"x")
    files = {"router.json": {"sha256": digest, "bytes": 1}}
    (folder / "manifest.json").write_text(json.dumps({"format": 3, "files": files}))


def test_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    code, out = doctor(capsys, "--bundle", str(bundle))
    assert (code, "give a folder that `rankloom train` wrote" in out) == (1, True)
    write_bundle(bundle)
    assert doctor(capsys, "--bundle", str(bundle))[0] == 0
    (bundle / "router.json").write_bytes(b"y")
    code, out = doctor(capsys, "--bundle", str(bundle))
    assert code == 1
    assert "missing or altered: router.json; copy it again from where it was trained" in out
    (bundle / "manifest.json").write_text('{"files": []}')
    assert "not a bundle's manifest" in doctor(capsys, "--bundle", str(bundle))[1]


def test_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    needs = [
        "grpcio<2,>=1.76",
        "numpy<2; extra == 'server'",
        "no-such-package>=1; extra == 'train'",
    ]
    monkeypatch.setattr(installation, "requires", lambda _: needs)
    code, out = doctor(capsys)
    assert code == 1
    assert ", but <2 is supported; pip install 'numpy<2'" in out
    assert "extra train: not installed: no-such-package; pip install '.[train]'" in out


@pytest.mark.parametrize(
    ("bounds", "fits"),
    [
        (">=1.76,<2", True),
        ("<1.5", False),
        ("!=1.76", True),
        ("", True),
        (">=99", False),
        ("==0", False),
    ],
)
def test_bounds(bounds: str, fits: bool) -> None:
    assert Requirement("grpcio", bounds, "").fits is fits
