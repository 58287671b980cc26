"""Whether features that were computed elsewhere can be used with a bundle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankloom_features.provider import FeatureProvider, UserFeatures
from rankloom_ranker.fallback import FallbackReason


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """What usable features look like: those that the bundle's models were fitted on."""

    feature_version: str
    dim: int
    schema_digest: str
    num_columns: int


def space_of(provider: FeatureProvider) -> FeatureSpace:
    """The space of the features that a bundle's own provider computes."""
    return FeatureSpace(
        feature_version=provider.encoder.feature_version,
        dim=provider.encoder.dim,
        schema_digest=provider.schema_digest,
        num_columns=provider.num_columns,
    )


def fault_of(
    features: UserFeatures, space: FeatureSpace, num_candidates: int
) -> FallbackReason | None:
    """Why the features cannot be used in full; the gravest reason where there are several.

    Without candidates, there are no tabular features to check.
    """
    if num_candidates and not _is_usable(features, space, num_candidates):
        return FallbackReason.FEATURES_UNAVAILABLE
    if features.feature_version != space.feature_version:
        return FallbackReason.FEATURE_VERSION_MISMATCH
    if features.vector.shape != (space.dim,) or not np.isfinite(features.vector).all():
        return FallbackReason.VECTOR_INVALID
    return None


def _is_usable(features: UserFeatures, space: FeatureSpace, num_candidates: int) -> bool:
    """Whether the tabular features are of the bundle's columns; NaN is an unknown value there."""
    tabular, shape = features.tabular, (num_candidates, space.num_columns)
    is_ours = features.schema_digest == space.schema_digest and tabular.shape == shape
    return is_ours and not np.isinf(tabular).any()
