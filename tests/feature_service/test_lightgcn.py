"""LightGCN propagates as the paper's equations say, and serves what it was trained with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankloom_features.export import export
from rankloom_features.models.lightgcn import NUM_LAYERS, LightGCN

DIM, NUM_ITEMS = 4, 6
USER = np.array([7, 7, 3, 3, 3, 9, 7])  # codes of any log; the last row repeats the first
ITEM = np.array([0, 1, 1, 2, 4, 4, 0])


@pytest.fixture
def model() -> LightGCN:
    torch.manual_seed(0)
    made = LightGCN(NUM_ITEMS, DIM)
    made.learn_graph(USER, ITEM)
    return made


def propagated(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    """By dense matrices of the whole graph, users and items, layer by layer."""
    users = sorted(set(USER.tolist()))
    likes = np.zeros((len(users), NUM_ITEMS))
    for user, item in zip(USER.tolist(), ITEM.tolist(), strict=True):
        likes[users.index(user), item] = 1.0
    every = np.block(
        [
            [np.zeros((len(users),) * 2), likes],
            [likes.T, np.zeros((NUM_ITEMS,) * 2)],
        ]
    )
    degree = every.sum(axis=1).clip(1.0)
    adjacency = every / np.sqrt(np.outer(degree, degree))
    layers = [np.concatenate([np.zeros((len(users), DIM)), vectors])]
    for _ in range(2 * NUM_LAYERS):
        layers.append(adjacency @ layers[-1])
    return np.mean(layers[::2], axis=0)[len(users) :]


def test_items_are_the_mean_of_the_layers(model: LightGCN) -> None:
    before = model.vectors.weight.detach().numpy()[1:].copy()
    model.settle()
    assert model.vectors.weight.detach().numpy()[1:] == pytest.approx(propagated(before), abs=1e-6)
    assert not model.vectors.weight[0].any()


def test_a_user_is_one_more_layer(model: LightGCN) -> None:
    model.settle()
    model.eval()
    items, liked = torch.tensor([[0, 1, 2, 6, 5]]), torch.tensor([[0, 1, 1, 0, 1]])
    signs = {1: 1.0, 2: 1.0, 5: 1.0, 6: -1.0}
    table = model.vectors.weight.detach().numpy()
    likes = np.unique(np.stack([USER, ITEM]), axis=1)[1]
    degrees = np.bincount(likes, minlength=NUM_ITEMS).clip(1)
    expected = sum(sign * table[i] / np.sqrt(4 * degrees[i - 1]) for i, sign in signs.items())
    assert model.encode(items, liked).detach().numpy()[0] == pytest.approx(expected, abs=1e-6)


def test_settled_vectors_score_as_the_graph_did(model: LightGCN) -> None:
    items, liked = torch.randint(0, NUM_ITEMS + 1, (5, 8)), torch.randint(0, 2, (5, 8))
    candidates = torch.randint(0, NUM_ITEMS + 1, (5, 3))
    model.eval()
    with torch.inference_mode():
        before = model(items, liked, candidates)
    model.settle()
    with torch.inference_mode():
        after = model(items, liked, candidates)
    for one, other in zip(before, after, strict=True):
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-6)
    assert export(model)  # equal within 1e-4, or it raises


def test_a_step_changes_the_items_that_neighbours_like(model: LightGCN) -> None:
    """Item 0 is liked with item 1: a loss of item 1 reaches the vector of item 0."""
    model.train()
    _, logits = model(torch.tensor([[2]]), torch.tensor([[1]]), torch.tensor([[2]]))
    logits.sum().backward()
    gradient = model.vectors.weight.grad
    assert gradient is not None
    touched = gradient.abs().sum(dim=1).numpy() > 0
    assert touched.tolist() == [False, True, True, True, False, True, False]


def test_weights_that_changed_are_spread_anew(model: LightGCN) -> None:
    arguments = torch.tensor([[1, 2]]), torch.tensor([[1, 1]]), torch.tensor([[1, 2]])
    model.eval()
    with torch.no_grad():
        first = model(*arguments)[1].clone()
        model.train()
        model.vectors.weight[1:].mul_(2.0)
        model.eval()
        assert model(*arguments)[1].numpy() == pytest.approx(4.0 * first.numpy(), rel=1e-5)
