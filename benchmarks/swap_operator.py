"""Who rolls out: experts that differ each time, the verbs with their times, fingerprints."""

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
from serve_load import TIMEOUT_S, Call
from swap_check import Fingerprint
from swap_load import request_of, scores_of

from rankloom_adapters.bundle import expert_part, open_bundle
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc, rollout_pb2, rollout_pb2_grpc

T = TypeVar("T")
REASON = "a swap of the benchmark"
AT_ONCE = 2  # of a fingerprint's calls: who asks must not be a load of its own
MIN_WEIGHT = 0.05  # that an expert has in a call whose scores it is to change
# Of the expert's delta. Within what the server takes for usual, and far enough from 1.
LEAST_SCALE, SCALES = 1.5, 1.5
GOLDEN = (math.sqrt(5) - 1) / 2


class OperatorError(Exception):
    """The server refused, or did not do what an operator asked."""


def scale_of(turn: int) -> float:
    """By which an expert's delta grows: never the same, and far from those shortly before."""
    return LEAST_SCALE + SCALES * (turn * GOLDEN % 1.0)


class Experts:
    """Writes a bundle's experts anew, each time another one, times another number."""

    def __init__(self, bundle: Path, names: Sequence[str], folder: Path) -> None:
        self._bundle, self._names, self._folder = open_bundle(bundle), names, folder
        folder.mkdir()

    def write(self, number: int) -> tuple[str, Path]:
        """Name and folder of the expert of a swap; the folder of the last one is written over."""
        turn, place = divmod(number, len(self._names))
        name = self._names[place]
        config = self._bundle.read(expert_part(name, CONFIG_FILE))
        tensors = safetensors.numpy.load(self._bundle.read(expert_part(name, WEIGHTS_FILE)))
        scale = np.float32(scale_of(turn))
        for key in tensors:
            if ".lora_B." in key:
                tensors[key] = np.asarray(tensors[key] * scale)
        (self._folder / CONFIG_FILE).write_bytes(config)
        (self._folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors))
        return name, self._folder


def shared(
    weights: Sequence[Mapping[str, float]], num: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """So many users who have experts in common, two if there are such, and these experts.

    ``weights``: of the experts, user by user. Raises OperatorError where too few have one.
    """
    had = [{name for name, weight in row.items() if weight >= MIN_WEIGHT} for row in weights]
    names = sorted(set().union(*had))
    for group in (*itertools.combinations(names, 2), *itertools.combinations(names, 1)):
        users = [user for user, own in enumerate(had) if own.issuperset(group)][:num]
        if len(users) == num:
            return tuple(users), tuple(n for n in names if all(n in had[user] for user in users))
    raise OperatorError(f"there are no {num} users whose scores one expert changes")


@dataclass(slots=True)
class Operator:
    """Calls to both ports of a server, and how long each verb took in seconds."""

    rollouts: rollout_pb2_grpc.RolloutServiceStub
    ranking: ranking_pb2_grpc.RankingServiceStub
    calls: Sequence[Call]
    name: str = "swap"  # begins the keys of its commands
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    _num_keys: int = 0

    def active(self) -> int:
        """The revision that answers now."""
        return self.revisions().active

    def revisions(self) -> rollout_pb2.Revisions:
        """All of them. Raises OperatorError."""
        with _refusals("list"):
            return self.rollouts.List(rollout_pb2.ListRequest(), timeout=TIMEOUT_S).revisions

    def stage(self, name: str, folder: Path, expected: int) -> int:
        """The number of the new revision. Raises OperatorError where it is not warmed."""
        source = rollout_pb2.ExpertSource(name=name, url=str(folder))
        request = rollout_pb2.StageRequest(
            expert=source, expected_revision=expected, idempotency_key=self._key()
        )
        staged = self._timed("stage", lambda: self.rollouts.Stage(request, timeout=TIMEOUT_S))
        if staged.rollout.state != rollout_pb2.ROLLOUT_STATE_WARMED:
            raise OperatorError(f"{name}: {staged.rollout.reason}")
        return staged.rollout.revision

    def promote(self, revision: int, expected: int) -> None:
        """Everybody goes there, whatever the gates say."""
        request = rollout_pb2.PromoteRequest(
            revision=revision,
            expected_revision=expected,
            idempotency_key=self._key(),
            without_gates=True,
            reason=REASON,
        )
        self._timed("promote", lambda: self.rollouts.Promote(request, timeout=TIMEOUT_S))

    def roll_back(self, revision: int) -> None:
        """What was active before it is again."""
        request = rollout_pb2.RollbackRequest(
            revision=revision,
            expected_revision=revision,
            idempotency_key=self._key(),
            reason=REASON,
        )
        self._timed("roll back", lambda: self.rollouts.Rollback(request, timeout=TIMEOUT_S))

    def retire(self, revision: int, expected: int) -> None:
        """Its slots and its bundle's disk are given back."""
        request = rollout_pb2.RetireRequest(
            revision=revision,
            expected_revision=expected,
            idempotency_key=self._key(),
            reason=REASON,
        )
        self._timed("retire", lambda: self.rollouts.Retire(request, timeout=TIMEOUT_S))

    def fingerprint(self, revision: int) -> Fingerprint:
        """(calls, items) scores by that revision, whoever is active."""
        rows = [scores_of(*each) for each in zip(self.calls, self.rank(revision), strict=True)]
        if not all(rows):
            raise OperatorError(f"revision {revision} did not score every item")
        return np.array(rows)

    def rank(self, revision: int | None = None) -> list[ranking_pb2.RankResponse]:
        """The answer to each call, by that revision or whichever it is. Raises OperatorError."""
        requests = [request_of(call, revision) for call in self.calls]
        answers: list[ranking_pb2.RankResponse] = []
        for first in range(0, len(requests), AT_ONCE):
            some = requests[first : first + AT_ONCE]
            asked = [self.ranking.Rank.future(each, timeout=TIMEOUT_S) for each in some]
            with _refusals("rank"):
                answers.extend(each.result() for each in asked)
        return answers

    def _key(self) -> str:
        self._num_keys += 1
        return f"{self.name}-{self._num_keys}"

    def _timed(self, verb: str, work: Callable[[], T]) -> T:
        """Raises OperatorError."""
        started = time.perf_counter()
        with _refusals(verb):
            found = work()
        self.seconds.setdefault(verb, []).append(time.perf_counter() - started)
        return found


@contextmanager
def operating(
    ranking: str, rollout: str, calls: Sequence[Call], name: str = "swap"
) -> Iterator[Operator]:
    """An operator with a connection to each port."""
    with grpc.insecure_channel(ranking) as channel, grpc.insecure_channel(rollout) as admin:
        yield Operator(
            rollout_pb2_grpc.RolloutServiceStub(admin),
            ranking_pb2_grpc.RankingServiceStub(channel),
            calls,
            name,
        )


@contextmanager
def _refusals(verb: str) -> Iterator[None]:
    """A call that fails raises OperatorError."""
    try:
        yield
    except grpc.RpcError as error:
        raise OperatorError(f"{verb}: {error}") from error
