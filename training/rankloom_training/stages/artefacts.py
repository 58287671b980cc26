"""The files that each stage makes: their names, how they are written and read, and what of them
becomes a part of the bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import safetensors.numpy
from numpy.typing import NDArray
from pyarrow import parquet

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import expert_part
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL, Router
from rankloom_features.rated_reviews import RatedReviews
from rankloom_features.review_ratings import ReviewRatings
from rankloom_features.scorer import read_item_vectors
from rankloom_ranker.item_groups import ItemGroups
from rankloom_training.data import Split
from rankloom_training.words import Cited, TaughtText

Parts = dict[str, Path]
_CITED = pa.struct(
    [
        pa.field("item", pa.int64()),
        pa.field("liked", pa.bool_()),
        pa.field("speaks_for", pa.bool_()),
    ]
)
_PHRASED = b"rankloom.phrased"
_SAID = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("cited", pa.list_(_CITED)),
    ]
)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@dataclass(frozen=True, slots=True)
class CollaborativeFiles:
    """The collaborative model, and its vector and logit for every row of train and valid."""

    folder: Path
    stage: ClassVar[str] = "collaborative"

    def write_model(self, onnx: bytes, item_vectors: NDArray[np.float32]) -> None:
        _write(self.folder / parts.ENCODER, onnx)
        data = safetensors.numpy.save({"vectors": item_vectors})
        _write(self.folder / parts.ITEM_VECTORS, data)

    def model(self) -> tuple[bytes, bytes]:
        """The encoder as ONNX, and the item vectors."""
        encoder, vectors = (self.folder / part for part in (parts.ENCODER, parts.ITEM_VECTORS))
        return encoder.read_bytes(), vectors.read_bytes()

    def write_rows(
        self, split: Split, vector: NDArray[np.float32], logit: NDArray[np.float32]
    ) -> None:
        _write_rows(self.folder, split, vector=vector, logit=logit)

    def item_vectors(self) -> NDArray[np.float32]:
        """(items, dim)."""
        return read_item_vectors((self.folder / parts.ITEM_VECTORS).read_bytes())

    def vectors(self, split: Split) -> NDArray[np.float32]:
        """(rows, dim): the user's vector from the events that the row may see."""
        return _array(self.folder, split, "vector")

    def logits(self, split: Split) -> NDArray[np.float32]:
        """(rows,), out of fold for training rows."""
        return _array(self.folder, split, "logit")

    def bundle_parts(self) -> Parts:
        return {part: self.folder / part for part in (parts.ENCODER, parts.ITEM_VECTORS)}


@dataclass(frozen=True, slots=True)
class RouterFiles:
    """The user groups."""

    folder: Path
    stage: ClassVar[str] = "router"

    def write(self, router: Router, groups: ItemGroups | None) -> None:
        """``groups``: of the items, None where groups are clusters of users."""
        _write_router(self.folder, router, groups)

    def router(self) -> Router:
        return Router.from_bytes((self.folder / parts.ROUTER).read_bytes())

    def item_groups(self, num_items: int) -> ItemGroups | None:
        """None where groups are clusters of users."""
        file = self.folder / parts.ITEM_GROUPS
        if not file.exists():
            return None
        return ItemGroups.from_bytes(file.read_bytes(), num_items, len(self.router().groups))


@dataclass(frozen=True, slots=True)
class ReviewsFiles:
    """Towers of the log's reviews, and the rating that they predict for rows of train and valid."""

    folder: Path
    stage: ClassVar[str] = "reviews"

    def write_towers(self, program: bytes, reviews: bytes) -> None:
        """``reviews``: the file of ``write_rated_reviews``."""
        _write(self.folder / parts.RATING_TOWERS, program)
        _write(self.folder / parts.RATED_REVIEWS, reviews)

    def rater(self) -> ReviewRatings:
        """As it is served."""
        towers, reviews = self.bundle_parts().values()
        return ReviewRatings(towers.read_bytes(), RatedReviews(reviews))

    def write_rows(self, split: Split, rating: NDArray[np.float32]) -> None:
        _write_rows(self.folder, split, rating=rating)

    def ratings(self, split: Split) -> NDArray[np.float32]:
        """(rows,) out of fold for training rows, NaN for an item that the user knows."""
        return _array(self.folder, split, "rating")

    def bundle_parts(self) -> Parts:
        made = (parts.RATING_TOWERS, parts.RATED_REVIEWS)
        return {part: self.folder / part for part in made}


