"""Trains a bundle from an interaction log, in stages that a killed run can resume."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

import rankloom
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_adapters.router import GLOBAL, Router
from rankloom_engine.checks import check_architecture
from rankloom_engine.expert_bank import max_stacked
from rankloom_engine.explain import MAX_EXPLAIN_TOKENS
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.model import Decoder
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptAssembler, PromptFormat
from rankloom_features.encoder import Encoder
from rankloom_features.export import export
from rankloom_features.fit import (
    MAX_EPOCHS,
    Examples,
    fit,
    forget_untrained,
    one_thread,
    score,
)
from rankloom_features.loading import statistics_to_bytes
from rankloom_features.models import create_model
from rankloom_features.models.base import CollaborativeModel
from rankloom_features.ranker import TreeRanker
from rankloom_features.scorer import read_item_vectors
from rankloom_training import base, calibrate, trees
from rankloom_training.assemble import assemble
from rankloom_training.data import Dataset, Split
from rankloom_training.experts import RANK, ExpertTrainer
from rankloom_training.groups import (
    fit_router,
    gain_of,
    have_both_classes,
    window_groups,
)
from rankloom_training.metrics import auc
from rankloom_training.options import Recipe, TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stage_files import load_inputs, save_rows
from rankloom_training.stages import Workspace
from rankloom_training.visibility import (
    View,
    sampled_users,
    scoring_view,
    training_views,
)
from rankloom_training.windows import Inputs, Window, WindowMaker

MAX_EVENTS_IN_PROMPT = 20
LATENT_DIM = 64
VALID_SHARE = 4  # the language model sees this many times fewer validation rows


def check_base(name: str | None) -> None:
    """Fails early on a base model that cannot be served. Raises BaseModelError."""
    if name is not None:
        base.check_base(name, MAX_EVENTS_IN_PROMPT)


class TrainingRun:
    """One training run. Each method that takes a folder is a stage that fills it."""

    def __init__(
        self, dataset: Dataset, options: TrainOptions, work: Workspace, progress: Progress
    ) -> None:
        self._data, self._log, self._options = dataset, dataset.log, options
        keep_freed_memory()
        self._work, self._progress = work, progress
        self._train_views = training_views(self._log, options.protocol, options.seed)
        self._valid_view = scoring_view(self._log, options.protocol, Split.VALID)

    def bundle(self, out: Path) -> str:
        """Runs or reuses every stage, then moves the sealed bundle to ``out``."""
        for name, make in (
            ("collaborative", self._collaborative),
            ("router", self._router),
            ("trees", self._trees),
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

    def _collaborative(self, folder: Path) -> None:
        """The collaborative model as ONNX, and the user vector and logit of every row."""
        train, valid = self._train_examples(0), self._examples(self._valid_view, 0)
        model = self._fit_collaborative(self._train_examples, valid, 0)
        onnx = export(model)
        (folder / "encoder.onnx").write_bytes(onnx)
        item_vectors = model.vectors.weight.detach().numpy()[1:].copy()
        data = safetensors.numpy.save({"vectors": item_vectors})
        (folder / "item_vectors.safetensors").write_bytes(data)
        encoder = Encoder(onnx)
        vector, logit = encoder.encode_all(train.histories), self._out_of_fold(train, valid)
        save_rows(folder, "train", vector=vector, logit=logit)
        vector = encoder.encode_all(valid.histories)
        save_rows(folder, "valid", vector=vector, logit=score(model, valid))

    def _fit_collaborative(
        self, train: Callable[[int], Examples], valid: Examples, num_fitted: int
    ) -> CollaborativeModel:
        def on_epoch(epoch: int, loss: float) -> None:
            self._progress.note(f"epoch {epoch}: log-loss {loss:.4f}")
            self._progress.step(num_fitted * MAX_EPOCHS + epoch, (trees.NUM_FOLDS + 1) * MAX_EPOCHS)

        torch.manual_seed(self._options.seed)
        model = create_model(self._options.collaborative, len(self._data.catalogue), LATENT_DIM)
        with one_thread():
            fit(model, train, valid, seed=self._options.seed, on_epoch=on_epoch)
        forget_untrained(model, np.unique(train(1).target) - 1)
        return model

    def _out_of_fold(self, train: Examples, valid: Examples) -> NDArray[np.float32]:
        """(rows,) logits of the training rows, from models that never saw the row's user."""
        rows = np.concatenate([view.rows for view in self._train_views])
        fold = trees.user_folds(self._log.num_users, self._options.seed)[self._log.user[rows]]
        logits = np.zeros(len(rows), dtype=np.float32)
        for held_out in range(trees.NUM_FOLDS):
            others = partial(self._others, fold != held_out)
            model = self._fit_collaborative(others, valid, 1 + held_out)
            logits[fold == held_out] = score(model, train.only(fold == held_out))
        return logits

    def _others(self, rows: NDArray[np.bool_], epoch: int) -> Examples:
        return self._train_examples(epoch).only(rows)

    def _train_examples(self, epoch: int) -> Examples:
        return Examples.joined([self._examples(view, epoch) for view in self._train_views])

    def _router(self, folder: Path) -> None:
        """The user groups, found before anything is trained for them: there may be too many."""
        vectors = np.load(self._work.folder / "collaborative" / "train.npz")["vector"]
        options = self._options
        router = fit_router(self._last_vectors(vectors), options.num_groups, options.seed)
        (folder / parts.ROUTER).write_bytes(router.to_bytes())

    def _trees(self, folder: Path) -> None:
        """Tabular features, the tree ranker and its out-of-fold logits."""
        held_out = trees.HeldOutFeatures(
            self._data.catalogue, self._log, self._options.seed, self._data.item_columns
        )
        logits = np.load(self._work.folder / "collaborative" / "train.npz")["logit"]
        ends = np.cumsum([len(view.rows) for view in self._train_views])
        tables = map(held_out.table, self._train_views, np.split(logits, ends[:-1]))
        valid_logits = np.load(self._work.folder / "collaborative" / "valid.npz")["logit"]
        train, valid = trees.joined(list(tables)), held_out.table(self._valid_view, valid_logits)
        boosters = trees.Boosters(train, valid, held_out.names, self._progress.step)
        ranker = boosters.ranker()
        (folder / Path(parts.TREES).name).write_bytes(ranker)
        tree_logits = boosters.out_of_fold_logits(held_out.fold)
        valid_tree_logits = TreeRanker(ranker).logits(valid.features)
        self._progress.note(f"AUC {auc(valid.label, valid_tree_logits):.4f}")
        statistics = statistics_to_bytes(held_out.statistics)
        (folder / "item_statistics.safetensors").write_bytes(statistics)
        save_rows(folder, "train", tabular=train.features, tree_logits=tree_logits)
        save_rows(folder, "valid", tabular=valid.features, tree_logits=valid_tree_logits)

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
                self._base_rows(),
                shape=base.DecoderShape(),
                epochs=self._options.base_epochs,
                seed=self._options.seed,
                on_step=self._progress.step,
            )
        else:
            model, tokenizer, fmt = base.fetch_base(self._options.base, MAX_EVENTS_IN_PROMPT)
        num_tokens = fmt.max_tokens
        config = cast("Any", model).config
        check_architecture(config, num_tokens, num_tokens + MAX_EXPLAIN_TOKENS)
        base.write_base(folder / "base", model, tokenizer)
        (folder / "prompt.json").write_bytes(fmt.to_bytes())

    def _global(self, folder: Path) -> None:
        """The global expert and the projector, trained together."""
        decoder, maker = self._learner(None)
        train, valid = self._windows(maker, "train"), self._windows(maker, "valid")
        trainer = ExpertTrainer(decoder, self._options.seed)
        self._learn(trainer, train, valid, self._options.global_recipe, with_projector=True)
        trainer.save(folder / GLOBAL, self._work.folder / "base" / parts.BASE_WEIGHTS)
        (folder / "projector.safetensors").write_bytes(decoder.projector.to_bytes())

    def _groups(self, folder: Path) -> None:
        """One expert per group, each trained from the global expert; and the router's limit."""
        vectors = np.load(self._work.folder / "collaborative" / "train.npz")["vector"]
        decoder, maker = self._learner(self._work.folder / "global")
        router = dataclasses.replace(
            Router.from_bytes((self._work.folder / "router" / parts.ROUTER).read_bytes()),
            max_experts=max_stacked(base.embeddings_of(decoder.model).embedding_dim, RANK),
        )
        (folder / "router.json").write_bytes(router.to_bytes())
        trainer = ExpertTrainer(decoder, self._options.seed)
        trainer.load_adapter(self._work.folder / "global" / GLOBAL)
        start = trainer.state()
        train, valid = self._windows(maker, "train"), self._windows(maker, "valid")
        train_group = window_groups(train, vectors, router)
        valid_vectors = np.load(self._work.folder / "collaborative" / "valid.npz")["vector"]
        valid_group = window_groups(valid, valid_vectors, router)
        for index, name in enumerate(router.groups):
            trainer.load(start)
            own = [w for w, group in zip(train, train_group, strict=True) if group == index]
            held_out = [w for w, group in zip(valid, valid_group, strict=True) if group == index]
            held_out = held_out if have_both_classes(held_out) else valid
            before = trainer.margins(held_out)
            self._learn(trainer, own, held_out, self._options.group_recipe, with_projector=False)
            gain = gain_of(self._users_of(held_out), held_out, before, trainer.margins(held_out))
            self._progress.note(f"{name}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
            if gain.low <= 0.0:
                # The best of several epochs looks better than it is. An expert that is not
                # clearly better than the global one would add noise to the mixture.
                trainer.load(start)
            trainer.save(folder / name, self._work.folder / "base" / parts.BASE_WEIGHTS)

    def _users_of(self, valid: list[Window]) -> NDArray[np.int64]:
        """(rows,) the user of each row of validation windows."""
        rows = np.concatenate([window.rows for window in valid])
        users: NDArray[np.int64] = self._log.user[self._valid_view.rows[rows]]
        return users

    def _calibrate(self, folder: Path) -> None:
        """Assembles the bundle, fits temperature and calibration on the valid split, seals it."""
        assemble(folder, self._work.folder, self._data)
        metadata = self._metadata(folder)
        seal(folder, metadata)
        fitted = calibrate.fit_on_valid(
            open_bundle(folder), self._data, self._valid_view, self._progress.step
        )
        (folder / parts.ROUTER).write_bytes(fitted.router.to_bytes())
        (folder / parts.CALIBRATION).write_bytes(fitted.calibration.to_bytes())
        self._progress.note(f"temperature {fitted.router.temperature}")
        seal(folder, metadata | {"validation": fitted.report})

    def _metadata(self, folder: Path) -> dict[str, object]:
        return {
            "version": rankloom.__version__,
            "protocol": str(self._options.protocol),
            "collaborative": self._options.collaborative,
            "base": self._options.base or "embedded",
            "feature_version": Encoder((folder / parts.ENCODER).read_bytes()).feature_version,
            "lm_rows": self._options.lm_rows,
            "num_users": self._log.num_users,
            "num_items": len(self._data.catalogue),
            "like_above": self._data.like_above,
            "implicit": self._data.sampling.to_json() if self._data.sampling else None,
        }

    def _learner(self, with_global: Path | None) -> tuple[Decoder, WindowMaker]:
        """The decoder with its projector, and the maker of its training windows."""
        model, tokenizer = base.read_base(self._work.folder / "base")
        fmt = PromptFormat.from_bytes((self._work.folder / "base" / "prompt.json").read_bytes())
        vectors = (self._work.folder / "collaborative" / "item_vectors.safetensors").read_bytes()
        builder = PromptAssembler(tokenizer, fmt, read_item_vectors(vectors))
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

    def _windows(self, maker: WindowMaker, name: str) -> list[Window]:
        """The training or validation rows that the language model sees."""
        views = self._train_views if name == "train" else (self._valid_view,)
        max_rows = self._options.lm_rows // (1 if name == "train" else VALID_SHARE)
        arrays, windows, at = load_inputs(self._work.folder, name), [], 0
        chosen = self._sampled_users(np.concatenate([view.rows for view in views]), max_rows)
        for view in views:
            kept = np.flatnonzero(chosen[self._log.user[view.rows]])
            seen = View(view.rows[kept], view.cutoff)
            inputs = Inputs(seen, *(array[at + kept] for array in arrays))
            windows += [
                dataclasses.replace(window, rows=at + kept[window.rows])
                for window in maker.windows(inputs)
            ]
            at += len(view.rows)
        return windows

    def _base_rows(self) -> NDArray[np.int64]:
        rows = np.flatnonzero(self._log.happened & (self._log.split == Split.TRAIN))
        chosen = self._sampled_users(rows, self._options.lm_rows)
        return rows[chosen[self._log.user[rows]]]

    def _sampled_users(self, rows: NDArray[np.int64], max_rows: int) -> NDArray[np.bool_]:
        users, options = self._log.user[rows], self._options
        return sampled_users(users, self._log.num_users, max_rows, options.seed)

    def _examples(self, view: View, epoch: int) -> Examples:
        """The view's rows; sampled negatives are those of the epoch."""
        rows, log, negatives = view.rows, self._log, self._data.negatives
        items = negatives.items(log, epoch) if negatives and epoch else log.item
        return Examples(view.histories(log), items[rows] + 1, log.liked[rows])

    def _last_vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(users, dim): each training user's vector at the user's last training row."""
        rows = np.concatenate([view.rows for view in self._train_views])
        # The first view has the longest histories, so its vectors overwrite the others'.
        last = {int(self._log.user[rows[index]]): index for index in self._by_view_backwards()}
        return vectors[list(last.values())]

    def _by_view_backwards(self) -> NDArray[np.int64]:
        """Indices of all training rows, those of the last view first."""
        sizes = [len(view.rows) for view in self._train_views]
        indices = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        return np.concatenate(indices[::-1])
