"""Matrix factorisation is its formula: a linear map of each event, summed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankloom_features.models.mf import MatrixFactorisation

NUM_ITEMS, DIM, LENGTH = 30, 6, 12


def by_event(model: MatrixFactorisation, items: Tensor, liked: Tensor) -> Tensor:
    """(dim,) the vector of one user, event by event."""
    total, count = torch.zeros(DIM), 0
    for item, is_liked in zip(items.tolist(), liked.tolist(), strict=True):
        if item:
            vector = model.vectors.weight[item]
            total = total + (model.of_liked(vector) if is_liked else -model.of_disliked(vector))
            count += 1
    return total / math.sqrt(max(count, 1))


def test_a_users_vector_is_the_sum_of_its_mapped_events() -> None:
    torch.manual_seed(0)
    model = MatrixFactorisation(NUM_ITEMS, DIM)
    items = torch.randint(1, NUM_ITEMS + 1, (40, LENGTH))
    liked = torch.randint(0, 2, (40, LENGTH))
    padding = torch.arange(LENGTH) < torch.randint(0, LENGTH + 1, (40, 1))  # on the left
    items = items.masked_fill(padding, 0)
    expected = torch.stack([by_event(model, *row) for row in zip(items, liked, strict=True)])
    assert torch.allclose(model.encode(items, liked), expected, atol=1e-5)
    assert (model.encode(items, liked)[(items == 0).all(dim=1)] == 0).all()
