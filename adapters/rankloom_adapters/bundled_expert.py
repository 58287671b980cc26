"""One expert of a bundle, named and read by digest, so that what is loaded already is not read."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_adapters.bundle import PartReader
from rankloom_adapters.expert import Expert, check_base, parse_expert
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.norms import check_norms


@dataclass(frozen=True, slots=True, eq=False)
class BundledExpert:
    """An expert's two files in a bundle. ``base_sha256``: of the bundle's base weights."""

    name: str
    config: PartReader
    weights: PartReader
    base_sha256: str

    @property
    def digest(self) -> str:
        """SHA-256 of both files by the manifest, in the form of ExpertFiles.digest."""
        return f"{self.config.sha256} {self.weights.sha256}"

    def load(self, cache: ExpertCache | None = None) -> Expert:
        """The validated expert, from ``cache`` if it is there.

        Raises BundleError, or ExpertError, also where it was trained on another base.
        """
        expert = cache.get(self.name, self.digest, self._read) if cache else self._read()
        check_base(expert, self.base_sha256)
        return expert

    def _read(self) -> Expert:
        expert = parse_expert(self.name, self.config.read(), self.weights.read())
        # Numbers that overflow would reach all rows of a batch: another row's weight for this
        # expert is 0, and 0 · ∞ is NaN. Its siblings may be as young as it is, so without them.
        check_norms(expert, ())
        return expert
