"""Reports as JSON that any parser takes: null for what is not known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def json_text(report: Mapping[str, object]) -> str:
    """Indented, with a line break at its end. NaN and infinities, which JSON lacks, are null."""
    return json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
