"""The repository's files, as the rules read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Folder → the package that lives in it.
PACKAGES = {
    folder.parent.name: folder
    for folder in sorted(ROOT.glob("*/rankloom*"))
    if (folder / "__init__.py").is_file()
}
SDK = PACKAGES["client_sdk"]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def python_files(folder: Path) -> list[Path]:
    """Without generated stubs, and without hidden folders such as a virtual environment."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if "_pb2" not in path.name
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def package_files() -> list[Path]:
    return [path for folder in PACKAGES.values() for path in python_files(folder)]


def name_of(path: Path) -> str:
    """The file relative to the repository, as a failure message shows it."""
    return path.relative_to(ROOT).as_posix()


def strings_in(node: ast.AST) -> Iterator[str]:
    """Every string literal below a node, the fixed parts of f-strings included."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value
