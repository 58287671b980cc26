"""The steps of a long command, kept on disk so that a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import rankloom
from rankloom_training.stages.fingerprint import Fingerprint, code_digest
from rankloom_training.stages.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Steps:
    """Finished steps in a workspace. ``data``: digest of what all of them read."""

    workspace: Workspace
    data: str

    def folder(
        self,
        name: str,
        options: Mapping[str, object],
        fill: Callable[[Path, Path], None],
        needs: tuple[str, ...] = (),
    ) -> Path:
        """The folder of a step, made now if it is not there or was made from something else.

        ``fill``: gets an empty folder, and one for checkpoints. ``needs``: earlier steps whose
        files decide what it makes.
        """
        made_from = Fingerprint(
            version=rankloom.__version__,
            data=self.data,
            options=options,
            code={"rankloom_training.reccot": code_digest("rankloom_training.reccot")},
            needs={each: self.workspace.digest(each) or "" for each in needs},
        )
        known = self.workspace.digest(name)
        if known is None or self.workspace.made_from(name) != made_from.to_json():
            self.workspace.make(name, made_from, fill)
        return self.workspace.folder_of(name)
