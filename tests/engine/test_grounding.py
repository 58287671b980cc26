"""Grounded decoding: what a text names stands in its prompt, whoever talks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from engine import wordy
from engine.tiny import TinyItem
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.explain import Detokenizer, SamplingParams, StopReason
from rankloom_engine.grounding import Grounder
from rankloom_engine.prompt import Prompt, PromptAssembler, PromptCandidate, PromptEvent
from rankloom_engine.runner import EngineLimits, EngineRunner

ITEMS = wordy.catalogue()
NUM_USERS, NUM_TOKENS, AT_ONCE = 2_000, 24, 200
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
NO_EXPERTS = MixtureWeights(np.zeros(0, dtype=np.float32))
BYTES = wordy.byte_level(ITEMS)
GROUNDER = Grounder(BYTES, ITEMS)
MODELS = {"llama": wordy.llama, "qwen3": wordy.qwen3}
TOKENIZERS = {"bytes": wordy.byte_level, "metaspace": wordy.metaspace}


@dataclass(frozen=True)
class WrittenText:
    """A text and the items of its prompt."""

    text: str
    items: tuple[TinyItem, ...]
    stop: StopReason


def token_of(tokenizer: Tokenizer, text: str) -> int:
    token = tokenizer.token_to_id(text)
    assert token is not None
    return int(token)


def words_in(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def names(item: TinyItem) -> tuple[str, ...]:
    return (item.title, *item.attributes)


def foreign_names(told: WrittenText) -> list[str]:
    """Catalogue titles and attributes in a text that its prompt's items do not have.

    They are found as the same words in a row, quoted or not, in any case of the letters, but a
    title of one word only as it is written. A title that stands whole within the quotes of another
    one belongs to that one.
    """
    own = {" ".join(words_in(name)).casefold() for item in told.items for name in names(item)}
    said = set(words_in(told.text.casefold()))
    return [
        name
        for item in ITEMS
        for name in names(item)
        if said.issuperset(words_in(name.casefold()))
        and " ".join(words_in(name)).casefold() not in own
        and is_named(name, item, told.text)
    ]


def is_named(name: str, item: TinyItem, text: str) -> bool:
    """Whether the words of a name stand in a row, not all of them between the same quotes."""
    tagged = [(word, n) for n, part in enumerate(text.split('"')) for word in words_in(part)]
    wanted = words_in(name)
    as_written = len(wanted) == 1 and name == item.title
    for at in range(len(tagged) - len(wanted) + 1):
        run = tagged[at : at + len(wanted)]
        parts = {part for _, part in run}
        is_within = len(parts) == 1 and min(parts) % 2 == 1
        pairs = zip(wanted, (word for word, _ in run), strict=True)
        if not is_within and all(
            one == other or (not as_written and one.casefold() == other.casefold())
            for one, other in pairs
        ):
            return True
    return False


def quotes(told: WrittenText) -> list[str]:
    """What stands between quotes, and behind a quote that is not closed."""
    return told.text.split('"')[1::2]


def wrong_numbers(told: WrittenText) -> list[str]:
    years = [item.year for item in told.items if item.year is not None]
    titles = [number for item in told.items for number in re.findall(r"\d+", item.title)]
    allowed = {*map(str, years), *(str(year // 10 * 10) for year in years), *titles}
    return [number for number in re.findall(r"\d+", told.text) if number not in allowed]


def users(num: int, seed: int = 0) -> list[tuple[list[int], list[bool], int]]:
    """Random histories and candidates, as indices of items."""
    random = np.random.default_rng(seed)
    return [
        (
            random.choice(len(ITEMS), n % (wordy.MAX_EVENTS + 1), replace=False).tolist(),
            (random.random(wordy.MAX_EVENTS) < 0.5).tolist(),
            int(random.integers(len(ITEMS))),
        )
        for n in range(num)
    ]


def prompt_of(
    assembler: PromptAssembler, history: list[int], liked: list[bool], candidate: int, seed: int
) -> Prompt:
    random = np.random.default_rng(seed)
    pairs = zip(history, liked, strict=False)
    prefix = assembler.history_prefix([PromptEvent(ITEMS[i], i, likes) for i, likes in pairs])
    return assembler.prompt(
        prefix,
        random.normal(size=wordy.LATENT).astype(np.float32),
        [PromptCandidate(ITEMS[candidate], candidate)],
        random.normal(size=(1, wordy.COLUMNS)).astype(np.float32),
    )


async def tell(
    runner: EngineRunner,
    assembler: PromptAssembler,
    grounder: Grounder | None,
    user: tuple[list[int], list[bool], int],
    seed: int,
) -> WrittenText:
    history, liked, candidate = user
    items = tuple(ITEMS[index] for index in (*history, candidate))
    guide = grounder.guide(items) if grounder else None
    text = guide or Detokenizer(assembler.tokenizer)
    written, stop = "", None
    async for chunk in runner.explain(
        prompt_of(assembler, history, liked, candidate, seed),
        NO_EXPERTS,
        liked=bool(seed % 2),
        sampling=SamplingParams(NUM_TOKENS, temperature=1.0, seed=seed),
        guide=guide,
    ):
        written += text.add(chunk.token_ids)
        stop = chunk.stop
    assert stop is not None
    return WrittenText(written + text.end(), items, stop)


async def told_by(
    folder: Path, model: str, tokenizer: str, num: int, *, grounded: bool
) -> list[WrittenText]:
    """Texts for random users, by a random decoder that was saved to disk."""
    made: Tokenizer = TOKENIZERS[tokenizer](ITEMS)
    decoder, assembler = wordy.decoder_from_disk(folder, MODELS[model], made)
    stops = {token_of(made, wordy.STOP)}
    grounder = Grounder(assembler.tokenizer, ITEMS) if grounded else None
    runner = EngineRunner(decoder, EngineLimits(), stops=stops)
    await runner.start()
    told: list[WrittenText] = []
    everyone = list(enumerate(users(num)))
    for at in range(0, num, AT_ONCE):
        tasks = [
            tell(runner, assembler, grounder, user, seed)
            for seed, user in everyone[at : at + AT_ONCE]
        ]
        told += await asyncio.gather(*tasks)
    await runner.close()
    return told


@pytest.mark.timeout(280)
async def test_two_thousand_users_are_told_of_no_other_title(tmp_path: Path) -> None:
    told = await told_by(tmp_path, "llama", "bytes", NUM_USERS, grounded=True)
    assert len(told) == NUM_USERS
    assert not [each for each in told if foreign_names(each)]
    assert not [each for each in told if wrong_numbers(each)]
    quoted = [(quote, each) for each in told for quote in quotes(each)]
    assert len(quoted) > 100
    for quote, each in quoted:
        assert quote in {item.title for item in each.items}
    assert sum(bool(each.text.strip()) for each in told) > 0.9 * NUM_USERS


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("model", MODELS)
async def test_other_models_and_tokenizers_keep_to_the_prompt(
    model: str, tokenizer: str, tmp_path: Path
) -> None:
    told = await told_by(tmp_path, model, tokenizer, 200, grounded=True)
    assert not [each for each in told if foreign_names(each) or wrong_numbers(each)]
    assert any('"' in each.text for each in told)


async def test_without_grounding_the_same_decoder_invents(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    told = await told_by(tmp_path, "llama", "bytes", 400, grounded=False)
    assert sum(bool(foreign_names(each)) for each in told) > 40
    assert sum(bool(wrong_numbers(each)) for each in told) > 40
    assert sum('"' in each.text for each in told) > 40


class Insistent:
    """Scores that want one text, and then the stop; a word that it cannot have ends it."""

    def __init__(self, tokenizer: Tokenizer, wish: str) -> None:
        self._tokenizer, self._wish, self.ids = tokenizer, wish, list[int]()
        self.stop = token_of(tokenizer, wordy.STOP)

    def scores(self) -> NDArray[np.float32]:
        random, num = np.random.default_rng(len(self.ids)), self._tokenizer.get_vocab_size()
        scores = random.normal(size=num + 7).astype(np.float32)
        scores[self.stop] = 50.0
        for token in range(num):
            text = self._tokenizer.decode([*self.ids, token])
            if self._wish.startswith(text):
                scores[token] = 100.0 + len(text)
            elif self._wish.startswith(text.rstrip(UNFINISHED)):
                scores[token] = 60.0
        return scores


def written(tokenizer: Tokenizer, items: Sequence[TinyItem], wish: str) -> str:
    """What becomes of a text that a model insists on."""
    guide, model, text = Grounder(tokenizer, ITEMS).guide(items), Insistent(tokenizer, wish), ""
    for _ in range(64):
        token = guide.choose(model.scores(), {model.stop})
        if token is None or token == model.stop:
            break
        model.ids.append(token)
        text += guide.add((token,))
    return text + guide.end()


OWN = (
    TinyItem("Last River Storm", 1987, ("War",)),
    TinyItem("Été 2", 1999, ("Drama", "Sci-Fi")),
    TinyItem("Little Unknown, The (1950)", None, ()),
)
TRUE = [
    'You liked "Last River Storm" (1987), a war film, so "Été 2" may do: a sci-fi drama.',
    "Storms of the 1980s: no last river storm, and no blue night; it is fine.",
    "the little unknown of the 1990s",
    "",
]
FALSE = [
    'You liked "Blue Storm".',  # in no prompt
    "You liked the Blue Night King, a comedy.",
    "It is of 1988.",
    "as 3 of 5 said",
    'a "Last River" in quotes',
    'open "Last River Storm and more',
    "\N{LEFT DOUBLE QUOTATION MARK}Last River Storm\N{RIGHT DOUBLE QUOTATION MARK}",
    "a children's film",
    "Last\u200bRiver",
]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_true_text_is_written_as_it_is(kind: str) -> None:
    tokenizer = TOKENIZERS[kind](ITEMS)
    for wish in TRUE:
        assert written(tokenizer, OWN, wish) == wish


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("wish", FALSE)
def test_a_false_text_becomes_another(wish: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind](ITEMS)
    text = written(tokenizer, OWN, wish)
    told = WrittenText(text, OWN, StopReason.STOP_TOKEN)
    assert wish not in text
    assert not foreign_names(told)
    assert not wrong_numbers(told)
    assert set(quotes(told)) <= {item.title for item in OWN}


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_a_text_is_only_ever_added_to(seed: int, num: int) -> None:
    """Whatever has been shown stands in the whole text, and nothing is left half said."""
    random, guide, shown = np.random.default_rng(seed), GROUNDER.guide(OWN), ""
    for _ in range(num):
        if guide.choose(random.normal(size=BYTES.get_vocab_size()), set()) is None:
            break
        shown += guide.add(())
        assert shown.count('"') % 2 == 0
    whole = shown + guide.end()
    assert whole.startswith(shown)
    assert whole.count('"') % 2 == 0
    assert not foreign_names(WrittenText(whole, OWN, StopReason.MAX_TOKENS))


def test_a_draw_is_one_from_the_allowed_tokens() -> None:
    """With noise on the scores, the best allowed token is a sample of their softmax."""
    random = np.random.default_rng(0)
    one, other = (token_of(BYTES, each) for each in ("n", "o"))
    quote = token_of(BYTES, '"')
    logits = np.full(BYTES.get_vocab_size(), -100.0)
    logits[[one, other, quote]] = 0.0, 1.0, 5.0
    drawn = [
        GROUNDER.guide(()).choose(logits + random.gumbel(size=len(logits)), set())
        for _ in range(2_000)
    ]
    assert quote not in drawn  # there is no title to put behind it
    assert drawn.count(other) / len(drawn) == pytest.approx(np.e / (1 + np.e), abs=0.03)
    assert drawn.count(one) + drawn.count(other) == len(drawn)


def test_a_text_ends_where_nothing_may_be_said() -> None:
    """Behind each word, every other one makes a title; what was begun is left out."""
    words = ["a", "Blue", "Storm", '"']
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    titles = [TinyItem(f"{one} {other}") for one in words[:3] for other in words[:3]]
    guide, scores = Grounder(tokenizer, titles).guide(()), np.arange(4.0)
    assert words[guide.choose(scores, set()) or 0] == "Storm"
    assert guide.choose(scores, set()) is not None
    assert guide.choose(scores, set()) is None
    assert guide.end() == "Storm "
