"""Losses that draw vectors together and apart: a triplet's, or InfoNCE."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 1.0  # of a triplet, Euclidean, as in the paper's code
TEMPERATURE = 0.2  # of InfoNCE, as there


class Contrast(StrEnum):
    """Which of them is used."""

    TRIPLET = "triplet"
    INFO_NCE = "infonce"
    NONE = "none"


def contrast(kind: Contrast, anchors: Tensor, positives: Tensor, same: Tensor) -> Tensor:
    """The mean loss over the rows; 0 if no row has another one to be apart from.

    ``anchors``, ``positives``: (n, dim), each anchor with its positive. ``same``: (n, n) whether
    the positive of a column would be right for the anchor of a row.
    """
    usable = (~same).any(dim=1)
    if kind is Contrast.NONE or not usable.any():
        return anchors.new_zeros(())
    if kind is Contrast.TRIPLET:
        wrong = torch.multinomial((~same[usable]).float(), 1)[:, 0]
        return functional.triplet_margin_loss(
            anchors[usable], positives[usable], positives[wrong], margin=MARGIN
        )
    own = torch.eye(len(same), dtype=torch.bool, device=same.device)
    unit_anchors, unit_positives = (functional.normalize(each) for each in (anchors, positives))
    scores = (unit_anchors @ unit_positives.T / TEMPERATURE).masked_fill(same & ~own, -torch.inf)
    rows = torch.arange(len(same), device=same.device)
    return functional.cross_entropy(scores[usable], rows[usable])
