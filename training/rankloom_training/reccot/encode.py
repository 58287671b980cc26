"""From reviews and rationales to a text encoder and the vectors of all reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.encoder import TextEncoder
from rankloom_training.reccot.rationale_file import ReviewRationale, text_digest
from rankloom_training.reccot.vector_store import VectorKey, VectorStore

AT_ONCE = 256
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
        part = rows[start : start + AT_ONCE]
        found[part] = _vectors(
            [_key(reviews, row, texts[row], encoder) for row in part.tolist()],
            [texts[row] for row in part.tolist()],
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
    made = encoder.encode([texts[at] for at in missing]) if missing else np.zeros((0, encoder.dim))
    if missing:
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
