"""A phrased text is made of whole sentences, each of its own place, whatever the model prefers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rankloom_engine.phrased import Phraser, SentencePlace
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.embedded import train_tokenizer

ITEMS = [
    Item(f"i{n}", f"The Last {word}", None, ("War",)) for n, word in enumerate(("Été", "Night"))
]
TOKENIZER = train_tokenizer(Catalogue(ITEMS), ['You liked "The Last Night" so it is blue.'] * 3)
STOP = 0
PLACES = (
    SentencePlace(('You liked "The Last Été".', 'You liked "The Last Été" a lot.', "Été? Yes.")),
    SentencePlace(("It is a war drama.", "It is war."), is_optional=True),
    SentencePlace(("No 漢字 or 😀 here.", "Blue.", "Blue night."), is_optional=False),
    SentencePlace(("So yes.", "Yes."), is_optional=True),
)


def written(places: Sequence[SentencePlace], seed: int, stop: float = 0.0) -> tuple[str, list[int]]:
    """The text of a decoder of random preferences; ``stop``: how much it wants to stop."""
    random, guide = np.random.default_rng(seed), Phraser(TOKENIZER).guide(places)
    ids, text = list[int](), ""
    for _ in range(200):
        scores = random.normal(size=TOKENIZER.get_vocab_size())
        scores[STOP] += stop
        token = guide.choose(scores, {STOP})
        if token is None or token == STOP:
            return text + guide.end(), ids
        ids.append(token)
        text += guide.add((token,))
    raise AssertionError("the text has no end")


@pytest.mark.parametrize("seed", range(40))
def test_a_text_has_a_whole_sentence_at_each_place(seed: int) -> None:
    text, ids = written(PLACES, seed)
    assert TOKENIZER.decode(ids) == text
    for place in PLACES:
        found = [each for each in place.sentences if text.startswith(each)]
        if not found:
            assert place.is_optional
            continue
        text = text.removeprefix(max(found, key=len)).removeprefix(" ")
    assert not text


def test_it_ends_only_where_no_further_sentence_must_stand() -> None:
    texts = {written(PLACES, seed, stop=100.0)[0] for seed in range(60)}
    first = set(PLACES[0].sentences)
    assert all(any(text.startswith(each) for each in first) for text in texts)
    assert all(text.endswith(("here.", "Blue.", "night.")) for text in texts)
    assert len(texts) > 4


def test_the_model_chooses_the_wording() -> None:
    places = [SentencePlace(("It is war.", "It is blue.", "No."))]
    for wanted in places[0].sentences:
        guide, text = Phraser(TOKENIZER).guide(places), ""
        for token in TOKENIZER.encode(wanted, add_special_tokens=False).ids:
            scores = np.zeros(TOKENIZER.get_vocab_size())
            scores[token] = 1.0
            assert guide.choose(scores, {STOP}) == token
            text += guide.add((token,))
        assert text == wanted


def test_an_unfinished_sentence_is_not_told() -> None:
    guide = Phraser(TOKENIZER).guide(PLACES)
    token = guide.choose(np.zeros(TOKENIZER.get_vocab_size()), {STOP})
    assert token is not None
    assert guide.add((token,)) + guide.end() == ""


def test_without_places_there_is_nothing_to_tell() -> None:
    assert written((), 0) == ("", [])
