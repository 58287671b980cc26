"""What the engine is made from: files read when needed, with digests to tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from rankloom_adapters.bundled_expert import BundledExpert
from rankloom_engine.prompt import PromptFormat


class File(Protocol):
    """A file whose digest is known before it is read."""

    @property
    def sha256(self) -> str: ...

    def read(self) -> bytes: ...

    def pieces(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True, eq=False)
class EngineParts:
    """All that a decoder and its experts are loaded from.

    ``latent_dim``, ``num_columns``: of the features that become soft tokens. ``format``: names the
    two verdict tokens and says how long a prompt can be. ``stops``: tokens that end an explanation.
    ``experts``: in the order of a mixture's weights. ``decoder_key``:
    equal keys can share one decoder.
    """

    config: File
    weights: File
    projector: File
    latent_dim: int
    num_columns: int
    format: PromptFormat
    stops: frozenset[int]
    experts: tuple[BundledExpert, ...]
    decoder_key: str
