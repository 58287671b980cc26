"""The stage of the global expert: trained with the projector, for all users."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_training.experts import ExpertTrainer
from rankloom_training.options import Recipe
from rankloom_training.stages.artefacts import BaseFiles, GlobalFiles
from rankloom_training.stages.curriculum import Curriculum
from rankloom_training.stages.learner import LEARNER_CODE, LEARNER_NEEDS, Learner, learn
from rankloom_training.stages.rows import LogRows
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.visibility import Protocol


@dataclass(frozen=True, slots=True)
class GlobalStage(Stage):
    """The global expert and the projector, trained together."""

    protocol: Protocol
    lm_rows: int
    global_recipe: Recipe
    shots: int | None
    seed: int
    makes = GlobalFiles
    needs = LEARNER_NEEDS
    code = LEARNER_CODE

    def run(self, given: StageInputs) -> None:
        """Trains both for all users. Raises CurriculumError."""
        rows = LogRows.of(given.dataset, self.protocol, self.seed)
        curriculum = Curriculum(with_words=True, shots=self.shots)
        learner = Learner.of(given, rows, self.lm_rows, None, curriculum)
        files = GlobalFiles(given.folder)
        trainer = ExpertTrainer(learner.decoder, self.seed, recompute=given.machine.recompute)
        train, valid, recipe = learner.train, learner.valid, self.global_recipe
        learn(
            trainer,
            train,
            valid,
            recipe,
            given,
            files.expert.name,
            with_projector=True,
            on_step=given.progress.step,
        )
        trainer.save(files.expert, given.of(BaseFiles).weights)
        files.write_projector(learner.decoder.projector.to_bytes())
