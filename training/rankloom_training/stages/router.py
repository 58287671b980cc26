"""The stage of the router: groups of users, found before anything is trained for them."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_training.data import Split
from rankloom_training.groups import fit_router
from rankloom_training.stages.artefacts import CollaborativeFiles, RouterFiles
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol


@dataclass(frozen=True, slots=True)
class RouterStage(Stage):
    """The user groups. There may be too many, which is said before the long stages."""

    protocol: Protocol
    num_groups: int
    seed: int
    makes = RouterFiles
    needs = (CollaborativeFiles,)
    code = (
        "rankloom_adapters.router",
        "rankloom_training.groups",
        "rankloom_training.stages.rows",
    )

    def run(self, given: StageInputs) -> None:
        """Clusters each training user's vector at the user's last training row."""
        newest = LogRows.of(given.dataset, self.protocol, self.seed).newest_of_users()
        vectors = given.of(CollaborativeFiles).vectors(Split.TRAIN)[newest]
        RouterFiles(given.folder).write(fit_router(vectors, self.num_groups, self.seed))
