"""What a feature model says of itself, for those who use its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankloom_features.provider import FeatureProvider


class FeatureVersionError(Exception):
    """No live feature model has the version that must answer."""

    def __init__(self) -> None:
        super().__init__(
            "no live feature model has this feature_version; leave it out, or see GetModelInfo"
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One feature model. ``kind``: of the collaborative model; empty where unknown.

    ``dim``: length of a user's vector. ``columns``: names of the tabular features, in order;
    ``schema_digest``: of them. ``like_above``: a rating above it is a like; None for a model that
    was not trained on ratings.
    """

    kind: str
    dim: int
    feature_version: str
    num_items: int
    columns: tuple[str, ...]
    schema_digest: str
    like_above: float | None


def model_info_of(provider: FeatureProvider, metadata: Mapping[str, object]) -> ModelInfo:
    """Describes a bundle's features. ``metadata``: the bundle's, as training wrote it."""
    kind, like_above = metadata.get("collaborative"), metadata.get("like_above")
    return ModelInfo(
        kind=kind if isinstance(kind, str) else "",
        dim=provider.encoder.dim,
        feature_version=provider.encoder.feature_version,
        num_items=len(provider.catalogue),
        columns=provider.columns,
        schema_digest=provider.schema_digest,
        like_above=float(like_above) if isinstance(like_above, int | float) else None,
    )
