"""What the layout promises: no stray names, a light SDK, imports that only run downwards."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import rankloom

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Package → what of ours it may import. No arrow runs up, and there is no circle.
ALLOWED_IMPORTS = {
    "rankloom_proto": set(),
    "rankloom": {"rankloom_proto"},
    "rankloom_adapters": set(),
    "rankloom_features": {"rankloom_proto"},
    "rankloom_engine": {"rankloom_adapters"},
    "rankloom_ranker": {"rankloom_adapters", "rankloom_features", "rankloom_engine"},
    "rankloom_server": {
        "rankloom_proto",
        "rankloom_adapters",
        "rankloom_features",
        "rankloom_engine",
        "rankloom_ranker",
    },
    # Evaluation calls the server as any client does.
    "rankloom_training": {
        "rankloom_adapters",
        "rankloom_features",
        "rankloom_engine",
        "rankloom_ranker",
        "rankloom",
    },
}

WITHOUT_GRPC = ("rankloom_adapters", "rankloom_engine", "rankloom_ranker")

# Policy that can be read, and tested, alone: neither tensors nor RPCs.
POLICY_MODULES = (
    "rankloom_adapters/router.py",
    "rankloom_adapters/revision.py",
    "rankloom_adapters/split.py",
    *(
        f"rankloom_adapters/rollout/{module}.py"
        for module in (
            *("states", "manager", "registry", "trial", "judge", "gates", "traffic"),
            *("current_trial", "loaded", "recovery", "staging", "writer"),
            *("evidence", "agreement", "statistics", "table", "thresholds"),
        )
    ),
    "rankloom_engine/buckets.py",
    "rankloom_engine/scheduler.py",
    "rankloom_engine/slots.py",
    "rankloom_server/admission.py",
    "rankloom_ranker/fallback.py",
)

HEAVY = {"torch", "numpy", "pydantic", "transformers", "onnxruntime", "structlog"}

PACKAGES = {
    Path(path).name: ROOT / path
    for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
}
FOLDERS = sorted({folder.parent.name for folder in PACKAGES.values()})


def run_isolated(code: str, folder: Path) -> str:
    """Run code where neither the repository nor the tests are on the path; return its output."""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports by its full name, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def imported_roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def files_of(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def test_the_tables_name_every_package() -> None:
    assert set(ALLOWED_IMPORTS) == set(PACKAGES)


@pytest.mark.parametrize("name", FOLDERS)
def test_no_bare_folder_is_importable(name: str, tmp_path: Path) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert run_isolated(code, tmp_path) == "None\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_importable_and_typed(package: str, tmp_path: Path) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({package!r}).origin)"
    origin = Path(run_isolated(code, tmp_path).strip())
    assert origin.name == "__init__.py"
    assert (origin.parent / "py.typed").is_file()


def test_a_withdrawn_grpcio_is_not_installed() -> None:
    """1.78.1 made clients hang that were made before a fork."""
    (grpcio,) = (
        each
        for each in map(Requirement, PYPROJECT["project"]["dependencies"])
        if each.name == "grpcio"
    )
    allowed = list(grpcio.specifier.filter(["1.75.0", "1.76.0", "1.78.0", "1.78.1", "1.80.0"]))
    assert allowed == ["1.76.0", "1.78.0", "1.80.0"]


def test_the_sdk_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = set(run_isolated("import rankloom, sys; print(*sys.modules)", tmp_path).split())
    assert not loaded & HEAVY
    ours = {name.partition(".")[0] for name in loaded if name.startswith("rankloom")}
    assert ours == {"rankloom", "rankloom_proto"}


def test_the_sdk_loads_fast(tmp_path: Path) -> None:
    code = (
        "import time; started = time.perf_counter(); import rankloom; "
        "print(time.perf_counter() - started)"
    )
    # The best of five: the others may have waited for a busy machine.
    assert min(float(run_isolated(code, tmp_path)) for _ in range(5)) < 0.3


def test_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import contextlib, io, sys\n"
        "from rankloom._cli.main import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])\n"
        "print(*sys.modules)"
    )
    loaded = {name.partition(".")[0] for name in run_isolated(code, tmp_path).split()}
    assert not loaded & (HEAVY | set(PACKAGES) - {"rankloom", "rankloom_proto"})


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_downwards(package: str) -> None:
    allowed = ALLOWED_IMPORTS[package] | {package}
    wrong = {
        str(path.relative_to(ROOT)): sorted((imported_roots(path) & set(PACKAGES)) - allowed)
        for path in files_of(package)
    }
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", WITHOUT_GRPC)
def test_package_knows_no_grpc(package: str) -> None:
    banned = {"grpc", "grpc_health", "grpc_reflection", "grpc_status"}
    assert [path.name for path in files_of(package) if imported_roots(path) & banned] == []


@pytest.mark.parametrize("module", POLICY_MODULES)
def test_policy_knows_neither_torch_nor_grpc(module: str) -> None:
    package, _, rest = module.partition("/")
    path = PACKAGES[package] / rest
    assert path.is_file(), f"{module} is gone: bring POLICY_MODULES up to date"
    assert not imported_roots(path) & {"torch", "grpc"}


def test_the_version_is_said_once() -> None:
    assert rankloom.__version__ == PYPROJECT["project"]["version"]


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changelog, flags=re.MULTILINE)
    assert versions[:1] == [PYPROJECT["project"]["version"]]
