"""Words that the glossary retired stand nowhere that a user or operator reads."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from house.sources import ROOT, SDK, name_of, package_files, python_files, strings_in, tree_of
from house.words import RETIRED, plain, retired_words
from rankloom._cli.main import main

# Settings, metric names and log fields, each in a file of its own.
SERVER = ROOT / "server" / "rankloom_server"
OPERATORS_FILES = [SERVER / name for name in ("config.py", "metrics.py", "logs.py")]
COMMANDS = ("rank", "explain", "rollout", *entry_points(group="rankloom.commands").names)


def check(texts: Mapping[str, Iterable[str]]) -> None:
    found = retired_words(texts)
    assert not found, "\n".join(found)


def test_the_protos_have_no_retired_word() -> None:
    protos = sorted(ROOT.glob("proto/**/*.proto"))
    assert protos
    check({name_of(path): [path.read_text("utf-8")] for path in protos})


def test_the_documentation_has_no_retired_word() -> None:
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    check({name_of(path): [path.read_text("utf-8")] for path in pages})


@pytest.mark.parametrize("path", OPERATORS_FILES, ids=lambda path: path.name)
def test_settings_metrics_and_logs_have_no_retired_word(path: Path) -> None:
    check({name_of(path): [path.read_text("utf-8")]})


def test_the_sdk_has_no_retired_word() -> None:
    texts = {name_of(path): public_texts(tree_of(path)) for path in python_files(SDK)}
    check(texts)


def test_error_messages_have_no_retired_word() -> None:
    texts = {name_of(path): raised_texts(tree_of(path)) for path in package_files()}
    check(texts)


def test_the_commands_help_has_no_retired_word(monkeypatch: pytest.MonkeyPatch) -> None:
    helps = help_of_commands(monkeypatch)
    assert {"rankloom rank", "rankloom rollout canary", "rankloom train"} <= set(helps)
    check({name: [text] for name, text in helps.items()})


def public_texts(tree: ast.Module) -> Iterator[str]:
    """Docstrings, also those of fields, and the names that do not begin with an underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield from strings_in(node) if isinstance(node.value, ast.Constant) else ()
        name = _name(node)
        if name and not name.startswith("_"):
            yield name


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return None


def raised_texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from strings_in(node.exc)


def help_of_commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Command → its help, for `rankloom`, every command and every action of one."""
    found: dict[str, str] = {}

    def take(parser: argparse.ArgumentParser, *_: object) -> None:
        found.update(_helps(parser))
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setenv("COLUMNS", "1000")  # one sentence, one line
        patched.setattr(argparse.ArgumentParser, "parse_known_args", take)
        for command in ("", *COMMANDS):
            with pytest.raises(SystemExit):
                main([command])
    return found


def _helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Of a parser and those below it, except of commands that are not loaded."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _helps(each)


BAD = {
    "weave": "How the experts were woven for this user.",
    "ladder": "the fallback ladder",
    "rung": "TOP_RUNG = 1",
    "generation": "    generation: int = 0",
    "generations": "the newest two generations stay",
    "epoch": "vector, epoch, events",
    "feature epoch": "the feature model's epoch_digest",
    "seat": "class EngineSeat:",
    "semantics": "--semantics exact_sum",
    "degraded": "rankloom_degraded_total",
    "planted": "planted-3 groups",
    "told as": "what the mixture is told as",
    "gate file": "`gate.json` of the bundle",
    "lifetimes": "RolledOutLifetimes",
    "held prefix": "class HeldPrefix:",
    "pace": "read at a pace of 50 MiB/s",
    "prior": "num_priors: int",
}

GOOD = [
    "two epochs more than the best epoch",
    "--set base_epochs=1 --set global_recipe.epochs=4",
    "routing, mixture, revision and fallback level",
    "text generation by other servers",
    "prior to the first release",
    "a path of workspace/spaces, and a generator",
    "its lifetime, semantic versions",
]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_retired_word_is_found_with_its_replacement(text: str) -> None:
    [message] = retired_words({"a.md": ["good", text]})
    assert message.startswith("a.md: ")
    assert any(f"write {retired.instead!r}" in message for retired in RETIRED)
    assert message.endswith(text.strip())


@pytest.mark.parametrize("text", GOOD)
def test_other_meanings_pass(text: str) -> None:
    assert not retired_words({"a.md": [text]})


def test_every_retired_word_has_a_bad_sample() -> None:
    lines = [plain(text) for text in BAD.values()]
    assert [word.pattern for word in RETIRED if not any(map(word.find, lines))] == []


def test_names_docstrings_and_messages_are_read() -> None:
    source = '''
class Rung:
    """A seat."""
    weaver: int
    """A pace."""
    def _ladder(self, planted): raise ValueError(f"degraded {self} since") from None
    _woven = "semantics"
'''
    tree = ast.parse(source)
    assert set(public_texts(tree)) == {"Rung", "A seat.", "weaver", "A pace.", "self", "planted"}
    assert list(raised_texts(tree)) == ["degraded ", " since"]
