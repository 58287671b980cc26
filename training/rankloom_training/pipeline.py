"""From an interaction log to a bundle, in stages that a killed run can take up again."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import expert_part, open_bundle, seal
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.gate import GLOBAL, Gate, group_of
from rankloom_engine.loading import load_item_vectors
from rankloom_engine.model import Decoder, self_check
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptBuilder, PromptFormat
from rankloom_features.encoder import Encoder, pad_events
from rankloom_features.events import Event, EventLog, History
from rankloom_features.export import export
from rankloom_features.fit import Examples, fit, forget_untrained
from rankloom_features.loading import statistics_to_bytes
from rankloom_features.models import create_model
from rankloom_features.ranker import TreeRanker
from rankloom_training import base, calibrate, trees
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.experts import ExpertTrainer, Recipe
from rankloom_training.groups import fit_gate
from rankloom_training.progress import Progress
from rankloom_training.stages import Workspace, digest_of
from rankloom_training.visibility import Protocol, View, scoring_view, training_views
from rankloom_training.windows import Inputs, Window, WindowMaker

MAX_EVENTS_IN_PROMPT = 20
LATENT_DIM = 64
GLOBAL_RECIPE = Recipe(epochs=2, learning_rate=5e-4)
GROUP_RECIPE = Recipe(epochs=1, learning_rate=2e-4)
_ENCODE_ROWS = 512


class OutputError(ValueError):
    """The bundle cannot be written where it was asked for."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a user may choose. ``base``: a local path or hub id; None: the embedded decoder."""

    protocol: Protocol = Protocol.P1
    collaborative: str = "mf"
    base: str | None = None
    num_groups: int = 3
    base_epochs: int = 3
    global_recipe: Recipe = GLOBAL_RECIPE
    group_recipe: Recipe = GROUP_RECIPE
    seed: int = 0


def train_bundle(data: Path, out: Path, options: TrainOptions, progress: Progress) -> str:
    """Trains everything and writes the bundle to ``out``; answers its digest.

    Unfinished work is kept in ``<out>.work`` and taken up by the next run on the same
    data with the same options. Raises DataError, BaseModelError, GroupError or
    OutputError, all ValueErrors that say what to do.
    """
    if out.exists():
        raise OutputError(f"{out} exists; choose another place or remove it")
    dataset = load_dataset(data)
    for warning in dataset.warnings:
        progress.warn(warning)
    made_from = {"data": digest_of(data), "options": dataclasses.asdict(options)}
    work = Workspace(out.with_name(out.name + ".work"), made_from, progress)
    return _Run(dataset, options, work, progress).bundle(out)


