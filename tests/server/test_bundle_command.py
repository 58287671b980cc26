"""`rankloom bundle`: keys are made, bundles signed, and what was altered is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adapters.old_bundle import write_old
from rankloom._cli.main import main
from rankloom_adapters.bundle import FORMER_EVENTS, MANIFEST, SIGNATURE, open_bundle, seal

WEIGHTS = "experts/one/adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(bytes(range(256)))
    (folder / "router.json").write_bytes(b"{}")
    seal(folder, {})
    return folder


def command(*arguments: object) -> int:
    return main(["bundle", *map(str, arguments)])


def keygen(folder: Path, name: str = "one") -> tuple[Path, Path]:
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    assert command("keygen", "--private", private, "--public", public) == 0
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return keygen(tmp_path)


@pytest.fixture
def signed(folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> Path:
    assert command("sign", folder, "--key", keys[0]) == 0
    capsys.readouterr()
    return folder


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said last, in the one line that a refusal has."""
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("rankloom bundle: ")
    return line.removeprefix("rankloom bundle: ")


def test_a_bundle_is_signed_and_verified_by_processes(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rankloom", "bundle", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    made = run("keygen", "--private", "k.key", "--public", "k.pub")
    key, digest = made.split()[-1], open_bundle(folder).digest
    assert made == f"k.pub: key {key}\n"
    said = f"bundle: bundle {digest[:12]}, signed by key {key}"
    assert run("sign", "bundle", "--key", "k.key") == f"{said}\n"
    assert run("verify", "bundle", "--key", "k.pub") == f"{said}, whole\n"


def test_one_of_several_keys_is_enough(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, other = keygen(tmp_path, "two")
    capsys.readouterr()
    assert command("verify", signed, "--key", other, "--key", keys[1]) == 0
    assert "signed by key" in capsys.readouterr().out
    assert command("verify", signed, "--key", other) == 1
    assert "which is not trusted here" in refusal(capsys)


def test_an_altered_byte_of_the_weights_is_found(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((signed / WEIGHTS).read_bytes())
    data[100] ^= 1
    (signed / WEIGHTS).write_bytes(data)
    assert command("verify", signed, "--key", keys[1]) == 1
    assert refusal(capsys) == (
        f"{signed}: bundle: {WEIGHTS}: altered: its SHA-256 is not the manifest's"
    )
    assert command("sign", signed, "--key", keys[0]) == 1
    assert "altered" in refusal(capsys)


def test_an_altered_byte_of_the_manifest_is_found(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = (signed / MANIFEST).read_bytes()
    (signed / MANIFEST).write_bytes(data.replace(b'"metadata": {}', b'"metadata":  {}'))
    assert command("verify", signed, "--key", keys[1]) == 1
    assert "signature of this manifest" in refusal(capsys)


def test_an_unsigned_bundle_is_refused(
    folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("verify", folder, "--key", keys[1]) == 1
    assert refusal(capsys).endswith("manifest.sig: missing: the bundle is not signed")


def test_keygen_overwrites_nothing(
    keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = keys[0].read_bytes()
    capsys.readouterr()
    assert command("keygen", "--private", keys[0], "--public", tmp_path / "new") == 2
    assert refusal(capsys) == f"{keys[0]}: cannot be created: File exists"
    assert command("keygen", "--private", tmp_path / "new", "--public", keys[1]) == 2
    assert refusal(capsys) == f"{keys[1]}: cannot be created: File exists"
    assert keys[0].read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("action", ["sign", "verify"])
def test_a_file_that_is_no_such_key_is_named(
    signed: Path, keys: tuple[Path, Path], action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = keys
    swapped = public if action == "sign" else private
    other = signed.parent / "rsa.pem"
    key = rsa.generate_private_key(65537, 2048).public_key()
    other.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for path, reason in (
        (swapped, "not an Ed25519"),
        (other, "not an Ed25519"),
        (signed.parent / "missing", "cannot be read: No such file"),
        (signed, "cannot be read: Is a directory"),
    ):
        assert command(action, signed, "--key", path) == 2
        assert refusal(capsys).startswith(f"{path}: {reason}")


@pytest.mark.parametrize("action", ["sign", "verify"])
def test_a_folder_that_is_no_bundle_is_refused(
    tmp_path: Path, keys: tuple[Path, Path], action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    key = keys[0] if action == "sign" else keys[1]
    assert command(action, tmp_path, "--key", key) == 1
    assert "manifest.json: cannot be read" in refusal(capsys)
    assert command(action, tmp_path / "missing", "--key", key) == 2
    assert refusal(capsys) == f"{tmp_path / 'missing'}: no such folder"


def test_a_signature_that_cannot_be_written_is_one_line(
    folder: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr(os, "fsync", fail)
    assert command("sign", folder, "--key", keys[0]) == 1
    assert refusal(capsys) == f"{folder}: No space left on device"
    assert not (folder / SIGNATURE).exists()


def test_an_older_bundle_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = write_old(tmp_path / "old"), tmp_path / "new"
    assert command("convert", old, new) == 0
    digest = open_bundle(new).digest
    assert capsys.readouterr().out == f"{new}: bundle {digest[:12]}, converted from {old}\n"
    assert command("convert", old, new) == 2
    assert refusal(capsys) == f"{new}: exists already; choose a folder that is new"
    assert command("convert", new, tmp_path / "other") == 1
    assert refusal(capsys) == (
        f"{new}: bundle: manifest.json: format 3 already; it needs no conversion"
    )
    assert command("convert", tmp_path / "missing", tmp_path / "other") == 2
    assert refusal(capsys) == f"{tmp_path / 'missing'}: no such folder"


def test_a_conversion_says_that_it_leaves_events_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_old(tmp_path / "old", more={FORMER_EVENTS: b""})
    assert command("convert", old, tmp_path / "new") == 0
    assert capsys.readouterr().out.endswith(
        f"converted from {old}, without its events: import them with `rankloom events import`\n"
    )


def test_a_signature_is_not_dropped_in_silence(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write_old(tmp_path / "old"), tmp_path / "new"
    (old / SIGNATURE).write_bytes(b"{}")
    capsys.readouterr()
    assert command("convert", old, new) == 1
    assert "repeat with --drop-signature, then sign the new bundle" in refusal(capsys)
    assert command("convert", old, new, "--drop-signature") == 0
    assert capsys.readouterr().out.endswith(f"converted from {old}; sign it again\n")
    assert command("sign", new, "--key", keys[0]) == 0
    assert command("verify", new, "--key", keys[1]) == 0


def test_an_older_bundle_is_refused_with_what_to_do(
    tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old = write_old(tmp_path / "old")
    capsys.readouterr()
    assert command("sign", old, "--key", keys[0]) == 1
    assert refusal(capsys) == (
        f"{old}: bundle: manifest.json: format 2, this version reads format 3; "
        "train it again, or convert it with: rankloom bundle convert OLD NEW"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["convert", "b"],
        ["keygen", "--private", "a"],
        ["sign", "b"],
        ["verify", "b", "--ke", "k"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: rankloom bundle")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, json, sys\n"
        "from rankloom._cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['bundle', 'sign', '--help'])\n"
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--key" in done.stdout
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "numpy", "cryptography", "pydantic"}
