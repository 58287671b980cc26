"""docs/structure.md has one line for every module of every package, and none without one."""

from __future__ import annotations

import pytest

from docs.structure import PAGE, modules_of, packages, tables_of

PAGE_TEXT = PAGE.read_text(encoding="utf-8")
TABLES = tables_of(PAGE_TEXT)
HINT = "run `python tests/docs/structure.py` and reword the new lines"


def test_each_package_has_its_table() -> None:
    assert set(TABLES) == set(packages())


@pytest.mark.parametrize("folder", packages())
def test_each_module_has_one_line(folder: str) -> None:
    named = [module for module, _ in TABLES[folder]]
    assert len(named) == len(set(named))
    assert set(named) == set(modules_of(packages()[folder])), HINT


@pytest.mark.parametrize("folder", packages())
def test_each_line_says_something_short(folder: str) -> None:
    for module, text in TABLES[folder]:
        assert 10 <= len(text) <= 160, f"{folder}: {module}"
        assert not text.endswith("."), f"{folder}: {module}"
