"""No two files of the packages, or of the benchmarks, import each other in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from house.cycles import cycles, import_graph
from house.sources import PACKAGES, ROOT, python_files, tree_of


@pytest.mark.parametrize(
    "folders", [[*PACKAGES.values()], [ROOT / "benchmarks"]], ids=["packages", "benchmarks"]
)
def test_there_are_no_circles(folders: list[Path]) -> None:
    trees, packages = {}, set()
    for folder in folders:
        for path in python_files(folder):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            trees[name] = tree_of(path)
            if is_package:
                packages.add(name)
    found = cycles(import_graph(trees, packages))
    assert not found, "\n".join(" → ".join(circle) for circle in found)


def circles(**files: str) -> list[list[str]]:
    """``a__b`` stands for the module a.b; an argument without `__` is a package."""
    trees = {name.replace("__", "."): ast.parse(text) for name, text in files.items()}
    return cycles(import_graph(trees, {name for name in trees if "." not in name}))


@pytest.mark.parametrize(
    "back",
    [
        "import p.a",
        "from p import a",
        "from p.a import A",
        "from . import a",
        "from .a import A",
        "if TYPE_CHECKING:\n    from p.a import A",
        "def f():\n    from p.a import A",
    ],
)
def test_a_circle_is_found_however_it_is_written(back: str) -> None:
    assert circles(p="", p__a="from p.b import B", p__b=back) == [["p.a", "p.b", "p.a"]]


def test_a_circle_of_three_files_and_a_package_is_found() -> None:
    assert circles(p="from p.a import A", p__a="import p.b", p__b="from p import A") == [
        ["p", "p.a", "p.b", "p"]
    ]


def test_the_shortest_circle_of_a_group_is_named() -> None:
    files = {"p__a": "import p.b", "p__b": "import p.c", "p__c": "import p.a, p.d"}
    assert circles(**files, p__d="import p.c") == [["p.c", "p.d", "p.c"]]


def test_imports_that_only_run_downwards_pass() -> None:
    files = {"p": "from .c import C", "p__a": "import p.b, p.c", "p__b": "from . import c"}
    assert circles(**files, p__c="import os") == []
