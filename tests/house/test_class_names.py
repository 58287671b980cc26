"""A class name stands once in the repository, so that a reader can search for it."""

from __future__ import annotations

import ast

import rankloom
from house.class_names import repeated_classes
from house.sources import ROOT, SDK, name_of, python_files, tree_of


def repeated(files: dict[str, str], mirrors: tuple[str, ...] = ()) -> dict[str, list[str]]:
    trees = {name: ast.parse(text) for name, text in files.items()}
    return repeated_classes(trees, mirrors, "sdk/")


def test_class_names_are_unique() -> None:
    files = {name_of(path): tree_of(path) for path in python_files(ROOT)}
    found = repeated_classes(files, rankloom.__all__, f"{name_of(SDK)}/")
    assert not found, "\n".join(f"{name}: {', '.join(where)}" for name, where in found.items())


def test_a_second_class_of_a_name_is_found() -> None:
    files = {"a.py": "class Call: ...", "b.py": "def f():\n    class Call: ...", "c.py": "Call = 1"}
    assert repeated(files) == {"Call": ["a.py", "b.py"]}


def test_public_values_of_the_sdk_may_mirror_one_class() -> None:
    files = {"sdk/a.py": "class Item: ...\nclass Call: ...", "b.py": "class Item: ..."}
    assert repeated(files, ("Item",)) == {}
    assert repeated({**files, "c.py": "class Item: ..."}, ("Item",)) == {"Item": ["b.py", "c.py"]}
    assert repeated({**files, "c.py": "class Call: ..."}, ("Item",)) == {
        "Call": ["sdk/a.py", "c.py"]
    }
