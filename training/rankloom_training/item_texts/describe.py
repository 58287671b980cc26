"""Has the texts of all items written; those that stand already stay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rankloom_features.catalogue import Catalogue
from rankloom_training.item_texts.from_catalogue import CatalogueWriter
from rankloom_training.item_texts.from_chat import ChatWriter
from rankloom_training.item_texts.item_text import ItemText
from rankloom_training.item_texts.item_text_file import read_item_texts, write_item_texts
from rankloom_training.teachers.asking import Finished, ask_all
from rankloom_training.teachers.choosing import EVIDENCE, TeacherOptions, open_chat

OnStep = Callable[[int, int], None]


def describe_items(
    catalogue: Catalogue, options: TeacherOptions, out: Path, on_step: OnStep
) -> Finished[ItemText]:
    """Writes the file ``out``, and returns what stands in it.

    If the teacher cannot go on, texts of an earlier file stay; a text that was written before in
    the same words keeps its time.
    """
    with nullcontext(None) if options.teacher == EVIDENCE else open_chat(options, out) as chat:
        writer = CatalogueWriter(catalogue.items) if chat is None else ChatWriter(chat, catalogue)
        made = ask_all(
            writer.describe,
            iter(catalogue.items),
            options.concurrency,
            lambda done: on_step(done, len(catalogue)),
        )
    texts = read_item_texts(out)
    texts |= {text.item_id: _older(texts.get(text.item_id), text) for text in made.written}
    written = tuple(texts[item.item_id] for item in catalogue.items if item.item_id in texts)
    write_item_texts(out, written)
    return Finished(written, made.stopped)


def _older(earlier: ItemText | None, text: ItemText) -> ItemText:
    """The earlier text, if the new one differs in its time alone."""
    if earlier is None or replace(text, written=earlier.written) != earlier:
        return text
    return earlier
