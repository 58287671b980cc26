"""The modules of every package beside the tables of docs/structure.md.

Run as a program, it brings the page up to date: lines of modules that are gone leave, a module
that moved keeps its text, and a new one gets the first sentence of its docstring, to be reworded.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "structure.md"
HEADING = re.compile(r"^### `(?P<folder>[\w/]+)`$")
ROW = re.compile(r"^\| `(?P<module>[\w/.]+)` \| (?P<text>.*) \|$")
TABLE_HEAD = ["| module | |", "|---|---|"]

Tables = dict[str, list[tuple[str, str]]]


def packages() -> dict[str, Path]:
    """Folder of each package, by the name that the page gives it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return {folder: ROOT / folder for folder in folders}


def modules_of(package: Path) -> list[str]:
    """Modules by path within the package, without ``.py``; a folder's own code is ``folder/``.

    Generated stubs are left out, as are ``__init__`` files without code of their own.
    The files of the wire contract count as modules.
    """
    found = [
        _name(path, package)
        for path in package.rglob("*.py")
        if "_pb2" not in path.name and (path.stem != "__init__" or _has_code(path))
    ]
    found += [path.relative_to(package).as_posix() for path in package.rglob("*.proto")]
    return sorted(found)


def _name(path: Path, package: Path) -> str:
    name = path.relative_to(package).with_suffix("").as_posix()
    return name.removesuffix("__init__") or "__init__"


def _has_code(path: Path) -> bool:
    """Whether a file holds more than a docstring, imports and ``__all__``."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AnnAssign)) for node in body)


def tables_of(page: str) -> Tables:
    """Rows of each package's table, in the order of the page."""
    tables: Tables = {}
    rows: list[tuple[str, str]] | None = None
    for line in page.splitlines():
        if heading := HEADING.match(line):
            rows = tables.setdefault(heading["folder"], [])
        elif line.startswith("#"):
            rows = None
        elif rows is not None and (row := ROW.match(line)):
            rows.append((row["module"], row["text"]))
    return tables


def sentence_of(package: Path, module: str) -> str:
    """First sentence of a module's docstring; empty for a file of the wire contract."""
    path = package / module if module.endswith(".proto") else package / f"{module}.py"
    path = package / module / "__init__.py" if module.endswith("/") else path
    if path.suffix != ".py":
        return ""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(text.split()).split(". ")[0].removesuffix(".").replace("|", "\\|")


def updated(page: str) -> tuple[str, list[str]]:
    """The page with one row for each module, and the modules whose row is to be reworded."""
    texts, fresh = tables_of(page), list[str]()
    lines: list[str] = []
    table: Path | None = None
    for line in page.splitlines():
        if line.startswith("#"):
            heading = HEADING.match(line)
            table = packages().get(heading["folder"]) if heading else None
        if table is not None and (ROW.match(line) or line in TABLE_HEAD):
            if line == TABLE_HEAD[0]:
                rows = list(_rows(table, texts, fresh))
                lines += [*TABLE_HEAD, *(f"| `{name}` | {text} |" for name, text in rows)]
            continue
        lines.append(line)
    return "\n".join(lines) + "\n", fresh


def _rows(package: Path, texts: Tables, fresh: list[str]) -> Iterator[tuple[str, str]]:
    """Rows of one package: a module that moved within it, or got private, keeps its text."""
    known, modules = dict(texts.get(package.relative_to(ROOT).as_posix(), [])), modules_of(package)
    moved = {_stem(name): text for name, text in known.items() if name not in modules}
    for module in modules:
        text = known.get(module) or moved.pop(_stem(module), "")
        if not text:
            fresh.append(f"{package.name}/{module}")
            text = sentence_of(package, module)
        yield module, text


def _stem(module: str) -> str:
    return module.rstrip("/").rpartition("/")[2].lstrip("_")


if __name__ == "__main__":
    page, reword = updated(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page, encoding="utf-8")
    print("\n".join(["To be reworded:", *reword]) if reword else "Nothing new.")
