"""gSASRec (Petrov and Macdonald, RecSys 2023): SASRec that is not overconfident after sampling."""

from __future__ import annotations

from rankloom_features.models.sasrec import SASRec

CALIBRATION = 0.75  # the paper's t: 0 is plain binary cross-entropy, 1 corrects in full


class GSASRec(SASRec):
    """SASRec with generalised binary cross-entropy, for likes with sampled negatives alone.

    The loss of a like with score s is −log σ(s)^β = −β log σ(s), that of a negative −log(1 − σ(s)),
    and all count alike: so a like weighs β beside each of its negatives.
    """

    def like_weight(self, num_negatives: int, num_items: int) -> float:
        """β for negatives that are drawn from all items alike."""
        return beta(num_negatives / max(num_items - 1, num_negatives), CALIBRATION)


def beta(sampling_rate: float, calibration: float) -> float:
    """β = r (t (1 − 1/r) + 1/r), as in the paper.

    ``sampling_rate``: r, the share of the other items that are negatives of a like, above 0 and at
    most 1. ``calibration``: t, from 0 to 1.
    """
    return sampling_rate * (calibration * (1.0 - 1.0 / sampling_rate) + 1.0 / sampling_rate)