@dataclass(frozen=True, slots=True)
class TreesFiles:
    """The tree ranker, and tabular features and tree logit of every row of train and valid."""

    folder: Path
    stage: ClassVar[str] = "trees"

    def write_ranker(self, onnx: bytes, item_statistics: bytes, user_model: bytes) -> None:
        _write(self.folder / parts.TREES, onnx)
        _write(self.folder / parts.ITEM_STATISTICS, item_statistics)
        _write(self.folder / parts.USER_MODEL, user_model)

    def ranker(self) -> tuple[bytes, bytes, bytes]:
        """The trees as ONNX, and the item statistics and the user model of their features."""
        trees, statistics, users = (path.read_bytes() for path in self.bundle_parts().values())
        return trees, statistics, users

    def new_tabular(self, split: Split, shape: tuple[int, int]) -> NDArray[np.float32]:
        """(rows, columns) to be written into: a file, so that memory need not hold it."""
        file = _rows_file(self.folder, split, "tabular")
        return np.lib.format.open_memmap(file, "w+", np.float32, shape)

    def write_logits(self, split: Split, tree_logits: NDArray[np.float64]) -> None:
        _write_rows(self.folder, split, tree_logits=tree_logits)

    def tabular(self, split: Split) -> NDArray[np.float32]:
        """(rows, columns)."""
        return _array(self.folder, split, "tabular")

    def tree_logits(self, split: Split) -> NDArray[np.float64]:
        """(rows,), out of fold for training rows."""
        return _array(self.folder, split, "tree_logits")

    def bundle_parts(self) -> Parts:
        made = (parts.TREES, parts.ITEM_STATISTICS, parts.USER_MODEL)
        return {part: self.folder / part for part in made}


@dataclass(frozen=True, slots=True)
class TracesFiles:
    """What the language model is taught to say about rows of the log."""

    folder: Path
    stage: ClassVar[str] = "traces"

    def write(self, said: Sequence[TaughtText], *, are_phrased: bool) -> None:
        """``are_phrased``: their sentences are those that a server offers a small decoder."""
        rows = [dataclasses.asdict(each) for each in said]
        schema = _SAID.with_metadata({_PHRASED: b"1"} if are_phrased else {})
        parquet.write_table(pa.Table.from_pylist(rows, schema), self.folder / "texts.parquet")

    @property
    def are_phrased(self) -> bool:
        metadata = parquet.read_schema(self.folder / "texts.parquet").metadata or {}
        return _PHRASED in metadata

    def read(self) -> list[TaughtText]:
        rows = parquet.read_table(self.folder / "texts.parquet").to_pylist()
        return [
            TaughtText(row["row"], row["text"], tuple(Cited(**each) for each in row["cited"]))
            for row in rows
        ]


@dataclass(frozen=True, slots=True)
class BaseFiles:
    """The base decoder, its tokenizer and the prompt."""

    folder: Path
    stage: ClassVar[str] = "base"

    def write_prompt(self, data: bytes) -> None:
        _write(self.folder / parts.PROMPT, data)

    def prompt(self) -> bytes:
        return (self.folder / parts.PROMPT).read_bytes()

    @property
    def weights(self) -> Path:
        return self.folder / parts.BASE_WEIGHTS

    def bundle_parts(self) -> Parts:
        base = (parts.BASE_CONFIG, parts.BASE_WEIGHTS, parts.BASE_TOKENIZER, parts.PROMPT)
        return {part: self.folder / part for part in base}


@dataclass(frozen=True, slots=True)
class GlobalFiles:
    """The global expert and the projector."""

    folder: Path
    stage: ClassVar[str] = "global"

    @property
    def expert(self) -> Path:
        """The folder of the expert."""
        return self.folder / GLOBAL

    def write_projector(self, data: bytes) -> None:
        _write(self.folder / parts.PROJECTOR, data)

    def projector(self) -> bytes:
        return (self.folder / parts.PROJECTOR).read_bytes()

    def bundle_parts(self) -> Parts:
        return _expert_parts(GLOBAL, self.expert) | {parts.PROJECTOR: self.folder / parts.PROJECTOR}


@dataclass(frozen=True, slots=True)
class GroupsFiles:
    """One expert for each group, and the router that is served."""

    folder: Path
    stage: ClassVar[str] = "groups"

    def expert(self, name: str) -> Path:
        """The folder of a group's expert."""
        return self.folder / name

    def write_router(self, router: Router, groups: ItemGroups | None) -> None:
        """``groups``: of the items, None where groups are clusters of users."""
        _write_router(self.folder, router, groups)

    def router(self) -> Router:
        return Router.from_bytes((self.folder / parts.ROUTER).read_bytes())

    def bundle_parts(self) -> Parts:
        routing = (parts.ROUTER, parts.ITEM_GROUPS)
        made = {part: file for part in routing if (file := self.folder / part).exists()}
        for name in self.router().groups:
            made |= _expert_parts(name, self.expert(name))
        return made


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """The sealed bundle."""

    folder: Path
    stage: ClassVar[str] = "calibrate"

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Writes parts of the bundle."""
        for part, data in contents.items():
            _write(self.folder / part, data)


def _write_router(folder: Path, router: Router, groups: ItemGroups | None) -> None:
    _write(folder / parts.ROUTER, router.to_bytes())
    if groups is not None:
        _write(folder / parts.ITEM_GROUPS, groups.to_bytes())


def _expert_parts(name: str, folder: Path) -> Parts:
    return {expert_part(name, file): folder / file for file in (CONFIG_FILE, WEIGHTS_FILE)}


def _rows_file(folder: Path, split: Split, name: str) -> Path:
    return folder / f"{split.name.lower()}-{name}.npy"


def _write_rows(folder: Path, split: Split, **arrays: NDArray[Any]) -> None:
    for name, array in arrays.items():
        np.save(_rows_file(folder, split, name), array)


def _array(folder: Path, split: Split, name: str) -> NDArray[Any]:
    """Of rows of the log. Only what is looked at is read; what is written stays in memory."""
    found: NDArray[Any] = np.load(_rows_file(folder, split, name), mmap_mode="c")
    return found
