"""A canary with another feature model: both versions of features are alive, and none is mixed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
import safetensors.numpy
import torch

from rankloom_adapters import bundle as parts_of
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_features.export import export
from rankloom_features.models.mf import MatrixFactorisation
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_server.app import servers
from rankloom_server.state import opened_state
from server.rankings import known_user, rank, ranking_channel, request, scores, with_options
from server.rollouts import Running, state_name
from server.served_parts import ServedParts, load_parts
from server.servers import opened, settings

if TYPE_CHECKING:
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub

EXACT = ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE


def other_encoder(folder: Path, made: Path) -> Path:
    """The bundle with a collaborative model of other weights, of the same size."""
    shutil.copytree(folder, made)
    vectors = safetensors.numpy.load((made / parts_of.ITEM_VECTORS).read_bytes())["vectors"]
    torch.manual_seed(7)
    model = MatrixFactorisation(*vectors.shape)
    own = model.vectors.weight.detach().numpy()[1:].copy()
    encoder = export(model)
    (made / parts_of.ENCODER).write_bytes(encoder)
    (made / parts_of.ITEM_VECTORS).write_bytes(safetensors.numpy.save({"vectors": own}))
    (made / parts_of.ITEM_INDEX).unlink()  # it is of the former vectors
    version = hashlib.sha256(encoder).hexdigest()
    seal(made, {**open_bundle(folder).metadata, "feature_version": version})
    return made


@asynccontextmanager
async def serving(
    bundle: Path, folder: Path
) -> AsyncIterator[tuple[Running, FeatureServiceAsyncStub, str]]:
    """A ranking server with its ports for rollouts and features, and the latter's address."""
    given = settings(bundle=bundle, state=folder, rollout_port=0, features_port=0)
    with opened_state(given.rollout.state) as state:
        assert state is not None
        async with servers(given, state) as (server, admin):
            assert admin is not None
            features, _ = server.beside[0]
            async with (
                opened(server) as target,
                opened(admin) as admin_target,
                opened(features) as features_target,
                grpc.aio.insecure_channel(target) as ranking,
                grpc.aio.insecure_channel(admin_target) as operator,
                grpc.aio.insecure_channel(features_target) as channel,
            ):
                running = Running(ranking, operator, admin_target, state, target)
                yield running, FeatureServiceStub(channel), features_target


async def vector_of(
    features: FeatureServiceAsyncStub, user: str, version: str | None = None
) -> tuple[str, list[float]]:
    """The version that answered, and the user's vector."""
    asked = features_pb2.UserQuery(user_id=user)
    message = features_pb2.GetUserFeaturesRequest(users=[asked], feature_version=version)
    [answer] = (await features.GetUserFeatures(message, timeout=10)).features
    return answer.feature_version, np.frombuffer(answer.vector, "<f4").tolist()


async def test_both_versions_are_alive_during_a_canary(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    second = other_encoder(served_folder, tmp_path / "second")
    user, old = known_user(parts), parts.loaded.features.info.feature_version
    async with serving(served_folder, tmp_path / "state") as (server, features, target):
        assert (await vector_of(features, user))[0] == old
        staged = await server.stage(second)
        assert state_name(staged) == "warmed", staged
        await server.start_canary(2, 50)
        [new] = {open_bundle(second).metadata["feature_version"]}
        of_old, of_new = await vector_of(features, user, old), await vector_of(features, user, new)
        assert (of_old[0], of_new[0]) == (old, new)
        assert of_old[1] != pytest.approx(of_new[1])
        answers = [await server.rank(with_options(parts, revision=number)) for number in (1, 2)]
        assert {each.fallback_level for each in answers} == {EXACT}
        assert scores(answers[0]) != scores(answers[1])
        # Servers of either bundle, whose features come from here.
        for bundle, own in ((served_folder, answers[0]), (second, answers[1])):
            async with ranking_channel(load_parts(bundle), features=target) as channel:
                answer = await rank(channel, request(parts))
            assert answer.fallback_level == EXACT
            assert scores(answer) == pytest.approx(scores(own), abs=1e-5)
        await server.promote(2)
        assert (await vector_of(features, user))[0] == new