class _Run:
    """One training run; each method that takes a folder is a stage that fills it."""

    def __init__(
        self, dataset: Dataset, options: TrainOptions, work: Workspace, progress: Progress
    ) -> None:
        self._data, self._log, self._options = dataset, dataset.log, options
        self._work, self._progress = work, progress
        self._train_views = training_views(self._log, options.protocol, options.seed)
        self._valid_view = scoring_view(self._log, options.protocol, Split.VALID)

    def bundle(self, out: Path) -> str:
        """Runs or reuses every stage, then moves the sealed bundle into place."""
        for name, make in (
            ("trees", self._trees),
            ("collaborative", self._collaborative),
            ("base", self._base),
            ("global", self._global),
            ("groups", self._groups),
            ("calibrate", self._calibrate),
        ):
            folder = self._work.stage(name, make)
        digest = open_bundle(folder).digest
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, out)
        self._work.remove()
        return digest

    def _trees(self, folder: Path) -> None:
        """Tabular features, the tree ranker and its out-of-fold logits."""
        held_out = trees.HeldOutFeatures(self._data.catalogue, self._log, self._options.seed)
        tables = [held_out.table(view) for view in self._train_views]
        train, valid = trees.joined(tables), held_out.table(self._valid_view)
        names = held_out.served.names
        boosters = trees.fit_ranker(train, valid, names, len(parts.RANKERS))
        for part, booster in zip(parts.RANKERS, boosters, strict=True):
            (folder / Path(part).name).write_bytes(booster)
        prior = trees.out_of_fold_logits(train, valid, names, held_out.fold)
        valid_prior = TreeRanker(boosters).logits(valid.features)
        statistics = statistics_to_bytes(held_out.statistics)
        (folder / "item_statistics.safetensors").write_bytes(statistics)
        _save(folder, "train", tabular=train.features, prior=prior)
        _save(folder, "valid", tabular=valid.features, prior=valid_prior)

    def _collaborative(self, folder: Path) -> None:
        """The collaborative model, its ONNX file, and every row's user vector."""
        torch.manual_seed(self._options.seed)
        model = create_model(self._options.collaborative, len(self._data.catalogue), LATENT_DIM)
        train = _joined_examples([self._examples(view) for view in self._train_views])
        fit(
            model,
            train,
            self._examples(self._valid_view),
            seed=self._options.seed,
            on_epoch=lambda epoch, loss: self._progress.note(f"epoch {epoch}: log-loss {loss:.4f}"),
        )
        forget_untrained(model, np.unique(self._log.item[self._log.split == Split.TRAIN]))
        onnx = export(model)
        (folder / "encoder.onnx").write_bytes(onnx)
        vectors = model.vectors.weight.detach().numpy()[1:].copy()
        data = safetensors.numpy.save({"vectors": vectors})
        (folder / "item_vectors.safetensors").write_bytes(data)
        encoder = Encoder(onnx)
        train_vectors = [self._encode(encoder, view) for view in self._train_views]
        _save(folder, "train", vector=np.concatenate(train_vectors))
        _save(folder, "valid", vector=self._encode(encoder, self._valid_view))

    def _base(self, folder: Path) -> None:
        """The base decoder, its tokenizer and the prompt."""
        if self._options.base is None:
            tokenizer = base.train_tokenizer(self._data.catalogue)
            fmt = base.embedded_format(tokenizer, MAX_EVENTS_IN_PROMPT)
            model: torch.nn.Module = base.train_decoder(
                tokenizer,
                fmt,
                self._data.catalogue,
                self._log,
                shape=base.DecoderShape(),
                epochs=self._options.base_epochs,
                seed=self._options.seed,
                on_step=self._progress.step,
            )
        else:
            model, tokenizer, fmt = base.fetch_base(self._options.base, MAX_EVENTS_IN_PROMPT)
        self_check(model, base.embeddings_of(model).num_embeddings)
        base.write_base(folder / "base", model, tokenizer)
        (folder / "prompt.json").write_bytes(fmt.to_bytes())

    def _global(self, folder: Path) -> None:
        """The global expert and, with it, the projector."""
        decoder, maker = self._learner(None)
        train, valid = self._train_windows(maker), self._valid_windows(maker)
        trainer = ExpertTrainer(decoder, self._options.seed)
        self._learn(trainer, train, valid, self._options.global_recipe, with_projector=True)
        trainer.save(folder / GLOBAL)
        (folder / "projector.safetensors").write_bytes(decoder.projector.to_bytes())

    def _groups(self, folder: Path) -> None:
        """The gate, and one expert per group that starts from the global one."""
        vectors = np.load(self._work.folder / "collaborative" / "train.npz")["vector"]
        gate = fit_gate(self._last_vectors(vectors), self._options.num_groups, self._options.seed)
        (folder / "gate.json").write_bytes(gate.to_bytes())
        decoder, maker = self._learner(self._work.folder / "global")
        trainer = ExpertTrainer(decoder, self._options.seed)
        trainer.load_adapter(self._work.folder / "global" / GLOBAL)
        start = trainer.state()
        train, valid = self._train_windows(maker), self._valid_windows(maker)
        train_group = _window_groups(train, vectors, gate)
        valid_vectors = np.load(self._work.folder / "collaborative" / "valid.npz")["vector"]
        valid_group = _window_groups(valid, valid_vectors, gate)
        for number, name in enumerate(gate.groups):
            trainer.load(start)
            own = [w for w, group in zip(train, train_group, strict=True) if group == number]
            judge = [w for w, group in zip(valid, valid_group, strict=True) if group == number]
            self._learn(
                trainer, own, judge or valid, self._options.group_recipe, with_projector=False
            )
            trainer.save(folder / name)

    def _calibrate(self, folder: Path) -> None:
        """Puts the bundle together, fits temperature and probabilities on valid, seals it."""
        self._assemble(folder)
        seal(folder, self._metadata())
        fitted = calibrate.fit_on_valid(
            open_bundle(folder), self._data, self._valid_view, self._progress.step
        )
        (folder / parts.GATE).write_bytes(fitted.gate.to_bytes())
        (folder / parts.CALIBRATION).write_bytes(fitted.calibration.to_bytes())
        self._progress.note(f"temperature {fitted.gate.temperature}")
        seal(folder, self._metadata() | {"validation": fitted.report})

    def _assemble(self, folder: Path) -> None:
        work = self._work.folder
        copies = {
            parts.BASE_CONFIG: work / "base" / parts.BASE_CONFIG,
            parts.BASE_WEIGHTS: work / "base" / parts.BASE_WEIGHTS,
            parts.BASE_TOKENIZER: work / "base" / parts.BASE_TOKENIZER,
            parts.PROMPT: work / "base" / "prompt.json",
            parts.ENCODER: work / "collaborative" / "encoder.onnx",
            parts.ITEM_VECTORS: work / "collaborative" / "item_vectors.safetensors",
            parts.ITEM_STATISTICS: work / "trees" / "item_statistics.safetensors",
            parts.PROJECTOR: work / "global" / "projector.safetensors",
            parts.GATE: work / "groups" / "gate.json",
        }
        copies |= {part: work / "trees" / Path(part).name for part in parts.RANKERS}
        gate = Gate.from_bytes((work / "groups" / "gate.json").read_bytes())
        for name in gate.experts:
            source = work / ("global" if name == GLOBAL else "groups") / name
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                copies[expert_part(name, file)] = source / file
        for part, path in copies.items():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / part)
        (folder / parts.CATALOGUE).write_bytes(self._data.catalogue.to_bytes())
        (folder / parts.EVENTS).write_bytes(self._event_log().to_bytes())
        (folder / parts.CALIBRATION).write_bytes(Calibration().to_bytes())

    def _metadata(self) -> dict[str, object]:
        encoder = (self._work.folder / "collaborative" / "encoder.onnx").read_bytes()
        return {
            "protocol": str(self._options.protocol),
            "collaborative": self._options.collaborative,
            "base": self._options.base or "embedded",
            "epoch": Encoder(encoder).epoch,
            "num_users": self._log.num_users,
            "num_items": len(self._data.catalogue),
        }

    def _event_log(self) -> EventLog:
        """All events of the log: what a server knows of its users on the first day."""
        events: dict[str, list[Event]] = {user: [] for user in self._log.user_ids}
        log, items = self._log, self._data.catalogue.items
        for user, item, liked, time in zip(log.user, log.item, log.liked, log.time, strict=True):
            event = Event(items[item].item_id, bool(liked), float(time))
            events[log.user_ids[user]].append(event)
        return EventLog(events)

    def _learner(self, with_global: Path | None) -> tuple[Decoder, WindowMaker]:
        """The base model with its projector, and the windows' maker."""
        model, tokenizer = base.read_base(self._work.folder / "base")
        fmt = PromptFormat.from_bytes((self._work.folder / "base" / "prompt.json").read_bytes())
        vectors = (self._work.folder / "collaborative" / "item_vectors.safetensors").read_bytes()
        builder = PromptBuilder(tokenizer, fmt, load_item_vectors(vectors))
        projector = self._projector(with_global, base.embeddings_of(model).embedding_dim)
        decoder = Decoder(model, projector, yes=fmt.liked, no=fmt.disliked)
        return decoder, WindowMaker(self._log, self._data.catalogue, builder)

    def _projector(self, with_global: Path | None, hidden: int) -> Projector:
        if with_global is not None:
            data = (with_global / "projector.safetensors").read_bytes()
            return Projector.from_bytes(data, hidden)
        torch.manual_seed(self._options.seed)
        tabular = np.load(self._work.folder / "trees" / "train.npz")["tabular"]
        projector = Projector(LATENT_DIM, tabular.shape[1], hidden)
        projector.fit_scale(torch.from_numpy(tabular))
        return projector

    def _learn(
        self,
        trainer: ExpertTrainer,
        train: list[Window],
        valid: list[Window],
        recipe: Recipe,
        *,
        with_projector: bool,
    ) -> None:
        trainer.train(
            train,
            valid,
            recipe,
            with_projector=with_projector,
            on_step=self._progress.step,
            on_epoch=lambda epoch, auc: self._progress.note(f"epoch {epoch}: AUC {auc:.4f}"),
        )

    def _train_windows(self, maker: WindowMaker) -> list[Window]:
        arrays = _load_inputs(self._work.folder, "train")
        windows, at = [], 0
        for view in self._train_views:
            rows = slice(at, at + len(view.rows))
            inputs = Inputs(view, *(array[rows] for array in arrays))
            windows += [_shifted(window, at) for window in maker.windows(inputs)]
            at += len(view.rows)
        return windows

    def _valid_windows(self, maker: WindowMaker) -> list[Window]:
        return maker.windows(Inputs(self._valid_view, *_load_inputs(self._work.folder, "valid")))

    def _histories(self, view: View) -> list[History]:
        return [view.history_before(self._log, int(row)) for row in view.rows]

    def _examples(self, view: View) -> Examples:
        items, liked = pad_events(self._histories(view))
        return Examples(items, liked, self._log.item[view.rows] + 1, self._log.liked[view.rows])

    def _encode(self, encoder: Encoder, view: View) -> NDArray[np.float32]:
        histories = self._histories(view)
        starts = range(0, len(histories), _ENCODE_ROWS)
        return np.concatenate([encoder.encode(histories[at : at + _ENCODE_ROWS]) for at in starts])

    def _last_vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(users, dim): each training user's vector at the user's last training row."""
        rows = np.concatenate([view.rows for view in self._train_views])
        last = {int(self._log.user[row]): place for place, row in enumerate(rows)}
        return vectors[list(last.values())]


def _joined_examples(examples: list[Examples]) -> Examples:
    return Examples(
        *(
            np.concatenate([getattr(one, field.name) for one in examples])
            for field in dataclasses.fields(Examples)
        )
    )


def _load_inputs(work: Path, rows: str) -> tuple[NDArray[Any], ...]:
    """Vectors, tabular features and priors in the order of ``Inputs``."""
    from_trees = np.load(work / "trees" / f"{rows}.npz")
    vector = np.load(work / "collaborative" / f"{rows}.npz")["vector"]
    return vector, from_trees["tabular"], from_trees["prior"]


def _save(folder: Path, rows: str, **arrays: NDArray[np.floating]) -> None:
    np.savez(folder / f"{rows}.npz", allow_pickle=False, **arrays)


def _shifted(window: Window, by: int) -> Window:
    return dataclasses.replace(window, places=window.places + by)


def _window_groups(
    windows: list[Window], vectors: NDArray[np.float32], gate: Gate
) -> NDArray[np.int64]:
    """The group that each window's newest row would be routed to."""
    newest = vectors[[window.places[-1] for window in windows]]
    return group_of(newest, gate.centre, gate.centroids)
