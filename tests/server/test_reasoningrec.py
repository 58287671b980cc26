"""ReasoningRec's recipe gives a bundle like any other: served, explained and rolled out."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_proto.v1 import ranking_pb2
from rankloom_training.option_file import OptionError
from rankloom_training.options import DEFAULTS, RecipeName, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import TrainingJob
from server import explanations
from server.rankings import request, scores
from server.rollouts import expert_folder, rolling_out
from server.served_parts import ServedParts
from small_data import with_distinct_experts


def options() -> TrainOptions:
    """As short as they can be."""
    default = DEFAULTS[RecipeName.REASONINGREC]
    short = dataclasses.replace(default.global_recipe, epochs=1)
    return dataclasses.replace(
        default,
        num_groups=2,
        base_epochs=1,
        lm_rows=300,
        shots=16,
        global_recipe=short,
        group_recipe=short,
    )


@pytest.fixture(scope="module")
def reasoningrec_folder(
    small_data: Path, finished_stages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("reasoningrec")
    work = folder / "work"
    shutil.copytree(finished_stages, work)
    TrainingJob.checked(small_data, folder / "bundle", options(), work).run(Progress())
    return folder / "bundle"


@pytest.fixture(scope="module")
def bundle(reasoningrec_folder: Path) -> Bundle:
    return open_bundle(reasoningrec_folder)


def test_the_bundle_says_its_recipe_and_its_calibration(bundle: Bundle) -> None:
    assert bundle.metadata["recipe"] == "reasoningrec"
    validation = bundle.metadata["validation"]
    assert 0.0 < validation["ece_before"] < 0.5
    assert 0.0 < validation["ece_after"] < 0.1


def test_texts_are_needed(small_data: Path, tmp_path: Path) -> None:
    silent = dataclasses.replace(options(), trace_share=0.0)
    with pytest.raises(OptionError, match="trace_share: is 0, but reasoningrec learns from texts"):
        TrainingJob.checked(small_data, tmp_path / "bundle", silent)


async def test_it_is_staged_promoted_explained_and_its_expert_rolled_out(
    served_folder: Path, reasoningrec_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    # So short a training may leave experts as they began; these moved, and are of one size.
    distinct = with_distinct_experts(reasoningrec_folder, tmp_path / "distinct")
    question = explanations.request(parts)
    asked = request(parts, 4, user_id="nobody")  # for whom the global expert answers
    async with rolling_out(served_folder, tmp_path / "state") as server:
        await server.stage(distinct)
        await server.promote(2)
        ranked = await server.rank(asked)
        assert ranked.revision.number == 2
        told = await explanations.explain(server.ranking, question)
        alone = scores(await server.rank(request(parts, 1)))
        item = question.candidate.item_id
        assert told.final.score == pytest.approx(alone[item], abs=1e-5)
        likely = told.final.probability >= 0.5
        verdict = ranking_pb2.VERDICT_LIKED if likely else ranking_pb2.VERDICT_DISLIKED
        assert told.final.verdict == verdict
        files = expert_folder(distinct, "global", tmp_path / "files", 1.5)
        await server.stage_expert("global", files, 2)
        await server.promote(3, 2)
        moved = scores(await server.rank(asked))
        assert moved.keys() == scores(ranked).keys()
        assert moved != scores(ranked)
