"""Micro-batches: the token budget, the order of deadlines, and what has expired."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from rankloom_engine.scheduler import Job, Scheduler

jobs = st.lists(
    st.tuples(st.integers(1, 120), st.one_of(st.just(inf), st.floats(0, 10))), max_size=30
)


def filled(sizes: list[tuple[int, float]], budget: int = 100) -> tuple[Scheduler, list[Job]]:
    made = [Job(key, tokens, deadline) for key, (tokens, deadline) in enumerate(sizes)]
    scheduler = Scheduler(budget)
    for job in made:
        scheduler.add(job)
    return scheduler, made


@given(jobs)
def test_every_job_ends_in_one_batch_or_expires(sizes: list[tuple[int, float]]) -> None:
    scheduler, made = filled(sizes)
    seen: list[Job] = []
    while len(scheduler):
        batch = scheduler.take(now=5.0)
        assert batch.jobs or batch.expired
        assert all(job.deadline > 5.0 for job in batch.jobs)
        assert all(job.deadline <= 5.0 for job in batch.expired)
        if len(batch.jobs) > 1:
            assert len(batch.jobs) * max(job.num_tokens for job in batch.jobs) <= 100
        seen += [*batch.jobs, *batch.expired]
    assert sorted(job.key for job in seen) == [job.key for job in made]


@given(jobs)
def test_earlier_deadlines_go_first(sizes: list[tuple[int, float]]) -> None:
    scheduler, _ = filled(sizes)
    order: list[Job] = []
    while len(scheduler):
        order += scheduler.take(now=-1.0).jobs
    assert [job.deadline for job in order] == sorted(job.deadline for job in order)
    assert order == sorted(order, key=lambda job: (job.deadline, job.key))


def test_a_job_over_the_budget_runs_alone() -> None:
    scheduler, made = filled([(500, 1.0), (10, 2.0)])
    assert scheduler.take(0.0).jobs == (made[0],)
    assert scheduler.take(0.0).jobs == (made[1],)


def test_a_removed_job_is_not_taken() -> None:
    scheduler, _ = filled([(10, inf)])
    scheduler.remove(0)
    scheduler.remove(0)
    assert scheduler.take(0.0).jobs == ()
