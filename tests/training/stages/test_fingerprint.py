"""A stage's fingerprint covers what it reads, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.group_counts import Clustering
from rankloom_training.options import ItemTextKind, Recipe, RecipeName, TrainOptions
from rankloom_training.reasons.trace import TraceKind
from rankloom_training.stages.fingerprint import (
    SHARED_CODE,
    code_digest,
    data_digest,
    fingerprint_of,
)
from rankloom_training.stages.sequence import STAGES, stages_of
from rankloom_training.stages.stage import Stage
from rankloom_training.visibility import Protocol
from training.logs import random_log, relabelled

OPTIONS = TrainOptions(review_encoder="nowhere")
DIGESTS = {kind.makes.stage: "digest" for kind in STAGES}
# What the packages make of a stage's files or describe it with, but not what is in them.
NOT_CODE = {
    "rankloom_adapters.bundle",
    "rankloom_engine.checks",
    "rankloom_training.data",
    "rankloom_training.options",  # their values are compared
    "rankloom_training.progress",
    "rankloom_training.stages.stage",
}
# The last stage writes all options into the bundle.
OTHERS: list[tuple[dict[str, object], set[str]]] = [
    ({"group_recipe": Recipe(2, 1e-3)}, {"groups"}),
    ({"global_recipe": Recipe(2, 1e-3)}, {"global"}),
    ({"num_groups": 4}, {"router"}),
    ({"num_groups": "auto"}, {"router"}),
    ({"clustering": Clustering.WARD}, {"router"}),
    ({"group_by": "domain"}, {"router"}),
    ({"group_experts": False}, {"groups"}),
    ({"base_epochs": 4}, {"base"}),
    ({"base": "a path"}, {"base"}),
    ({"collaborative": "sasrec"}, {"collaborative"}),
    ({"lm_rows": 7}, {"traces", "base", "global", "groups"}),
    ({"trace_share": 0.1}, {"traces"}),
    ({"trace_kind": TraceKind.RATIONALE}, {"traces"}),
    ({"item_texts": ItemTextKind.KEYWORDS}, {"base"}),
    ({"profiles": True}, {"base"}),
    ({"shots": 64}, {"global", "groups"}),
    ({"recipe": RecipeName.REASONINGREC}, set()),  # it sets the others' defaults
    ({"traces": __file__}, {"traces"}),  # any file: what is in it counts
    ({"protocol": Protocol.P0}, set(DIGESTS) - {"base"}),
    ({"seed": 1}, set(DIGESTS)),
    ({"like_above": 3.0}, set()),  # it is part of what was read
    ({"implicit": NegativeSampling(4)}, set()),
    ({"max_exact_items": 7}, set()),
    ({"review_encoder": "elsewhere"}, set()),  # what is in the folder counts
]


def fingerprints(options: TrainOptions) -> dict[str, object]:
    return {stage.name: fingerprint_of(stage, "data", DIGESTS) for stage in stages_of(options)}


@pytest.mark.parametrize(("changed", "expected"), OTHERS)
def test_an_option_changes_the_stages_that_read_it(
    changed: dict[str, object], expected: set[str]
) -> None:
    before, after = fingerprints(OPTIONS), fingerprints(dataclasses.replace(OPTIONS, **changed))  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == expected | {"calibrate"}


def test_every_option_is_in_that_table() -> None:
    options = {field.name for field in dataclasses.fields(TrainOptions)}
    assert {name for changed, _ in OTHERS for name in changed} == options


def test_the_fingerprint_changes_with_data_and_with_files_of_needed_stages() -> None:
    *_, groups, calibrate = stages_of(OPTIONS)
    before = fingerprint_of(groups, "data", DIGESTS)
    assert fingerprint_of(groups, "other", DIGESTS) != before
    assert fingerprint_of(groups, "data", DIGESTS | {"global": "other"}) != before
    assert fingerprint_of(groups, "data", DIGESTS | {"calibrate": "other"}) == before
    assert fingerprint_of(calibrate, "data", DIGESTS | {"groups": "other"}) != fingerprint_of(
        calibrate, "data", DIGESTS
    )


def test_an_encoder_counts_by_what_is_in_its_folder(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, review_encoder=str(tmp_path))
    before = fingerprints(options)
    for name in ("encoder.onnx", "rationales.parquet"):
        (tmp_path / name).write_bytes(b"other")
        after = fingerprints(options)
        assert {each for each in before if before[each] != after[each]} == {"reviews"}
        before = after


def test_stages_follow_reviews_only_where_they_are_read() -> None:
    plain = {stage.name: stage for stage in stages_of(TrainOptions())}
    assert "reviews" not in plain
    digests = dict.fromkeys(plain, "digest")
    for stage in stages_of(OPTIONS):
        needs = fingerprint_of(stage, "data", DIGESTS).needs
        follows = stage.name in {"trees", "traces", "calibrate"}
        assert ("reviews" in needs) == follows
        if stage.name in plain:
            assert "reviews" not in fingerprint_of(plain[stage.name], "data", digests).needs


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("rankloom_training.stages.calibrate", {"calibrate"}),
        ("rankloom_training.calibrate", {"calibrate"}),
        ("rankloom_training.experts", {"global", "groups"}),
        ("rankloom_training.stages.group_experts", {"groups"}),
        ("rankloom_training.trees", {"trees"}),
        ("rankloom_ranker.phrasing", {"traces"}),
        ("rankloom_features.fit", {"collaborative"}),
        ("rankloom_training.visibility", set(DIGESTS)),
    ],
)
def test_code_belongs_to_the_stages_that_it_decides(module: str, expected: set[str]) -> None:
    found = {
        stage.name
        for stage in stages_of(OPTIONS)
        if module in fingerprint_of(stage, "data", DIGESTS).code
    }
    assert found == expected


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_names_as_its_code_what_its_module_imports(kind: type[Stage]) -> None:
    named = {*SHARED_CODE, *kind.code, *NOT_CODE}
    found = set(imported(Path(str(sys.modules[kind.__module__].__file__))))
    assert {module for module in found if not named & {module, *parents(module)}} == set()


def parents(module: str) -> Iterator[str]:
    """Packages that the module is in, but not the distribution's own top."""
    for count in range(1, module.count(".")):
        yield module.rsplit(".", count)[0]
    yield module.partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """Modules of this product that a file imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rankloom_"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (names & set(sys.modules)) or {str(node.module)}


def test_the_digest_of_code_is_that_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_code"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("a = 1")
    (package / "other.py").write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)
    names = ("some_code", "some_code.one", "some_code.other")
    before = {name: code_digest(name) for name in names}
    (package / "one.py").write_text("a = 2")
    code_digest.cache_clear()
    assert {name for name in names if code_digest(name) != before[name]} == {*names[:2]}
    package_before = code_digest("some_code")
    (package / "sentences.txt").write_text("It is.")
    code_digest.cache_clear()
    assert code_digest("some_code") not in (before["some_code"], package_before)
    with pytest.raises(ModuleNotFoundError, match="no such module"):
        code_digest("some_code.third")


def test_the_digest_of_data_is_that_of_what_was_read() -> None:
    data = random_log(0)
    assert data_digest(data) == data_digest(random_log(0))
    flipped = relabelled(data.log, data.log.user == 0)
    users = dataclasses.replace(data.log, user_ids=tuple(f"x{name}" for name in data.log.user_ids))
    others = [
        dataclasses.replace(data, log=flipped),
        dataclasses.replace(data, log=users),
        dataclasses.replace(data, catalogue=random_log(0, num_items=16).catalogue),
    ]
    assert len({data_digest(other) for other in (data, *others)}) == 4


def test_each_stage_stands_in_the_sequence_once() -> None:
    assert len(DIGESTS) == len(STAGES)
