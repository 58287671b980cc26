"""From reviews and rationales to a text encoder and the vectors of all reviews."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import DataError, Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.progress import Progress
from rankloom_training.reccot.alignment import AlignmentOptions, RatedTexts, align
from rankloom_training.reccot.encoder import (
    PROGRAM,
    SETTINGS,
    TOKENIZER,
    TextEncoder,
    write_encoder,
)
from rankloom_training.reccot.rationale_file import ReviewRationale, rationales_of, text_digest
from rankloom_training.reccot.steps import Steps
from rankloom_training.reccot.text_model import open_text_model, small_text_model
from rankloom_training.reccot.tower_rows import with_ratings
from rankloom_training.reccot.vector_store import VectorKey, VectorStore
from rankloom_training.stages.workspace import Workspace

AT_ONCE = 256
RATIONALES, MADE = "rationales.parquet", "alignment.json"
MADE_FROM = "made_from"
OnStep = Callable[[int, int], None]
Rationales = Sequence[ReviewRationale] | None


def encoder_texts(reviews: Reviews, rationales: Rationales) -> list[str]:
    """What the text encoder reads of each row: the review, then its rationale.

    The rationale is announced as possibly wrong, as in the paper. Empty for a row without review.
    """
    if rationales is None:
        return list(reviews.texts)
    return [
        f"{text}\nPerhaps: {rationale.text}" if text and rationale.text else text
        for text, rationale in zip(reviews.texts, rationales, strict=True)
    ]


def _read_rationales(path: Path, reviews: Reviews) -> Sequence[ReviewRationale]:
    """Raises DataError, also where none can be read: the encoder would learn reviews alone."""
    found = rationales_of(path, reviews)
    if not any(each.text for each in found):
        raise DataError(f"{path}: none of its rationales is sound; write them anew")
    return found


def spoken_rows(reviews: Reviews, split: Split) -> NDArray[np.int64]:
    """(n,) the rows of a split that have a review."""
    rows = reviews.rows(split)
    return rows[reviews.has_text[rows]]


def review_vectors(
    reviews: Reviews,
    texts: Sequence[str],
    encoder: TextEncoder,
    store: VectorStore,
    on_step: OnStep,
) -> NDArray[np.float32]:
    """(rows, dim) from the store where it has them; new ones are stored as they are made.

    Rows without text have zeros.
    """
    found = np.zeros((len(texts), encoder.dim), dtype=np.float32)
    rows = np.flatnonzero(np.array([bool(text) for text in texts]))
    for start in range(0, len(rows), AT_ONCE):
        part: list[int] = rows[start : start + AT_ONCE].tolist()
        found[part] = _vectors(
            [_key(reviews, row, texts[row], encoder) for row in part],
            [texts[row] for row in part],
            encoder,
            store,
        )
        on_step(start + len(part), len(rows))
    return found


def _vectors(
    keys: Sequence[VectorKey], texts: Sequence[str], encoder: TextEncoder, store: VectorStore
) -> NDArray[np.float32]:
    known = store.get(keys)
    missing = [at for at, vector in enumerate(known) if vector is None]
    made = encoder.encode([texts[at] for at in missing])
    store.put([keys[at] for at in missing], made)
    new = iter(made)
    return np.stack([next(new) if vector is None else vector for vector in known])


def _key(reviews: Reviews, row: int, text: str, encoder: TextEncoder) -> VectorKey:
    return VectorKey(
        reviews.user_ids[reviews.user[row]],
        reviews.catalogue.items[reviews.item[row]].item_id,
        encoder.version,
        text_digest(text),
    )


def store_path(folder: Path) -> Path:
    """The store of an encoder's folder."""
    return folder / "vectors.sqlite"


@dataclass(frozen=True, slots=True)
class Encoded:
    """``version``: of the encoder. ``mse``: of ratings from validation vectors.
    ``hit_rate``: share of the vectors that the store had.
    """

    version: str
    mse: float
    num_vectors: int
    hit_rate: float


