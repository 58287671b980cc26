"""A bundle's part names are read in one place: the ranker's loaded bundle."""

from __future__ import annotations

import ast
from pathlib import Path

from house.sources import ROOT

READER = "ranker/rankloom_ranker/loaded.py"
# They define the names, write bundles, or convert and derive them part by part.
WRITERS = {
    "adapters/rankloom_adapters/bundle.py",
    "adapters/rankloom_adapters/convert.py",
    "adapters/rankloom_adapters/derive.py",
    "training/rankloom_training/added_group.py",
    "training/rankloom_training/added_items.py",
    "training/rankloom_training/assemble.py",
    "training/rankloom_training/base.py",
    "training/rankloom_training/reccot/attach.py",
    "training/rankloom_training/reccot/tower_parts.py",
    "training/rankloom_training/refresh/experts.py",
    "training/rankloom_training/refresh/refreshed.py",
    "training/rankloom_training/stages/artefacts.py",
    "training/rankloom_training/stages/calibrate.py",
}
FOLDERS = ("adapters", "client_sdk", "engine", "feature_service", "ranker", "server", "training")


def part_names() -> set[str]:
    """The names of the constants: upper-case strings that contain a dot."""
    tree = ast.parse((ROOT / "adapters/rankloom_adapters/bundle.py").read_text())
    return {
        node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and not node.value.value.startswith((".", "manifest"))
    }


def users_of(names: set[str]) -> set[str]:
    found = set()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            aliases = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "rankloom_adapters.bundle"
                for alias in node.names
            }
            attributes = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("parts", "bundle")
            }
            if (aliases | attributes) & (names | {"expert_part"}):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_one_file_reads_part_names() -> None:
    names = part_names()
    assert {"ROUTER", "CATALOGUE", "TREES"} <= names
    assert users_of(names) - WRITERS == {READER}
    assert Path(ROOT / READER).is_file()
