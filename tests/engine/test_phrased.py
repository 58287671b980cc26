"""A phrased text is made of whole sentences, each of its own place, whatever the model prefers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rankloom_engine.phrased import NEARLY, Phraser, SentencePlace
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


def told(place: SentencePlace, wanted: str, preference: float) -> str:
    """The text of a decoder that would spell ``wanted``, by so many nats."""
    guide, text = Phraser(TOKENIZER).guide([place]), ""
    ids = TOKENIZER.encode(wanted, add_special_tokens=False).ids
    for at in range(200):
        scores = np.zeros(TOKENIZER.get_vocab_size())
        scores[STOP] = 100.0 if text else -100.0
        if at < len(ids):
            scores[ids[at]] += preference
        token = guide.choose(scores, {STOP})
        if token is None or token == STOP:
            return text
        text += guide.add((token,))
    raise AssertionError("the text has no end")


@pytest.mark.parametrize("wanted", ["It is war.", "It is blue.", "No."])
def test_the_model_chooses_the_wording(wanted: str) -> None:
    assert told(SentencePlace(("It is war.", "It is blue.", "No.")), wanted, NEARLY + 0.1) == wanted


def test_wordings_that_are_nearly_as_likely_come_in_turn_and_one_text_stays_the_same() -> None:
    """Each number makes another text, of which the decoder has one slight preference."""
    sentences = ("It is war.", "It is blue.", "No.")
    places = [SentencePlace((*sentences, f"War {number}.")) for number in range(60)]
    texts = [told(place, "It is war.", NEARLY - 0.1) for place in places]
    assert texts == [told(place, "It is war.", NEARLY - 0.1) for place in places]
    assert all(5 < texts.count(each) < 30 for each in sentences)


@pytest.mark.parametrize("score", [np.nan, -np.inf, np.inf])
def test_scores_that_say_nothing_still_give_a_sentence(score: float) -> None:
    place = SentencePlace(("It is war.", "No."), is_optional=True)
    guide, sentences = Phraser(TOKENIZER).guide([place]), ""
    scores = np.full(TOKENIZER.get_vocab_size(), score)
    while (token := guide.choose(scores, {STOP})) not in (None, STOP):
        sentences += guide.add((token or 0,))
    assert sentences in ("It is war.", "No.")


def test_a_text_ends_as_often_as_the_decoder_wants_it() -> None:
    def ends(odds: float) -> float:
        scores = np.zeros(TOKENIZER.get_vocab_size())
        scores[STOP] = np.log(odds * (len(scores) - 1))
        places = [[SentencePlace((f"Blue {number}.",), is_optional=True)] for number in range(400)]
        guides = map(Phraser(TOKENIZER).guide, places)
        return float(np.mean([guide.choose(scores, {STOP}) == STOP for guide in guides]))

    assert ends(3.0) == pytest.approx(0.75, abs=0.08)
    assert ends(1 / 3) == pytest.approx(0.25, abs=0.08)


def test_an_unfinished_sentence_is_not_told() -> None:
    guide = Phraser(TOKENIZER).guide(PLACES)
    token = guide.choose(np.zeros(TOKENIZER.get_vocab_size()), {STOP})
    assert token is not None
    assert guide.add((token,)) + guide.end() == ""


def test_without_places_there_is_nothing_to_tell() -> None:
    assert written((), 0) == ("", [])
