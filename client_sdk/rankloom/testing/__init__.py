"""A fake rankloom server for your own tests: no model, no torch, a real gRPC connection.

    from rankloom import Client, OverloadedError
    from rankloom.testing import FakeServer, after, fail

    def test_the_ranker_survives_an_overload() -> None:
        with FakeServer() as server, Client(server.target) as client:
            server.on_rank(
                fail(OverloadedError, retry_after_s=0.5),  # the first call fails
                after(0.1, {"318": 2.0, "50": -1.0}),  # later calls get these scores
            )
            ranker = Ranker(client)  # your code
            assert ranker.best_of(["50", "318"], user="42") == "318"
            assert [call.item_ids for call in server.rank_calls] == [("50", "318")] * 2

Without a script, the server ranks each item by a fixed score. `server.calls` has everything that
it was asked, as values of the SDK.
"""

from rankloom._naming import show_as as _show_as
from rankloom.testing._answers import (
    after,
    make_explanation,
    make_features,
    make_item_explanation,
    make_ranking,
    make_recommendation,
    make_retrieval,
    make_stored_explanation,
)
from rankloom.testing._calls import (
    ExplainCall,
    FeatureCall,
    ForgetCall,
    RankCall,
    RecommendCall,
    RecordCall,
    RetrieveCall,
    RolloutCall,
)
from rankloom.testing._refusals import fail
from rankloom.testing._server import FakeServer

__all__ = [
    "ExplainCall",
    "FakeServer",
    "FeatureCall",
    "ForgetCall",
    "RankCall",
    "RecommendCall",
    "RecordCall",
    "RetrieveCall",
    "RolloutCall",
    "after",
    "fail",
    "make_explanation",
    "make_features",
    "make_item_explanation",
    "make_ranking",
    "make_recommendation",
    "make_retrieval",
    "make_stored_explanation",
]

_show_as(__name__, globals(), __all__)
