"""The soft-token projector: latent vectors and tabular rows become embeddings."""

from __future__ import annotations

import safetensors.torch
import torch
from torch import Tensor, nn

from rankloom_engine.errors import ModelError


class Projector(nn.Module):
    """Two small networks into the decoder's embedding space.

    A latent vector of user or item goes through one shared network, as in CoLLM
    (arXiv 2310.19488); a row of tabular features is standardised, unknown values become
    the mean, and goes through another.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, latent_dim: int, num_columns: int, hidden: int) -> None:
        super().__init__()
        self.latent = nn.Sequential(
            nn.Linear(latent_dim, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )
        self.tabular = nn.Sequential(
            nn.Linear(num_columns, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("deviation", torch.ones(num_columns))

    def fit_scale(self, rows: Tensor) -> None:
        """Fits mean and deviation to training rows (n, columns), ignoring NaN."""
        known = ~torch.isnan(rows)
        count = known.sum(dim=0).clamp_min(1)
        mean = torch.where(known, rows, 0.0).sum(dim=0) / count
        square = torch.where(known, (rows - mean) ** 2, 0.0).sum(dim=0) / count
        self.mean.copy_(mean)
        self.deviation.copy_(square.sqrt().clamp_min(1e-3))

    def of_latent(self, vectors: Tensor) -> Tensor:
        """(n, latent_dim) → (n, hidden)."""
        projected: Tensor = self.latent(vectors)
        return projected

    def of_tabular(self, rows: Tensor) -> Tensor:
        """(n, columns), NaN where unknown → (n, hidden)."""
        standard = torch.nan_to_num((rows - self.mean) / self.deviation).clamp(-5.0, 5.0)
        projected: Tensor = self.tabular(standard)
        return projected

    def check_fits(self, latent_dim: int, num_columns: int) -> None:
        """Raises ModelError where it was made for other features than these."""
        for name, own, given in (
            ("latent vectors", self.latent[0].in_features, latent_dim),
            ("tabular features", len(self.mean), num_columns),
        ):
            if own != given:
                raise ModelError(
                    f"projector: made for {name} of {own} numbers, the bundle's have {given}; "
                    "take projector and features from one training"
                )

    def to_bytes(self) -> bytes:
        """The projector in safetensors' format."""
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        return bytes(safetensors.torch.save(state))

    @classmethod
    def from_bytes(cls, data: bytes, hidden: int) -> Projector:
        """Reads ``to_bytes`` for a decoder of that hidden size. Raises ModelError."""
        try:
            state = safetensors.torch.load(data)
            projector = cls(state["latent.0.weight"].shape[1], len(state["mean"]), hidden)
            projector.load_state_dict(state)
        except Exception as error:  # safetensors does not export its error class
            raise ModelError("projector: does not fit the base model") from error
        return projector.eval()
