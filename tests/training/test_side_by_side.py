"""Small models that work side by side find what one would, and end together."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.tiny import tiny_decoder
from rankloom_adapters.bundle import open_bundle
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_training import scoring, side_by_side
from rankloom_training.data import Split, load_dataset
from rankloom_training.metrics import Estimate
from rankloom_training.scoring import BundleScorer, requests_of
from rankloom_training.side_by_side import OnStep, SideBySide, StoppedError, copies
from rankloom_training.stages import group_experts
from rankloom_training.visibility import Protocol, scoring_view
from small_data import train_small

WAIT_S = 30.0
Job = Callable[[str, OnStep], str]


@contextmanager
def threads(num: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_as_many_jobs_run_at_a_time_as_there_are_models() -> None:
    both = threading.Barrier(2)

    def job(name: str, model: str, on_step: OnStep) -> tuple[str, str, int]:
        both.wait(WAIT_S)
        on_step(1, 1)
        return name, model, torch.get_num_threads()

    with threads(4):
        found = SideBySide(["one", "two"], lambda *_: None).run(
            [partial(job, name) for name in "abcd"], [1] * 4
        )
        assert torch.get_num_threads() == 4
    assert [name for name, *_ in found] == list("abcd")
    assert {model for _, model, _ in found} == {"one", "two"}
    assert {cores for *_, cores in found} == {1}


def test_steps_of_all_jobs_count_together() -> None:
    shown = list[tuple[int, int]]()

    def job(model: str, on_step: OnStep) -> None:
        for step in range(1, 5):
            on_step(step, 4)

    work = SideBySide(["one"], lambda done, total: shown.append((done, total)))
    work.run([job, job], [100, 20])
    assert [done for done, _ in shown] == [25, 50, 75, 100, 105, 110, 115, 120]
    assert {total for _, total in shown} == {120}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_job_that_fails_ends_the_others(error: BaseException) -> None:
    started, ended = threading.Event(), list[str]()

    def fails(model: str, on_step: OnStep) -> None:
        assert started.wait(WAIT_S)
        raise error

    def goes_on(model: str, on_step: OnStep) -> None:
        started.set()
        try:
            while True:
                on_step(0, 1)
        except StoppedError:
            ended.append(model)
            raise

    work = SideBySide(["one", "two"], lambda *_: None)
    with pytest.raises(type(error)):
        work.run([goes_on, fails, goes_on], [1, 1, 1])
    assert len(ended) >= 1
    assert torch.get_num_threads() == 1


def test_a_large_decoder_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = tiny_decoder()
    with threads(3):
        found = copies(decoder, 2)
        assert found[0] is decoder
        assert found[1].model is not decoder.model
        assert len(found) == 2
        assert len(copies(decoder, 8)) == 3
        monkeypatch.setattr(side_by_side, "SMALL", 1000)
        assert copies(decoder, 8) == [decoder]
    assert copies(decoder, 8) == [decoder]


def test_scores_are_the_same_on_any_number_of_cores(
    served_folder: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PART", 16)
    dataset = load_dataset(small_data)
    requests = requests_of(dataset, scoring_view(dataset.log, Protocol.P1, Split.TEST))[:50]
    random, found = np.random.default_rng(0), list[np.ndarray[tuple[int], np.dtype[np.float32]]]()
    values = random.dirichlet(np.ones(3), len(requests)).astype(np.float32)
    mixtures = {"": [MixtureWeights(own) for own in values]}
    for num in (1, 3):
        scorer = BundleScorer(open_bundle(served_folder))
        prepared = [scorer.prepare(one.query(), one.rows) for one in requests]
        with threads(num):
            found += [scorer.margins(prepared, mixtures, lambda *_: None)[""] for _ in range(2)]
    assert all(np.array_equal(each, found[0]) for each in found)
    assert len(np.unique(found[0])) > 10


@pytest.mark.usefixtures("bundle_folder")
def test_experts_are_the_same_on_any_number_of_cores(
    small_data: Path, finished_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_experts, "gain_of", lambda *_: Estimate(0.1, 0.1, 0.1))  # all stay
    found = list[list[bytes]]()
    for num in (1, 2):
        work = shutil.copytree(finished_stages, tmp_path / f"stages-{num}")
        shutil.rmtree(work / "groups")
        out = tmp_path / f"bundle-{num}"
        with threads(num):
            train_small(small_data, out, work)
        found.append([each.read_bytes() for each in sorted(out.glob("experts/*/*.safetensors"))])
    assert found[0] == found[1]
    assert len(set(found[0])) > 1  # some group has learnt
