"""A fixed call of `Rank`, and its message. It imports neither torch nor the server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from rankloom_proto.v1 import features_pb2, ranking_pb2

TIMEOUT_S: Final = 60.0
NUM_CANDIDATES: Final = 20


@dataclass(frozen=True, slots=True)
class BenchmarkCall:
    """A user and the items to rank."""

    user: str
    items: tuple[str, ...]

    def request(self, revision: int | None = None) -> ranking_pb2.RankRequest:
        """The message; answered by the model or refused, and by this revision if given."""
        return ranking_pb2.RankRequest(
            user_id=self.user,
            candidates=[features_pb2.Candidate(item_id=item) for item in self.items],
            options=ranking_pb2.RankOptions(allow_fallback=False, revision=revision),
        )

    def scores(self, answer: ranking_pb2.RankResponse) -> tuple[float, ...]:
        """Scores in the order of the items; empty unless exactly these came, all scored."""
        found = {item.item_id: item.score for item in answer.items if item.scored}
        scores = tuple(found.get(item, math.nan) for item in self.items)
        is_whole = len(answer.items) == len(self.items) and all(map(math.isfinite, scores))
        return scores if is_whole else ()
