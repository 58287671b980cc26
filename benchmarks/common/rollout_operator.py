"""An operator that rolls out experts, each one different, and times its commands."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from benchmarks.common.rank_calls import TIMEOUT_S, BenchmarkCall
from rankloom_adapters.bundle import expert_part, open_bundle
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc, rollout_pb2, rollout_pb2_grpc

T = TypeVar("T")
REASON = "a swap by the benchmark"
AT_ONCE = 2  # calls of a fingerprint in flight: they must not become a load of their own
MIN_WEIGHT = 0.05  # of an expert in each call whose scores it must change
# Factors of the expert's delta: within the norms that the server accepts, and far from 1.
LEAST_SCALE, SCALES = 1.5, 1.5
GOLDEN = (math.sqrt(5) - 1) / 2


class OperatorError(Exception):
    """The server refused a command or did not carry it out."""


def scale_of(turn: int) -> float:
    """The factor of an expert's delta: never the same, and far from the recent ones."""
    return LEAST_SCALE + SCALES * (turn * GOLDEN % 1.0)


class ExpertWriter:
    """Writes a bundle's experts in turn, each time scaled by another factor."""

    def __init__(self, bundle: Path, names: Sequence[str], folder: Path) -> None:
        self._bundle, self._names, self._folder = open_bundle(bundle), names, folder
        folder.mkdir()

    def write(self, number: int) -> tuple[str, Path]:
        """Writes the expert of a swap over the last one; returns its name and folder."""
        turn, index = divmod(number, len(self._names))
        name = self._names[index]
        config = self._bundle.read(expert_part(name, CONFIG_FILE))
        tensors = safetensors.numpy.load(self._bundle.read(expert_part(name, WEIGHTS_FILE)))
        scale = np.float32(scale_of(turn))
        for key in tensors:
            if ".lora_B." in key:
                tensors[key] = np.asarray(tensors[key] * scale)
        (self._folder / CONFIG_FILE).write_bytes(config)
        (self._folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors))
        return name, self._folder


def with_common_experts(
    weights: Sequence[Mapping[str, float]], num: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Indexes of ``num`` users with experts in common, and these experts, two if possible.

    ``weights``: each user's weights by expert. Raises OperatorError if too few users share one.
    """
    had = [{name for name, weight in row.items() if weight >= MIN_WEIGHT} for row in weights]
    names = sorted(set().union(*had))
    for group in (*itertools.combinations(names, 2), *itertools.combinations(names, 1)):
        users = [user for user, own in enumerate(had) if own.issuperset(group)][:num]
        if len(users) == num:
            return tuple(users), tuple(n for n in names if all(n in had[user] for user in users))
    raise OperatorError(
        f"fewer than {num} users share an expert in this bundle: use one with fewer experts"
    )


@dataclass(slots=True)
class RolloutOperator:
    """Calls to both ports of a server, and the seconds that each verb took."""

    rollouts: rollout_pb2_grpc.RolloutServiceStub
    ranking: ranking_pb2_grpc.RankingServiceStub
    calls: Sequence[BenchmarkCall]
    name: str = "swap"  # prefix of its idempotency keys
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    _num_keys: int = 0

    def active(self) -> int:
        return self.revisions().active

    def revisions(self) -> rollout_pb2.Revisions:
        """All revisions. Raises OperatorError."""
        with _errors_of("list"):
            return self.rollouts.List(rollout_pb2.ListRequest(), timeout=TIMEOUT_S).revisions

    def stage(self, name: str, folder: Path, expected: int) -> int:
        """The new revision. Raises OperatorError if it was not warmed."""
        source = rollout_pb2.ExpertSource(name=name, url=str(folder))
        request = rollout_pb2.StageRequest(
            expert=source, expected_revision=expected, idempotency_key=self._key()
        )
        staged = self._timed("stage", lambda: self.rollouts.Stage(request, timeout=TIMEOUT_S))
        if staged.rollout.state != rollout_pb2.ROLLOUT_STATE_WARMED:
            raise OperatorError(f"{name}: {staged.rollout.reason}")
        return staged.rollout.revision

    def promote(self, revision: int, expected: int) -> None:
        """Makes a revision active without asking the gates."""
        request = rollout_pb2.PromoteRequest(
            revision=revision,
            expected_revision=expected,
            idempotency_key=self._key(),
            without_gates=True,
            reason=REASON,
        )
        self._timed("promote", lambda: self.rollouts.Promote(request, timeout=TIMEOUT_S))

    def shadow(self, revision: int, expected: int) -> None:
        """Lets a revision answer calls that name it, and rank few of the others a second time."""
        request = rollout_pb2.StartShadowRequest(
            revision=revision, percent=1, expected_revision=expected, idempotency_key=self._key()
        )
        self._timed("shadow", lambda: self.rollouts.StartShadow(request, timeout=TIMEOUT_S))

    def roll_back(self, revision: int, expected: int) -> None:
        """Ends a shadow, or makes the revision before this active one active again."""
        request = rollout_pb2.RollbackRequest(
            revision=revision,
            expected_revision=expected,
            idempotency_key=self._key(),
            reason=REASON,
        )
        self._timed("roll back", lambda: self.rollouts.Rollback(request, timeout=TIMEOUT_S))

    def retire(self, revision: int, expected: int) -> None:
        """Frees the revision's slots and disk space."""
        request = rollout_pb2.RetireRequest(
            revision=revision,
            expected_revision=expected,
            idempotency_key=self._key(),
            reason=REASON,
        )
        self._timed("retire", lambda: self.rollouts.Retire(request, timeout=TIMEOUT_S))

    def fingerprint(self, revision: int) -> NDArray[np.float64]:
        """(calls, items) scores by that revision: the active one, or one that is or was tried."""
        answers = zip(self.calls, self.rank(revision), strict=True)
        rows = [call.scores(answer) for call, answer in answers]
        if not all(rows):
            raise OperatorError(f"revision {revision} did not score every item")
        return np.array(rows)

    def rank(self, revision: int | None = None) -> list[ranking_pb2.RankResponse]:
        """Answers all calls, by that revision or the active one. Raises OperatorError."""
        requests = [call.request(revision) for call in self.calls]
        answers: list[ranking_pb2.RankResponse] = []
        for first in range(0, len(requests), AT_ONCE):
            some = requests[first : first + AT_ONCE]
            asked = [self.ranking.Rank.future(each, timeout=TIMEOUT_S) for each in some]
            with _errors_of("rank"):
                answers.extend(each.result() for each in asked)
        return answers

    def _key(self) -> str:
        self._num_keys += 1
        return f"{self.name}-{self._num_keys}"

    def _timed(self, verb: str, work: Callable[[], T]) -> T:
        """Raises OperatorError."""
        started = time.perf_counter()
        with _errors_of(verb):
            found = work()
        self.seconds.setdefault(verb, []).append(time.perf_counter() - started)
        return found


@contextmanager
def operating(
    ranking: str, rollout: str, calls: Sequence[BenchmarkCall], name: str = "swap"
) -> Iterator[RolloutOperator]:
    """An operator with a connection to each port."""
    with grpc.insecure_channel(ranking) as channel, grpc.insecure_channel(rollout) as admin:
        yield RolloutOperator(
            rollout_pb2_grpc.RolloutServiceStub(admin),
            ranking_pb2_grpc.RankingServiceStub(channel),
            calls,
            name,
        )


@contextmanager
def _errors_of(verb: str) -> Iterator[None]:
    """Turns a failed call into OperatorError."""
    try:
        yield
    except grpc.RpcError as error:
        raise OperatorError(f"{verb} failed: {error}") from error