def encode(
    reviews: Reviews,
    rationales: Path | None,
    base: str | None,
    options: AlignmentOptions,
    out: Path,
    max_bytes: int,
    progress: Progress,
) -> Encoded:
    """Fills ``out`` with the encoder, the rationales that it reads, and the store of vectors.

    ``base``: a pretrained text encoder; None for a small one made on the spot. An encoder that
    ``out`` has already, made from the same, is kept. Raises DataError or TextModelError.
    """
    texts = encoder_texts(reviews, _read_rationales(rationales, reviews) if rationales else None)
    digest = text_digest("\0".join((reviews.digest(), *texts)))
    steps = Steps(Workspace(out.with_name(f"{out.name}.work")), digest)

    def fill(folder: Path, _: Path) -> None:
        mse = train_encoder(reviews, texts, base, options, folder, progress)
        (folder / MADE).write_text(json.dumps({"mse": mse}))
        if rationales:
            shutil.copy(rationales, folder / RATIONALES)

    with steps.workspace.begun():
        made = steps.folder("encoder", asdict(options) | {"base": base}, fill)
        out.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():
            shutil.copy(file, out / file.name)
        return _store(reviews, texts, out, max_bytes, progress)


def train_encoder(
    reviews: Reviews,
    texts: Sequence[str],
    base: str | None,
    options: AlignmentOptions,
    folder: Path,
    progress: Progress,
) -> float:
    """Trains on training reviews alone and writes the encoder; returns the error on validation."""
    training, validation = (
        RatedTexts([texts[int(row)] for row in rows], reviews.rating[rows])
        for rows in (spoken_rows(reviews, Split.TRAIN), spoken_rows(reviews, Split.VALID))
    )
    model = open_text_model(base) if base else small_text_model(training.texts, options.seed)
    with progress.stage("encoder"):
        mse = align(model, training, validation, options, progress.step)
        write_encoder(folder, model)
    return mse


def texts_of(reviews: Reviews, folder: Path) -> list[str]:
    """What the encoder in ``folder`` reads of each row. Raises DataError."""
    rationales = folder / RATIONALES
    known = rationales_of(rationales, reviews) if rationales.exists() else None
    return encoder_texts(reviews, known)


def open_vectors(
    reviews: Reviews, folder: Path, max_bytes: int, on_step: OnStep
) -> NDArray[np.float32]:
    """(rows, dim + 1) what towers read of reviews, from what ``encode`` wrote.

    Vectors that the store lost are made again.
    """
    texts, encoder = texts_of(reviews, folder), TextEncoder(folder)
    with closing(VectorStore(store_path(folder), max_bytes)) as store:
        vectors = review_vectors(reviews, texts, encoder, store, on_step)
    return with_ratings(vectors, reviews.rating)


def encoder_digest(folder: Path) -> str:
    """SHA-256 of what ``open_vectors`` reads there; of nothing where it is not there."""
    total = sha256()
    for name in (PROGRAM, TOKENIZER, SETTINGS, RATIONALES):
        data = (folder / name).read_bytes() if (folder / name).is_file() else b""
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def towers_made_from(reviews: Reviews, encoder: Path) -> dict[str, str]:
    """What a report of towers says of what they were trained on, under ``MADE_FROM``."""
    return {"encoder": encoder_digest(encoder), "reviews": reviews.digest()}


def _store(
    reviews: Reviews, texts: Sequence[str], out: Path, max_bytes: int, progress: Progress
) -> Encoded:
    encoder = TextEncoder(out)
    with closing(VectorStore(store_path(out), max_bytes)) as store, progress.stage("vectors"):
        review_vectors(reviews, texts, encoder, store, progress.step)
        asked = store.hits + store.misses
        mse = json.loads((out / MADE).read_text())["mse"]
        return Encoded(encoder.version, mse, asked, store.hit_rate)
