"""Scores from two tables equal those of the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import torch

from feature_service.feature_bundle import DIM, ITEMS, collaborative_model, vectors_of
from feature_service.small_catalogue import NUM_ITEMS, random_history
from rankloom_features.encoder import Encoder, EncoderError
from rankloom_features.export import export
from rankloom_features.models import MODEL_NAMES, create_model
from rankloom_features.scorer import Scorer, scorer_from_bytes

NUM_DIMS = 6


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_model_is_scored_as_it_scores_itself(name: str) -> None:
    torch.manual_seed(1)
    model = create_model(name, NUM_ITEMS, NUM_DIMS)
    with torch.no_grad():
        model.item_bias.weight[1:] = torch.randn(NUM_ITEMS, 1)
    encoder = Encoder(export(model))
    scorer = scorer_from_bytes(encoder, vectors_of(model), NUM_ITEMS)
    random = np.random.default_rng(0)
    for length in (0, 1, 20):
        history = random_history(random, length)
        indices = random.permutation(NUM_ITEMS)
        vectors, logits = encoder.encode_and_score([history], indices[None] + 1)
        assert scorer.logits(vectors[0], indices) == pytest.approx(logits[0], abs=1e-5)
        assert np.ptp(logits) > 0.1


def test_an_unknown_item_has_no_logit_and_others_are_rounded_as_alone() -> None:
    random = np.random.default_rng(0)
    scorer = Scorer(random.random((50, 7), np.float32), random.random(50, np.float32))
    user, indices = random.random(7, np.float32), np.array([3, -1, 49, 0])
    found = scorer.logits(user, indices)
    assert np.isnan(found).tolist() == [False, True, False, False]
    assert found.dtype == np.float32
    for index, logit in zip(indices, found, strict=True):
        assert scorer.logits(user, np.array([index])).tobytes() == logit.tobytes()
    assert scorer.logits(user, indices[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (np.zeros((len(ITEMS) + 1, DIM), np.float32), "do not fit this catalogue"),
        (np.zeros((len(ITEMS), DIM + 1), np.float32), "do not fit this catalogue"),
        (np.full((len(ITEMS), DIM), np.nan, np.float32), "not a finite matrix"),
        (np.zeros(len(ITEMS), np.float32), "not a finite matrix"),
    ],
    ids=["items", "dim", "nan", "flat"],
)
def test_vectors_that_cannot_be_the_models_are_refused(vectors: np.ndarray, reason: str) -> None:
    encoder = Encoder(export(collaborative_model()))
    data = safetensors.numpy.save({"vectors": vectors})
    with pytest.raises(EncoderError, match=reason):
        scorer_from_bytes(encoder, data, len(ITEMS))


def test_vectors_of_another_model_are_noticed() -> None:
    encoder = Encoder(export(collaborative_model()))
    with pytest.raises(EncoderError, match="belong to another feature model"):
        scorer_from_bytes(encoder, vectors_of(collaborative_model(1)), len(ITEMS))
