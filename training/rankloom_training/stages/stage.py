"""What a stage is, and what it is given."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeVar

from rankloom_training.data import Dataset
from rankloom_training.machine import CPU, Machine
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress

if TYPE_CHECKING:
    from rankloom_training.checkpoints import Checkpoint

A = TypeVar("A", bound="Artefact")


class Artefact(Protocol):
    """The files of a finished stage, in a folder of their own. The only home of their names."""

    stage: ClassVar[str]

    def __init__(self, folder: Path) -> None: ...


class BundleArtefact(Artefact, Protocol):
    """Files of a stage that the bundle gets, or some of them."""

    def bundle_parts(self) -> dict[str, Path]:
        """Part of the bundle → file."""
        ...


@dataclass(frozen=True, slots=True)
class StageInputs:
    """What a stage is given.

    ``folder``: to be filled. ``made``: folders of the stages that it needs. ``unfinished``: the
    folder of checkpoints, which a killed run leaves to the next. ``machine``: to train on.
    """

    dataset: Dataset
    folder: Path
    made: Mapping[str, Path]
    progress: Progress
    unfinished: Path
    machine: Machine = CPU

    def checkpoint(self, loop: str) -> Checkpoint:
        """Of a loop that takes minutes."""
        # It imports torch, and wrong data is refused before that.
        from rankloom_training.checkpoints import Checkpoint

        return Checkpoint(self.unfinished / f"{loop}.pt")

    def of(self, kind: type[A]) -> A:
        """The files of a stage that this one needs. Raises KeyError for any other."""
        return kind(self.made[kind.stage])

    def maybe(self, kind: type[A]) -> A | None:
        """The files of a stage that this one may need; None where it is not made."""
        return self.of(kind) if kind.stage in self.made else None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of training. The fields of each kind are the options that it reads.

    A field is named like the field of ``TrainOptions`` that gives its value, so a stage cannot
    read an option that its fingerprint leaves out. ``code``: modules and packages beside the
    stage's own that decide what it makes. ``may_need``: files of stages that are made only where
    an option asks for them.
    """

    makes: ClassVar[type[Artefact]]
    needs: ClassVar[tuple[type[Artefact], ...]] = ()
    may_need: ClassVar[tuple[type[Artefact], ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def configured(cls, options: TrainOptions) -> Self:
        """The stage with its share of the options."""
        return cls(
            **{field.name: getattr(options, field.name) for field in dataclasses.fields(cls)}
        )

    @classmethod
    def is_asked(cls, options: TrainOptions) -> bool:
        """Whether these options need what the stage makes."""
        return True

    @property
    def name(self) -> str:
        return self.makes.stage

    def needed_of(self, made: Container[str]) -> tuple[type[Artefact], ...]:
        """Whose files it needs in a sequence. ``made``: names of the sequence's stages."""
        return (*self.needs, *(kind for kind in self.may_need if kind.stage in made))

    @property
    def options(self) -> dict[str, object]:
        """The options that the stage reads, by name."""
        return dataclasses.asdict(self)

    @abstractmethod
    def run(self, given: StageInputs) -> None:
        """Fills ``given.folder``."""
