"""SASRec (Kang and McAuley, ICDM 2018) over events with like and dislike labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rankloom_features.models.base import CollaborativeModel

MAX_EVENTS = 50
NUM_BLOCKS = 2
DROPOUT = 0.2


class _Block(nn.Module):
    """One pre-norm self-attention block, one head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.attention_norm(hidden)).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / math.sqrt(hidden.shape[-1]) + mask
        hidden = hidden + self.dropout(self.output(torch.softmax(scores, dim=-1) @ value))
        fed: Tensor = self.dropout(self.feed(self.feed_norm(hidden)))
        return hidden + fed


class SASRec(CollaborativeModel):
    """Causal self-attention over the last MAX_EVENTS events; the last state is the user vector."""

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items, dim)
        self.label = nn.Embedding(2, dim)
        self.position = nn.Embedding(MAX_EVENTS, dim)  # counted back from the newest event
        self.blocks = nn.ModuleList(_Block(dim) for _ in range(NUM_BLOCKS))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.normal_(self.label.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.1)

    def encode(self, items: Tensor, liked: Tensor) -> Tensor:
        """(batch, dim) user vectors; zero for a row that is all padding."""
        items, liked = items[:, -MAX_EVENTS:], liked[:, -MAX_EVENTS:]
        length = items.shape[1]
        back = torch.arange(length - 1, -1, -1, device=items.device)
        hidden = self.vectors(items) + self.label(liked) + self.position(back)
        hidden = self.dropout(hidden)
        causal = torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
        # A padding row attends to itself, so that its softmax is defined; it is zeroed below.
        own = back[:, None] == back
        seen = (causal & (items > 0)[:, None, :]) | own
        mask = torch.where(seen, 0.0, -1e9)
        for block in self.blocks:
            hidden = block(hidden, mask)
        last: Tensor = self.norm(hidden)[:, -1]
        return last * (items[:, -1:] > 0)
