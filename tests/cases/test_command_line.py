"""A wrong command line is answered with what was meant, or with the next step."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankloom import InvalidRequestError
from rankloom._cli.main import _whole_parser, main
from rankloom._cli.parser import commands_of
from rankloom.testing import FakeServer

SERVER = ("--server", "127.0.0.1:1")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and the last line on standard error."""
    try:
        code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnak"], "did you mean rank?"),
        (["rank", "--candiates", "f"], "did you mean --candidates?"),
        (["rank", *SERVER, "--user", "u", "--item=a"], "did you mean --items?"),
        (["rollout", "lst"], "did you mean list?"),
        (["rollout", "stage", "b", "--exprt", "e"], "did you mean --expert?"),
        (["serve", "--prot", "1"], "did you mean --port?"),
        (["serve", "feature"], "did you mean features?"),
        (["bundle", "inspct", "e"], "did you mean inspect?"),
        (["train", "--data", "d", "--out", "o", "--cf", "sasrce"], "did you mean sasrec?"),
        (["completion", "bsh"], "did you mean bash?"),
    ],
)
def test_a_misspelt_word(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = said(capsys, *arguments)
    assert (code, line.endswith(meant)) == (2, True), line


@pytest.mark.parametrize("command", ["rank", "rollout", "bundle", "serve", "doctor"])
def test_another_word_names_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = said(capsys, command, "--qqqqqq")
    assert (code, line.partition("; ")[2]) == (2, f"see rankloom {command} --help")


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        ([], {"rank", "serve", "train", "doctor"}),
        (["bundle"], {"sign", "verify", "inspect"}),
        (["rollout"], {"stage", "promote", "list"}),
    ],
    ids=["rankloom", "bundle", "rollout"],
)
def test_commands_are_listed_where_none_is_given(
    arguments: list[str], listed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    first_words = {line.split()[0] for line in capsys.readouterr().err.splitlines() if line}
    assert listed <= first_words


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of all commands below it."""
    yield parser
    commands = commands_of(parser)
    for below in commands.choices.values() if commands else ():
        yield from parsers(below)


def test_every_command_says_what_it_does_and_explains_its_arguments() -> None:
    found = {parser.prog: parser for parser in parsers(_whole_parser())}
    names = {"rank", "serve", "train", "bundle keygen", "rollout canary", "data check"}
    assert {f"rankloom {name}" for name in names} <= set(found)
    assert [prog for prog, parser in found.items() if not parser.description] == []
    unexplained = [
        (prog, action.dest)
        for prog, parser in found.items()
        for action in parser._actions
        if action is not commands_of(parser) and not action.help
    ]
    assert unexplained == []


def test_a_long_usage_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--prot", "1"])
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("command", ["rank", "explain"])
def test_a_server_that_is_down(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    items = ("--items", "a") if command == "rank" else ("--item", "a")
    assert main([command, *SERVER, "--user", "u", *items]) == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert line.endswith("; is `rankloom serve` running, and is --server its address?")


def test_a_rollout_of_a_server_that_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = said(capsys, "rollout", "list", *SERVER)
    assert (code, "is `rankloom serve` running?" in line) == (1, True)


def test_ids_with_a_comma(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = said(capsys, "rank", *SERVER, "--user", "u", "--items", "a,,b")
    assert code == 2
    assert "ids that contain a comma with --candidates FILE" in line


def test_an_item_that_the_catalogue_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        lacks = "needed: the catalogue lacks this item"
        server.on_rank(InvalidRequestError.of_field("candidates[0].text.title", lacks))
        arguments = ("--server", server.target, "--user", "u", "--items", "7")
        assert main(["rank", *arguments]) in (1, 2)
    line = capsys.readouterr().err.splitlines()[0]
    assert line.endswith(
        "--candidates FILE takes ids with a comma, and texts of items that the catalogue lacks"
    )


def without(package: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a package of an extra is not installed."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from rankloom._cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_missing_extra_of_a_clone(tmp_path: Path) -> None:
    done = without("numpy", tmp_path, "bundle", "sign", str(tmp_path), "--key", "k")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rankloom bundle needs: pip install '.[server]'\n"


def test_completion_in_bash(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(completion("bash"))

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in ("rankloom", *words))
        code = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _rankloom; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("ra") == {"rank"}
    assert completed("rollout", "pro") == {"promote"}
    assert completed("bundle", "sign", "--k") == {"--key"}
    assert completed("rank", "--user", "rank", "--ca") == {"--candidates"}
    assert completed("train", "--cf", "") >= {"mf", "sasrec"}
    assert completed("completion", "z") == {"zsh"}
    assert completed("rank", "--candidates", "f") == set()  # the shell completes files


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_in_other_shells_names_every_command(shell: str) -> None:
    script = completion(shell)
    for word in ("rank", "rollout", "promote", "inspect", "candidates"):
        assert word in script


def completion(shell: str) -> str:
    command = [sys.executable, "-m", "rankloom", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_taken_port_and_a_wrong_folder(tmp_path: Path) -> None:
    """Both are said before the model is loaded, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "rankloom", "doctor", "--port", port],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
    assert f"port {port} cannot be used: Address already in use; a server may run" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "rankloom", "serve", "--bundle", str(tmp_path)],
        capture_output=True, text=True, timeout=60, env=dict(os.environ),
    )  # fmt: skip
    assert done.stderr.endswith("give a folder that `rankloom train` wrote\n")
    assert done.stderr.count("\n") == 1
