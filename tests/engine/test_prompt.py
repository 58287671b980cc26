"""Soft tokens cannot be forged by text, nor cut; text is plain text."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom_engine.errors import ModelError
from rankloom_engine.prompt import (
    Prompt,
    PromptAssembler,
    PromptCandidate,
    PromptEvent,
    PromptFormat,
    render,
)
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.embedded import (
    ASK,
    BEGIN,
    ITEM,
    NO,
    YES,
    embedded_format,
    train_tokenizer,
)

DIM, COLUMNS, NUM_ITEMS = 4, 3, 12
SPECIALS = (BEGIN, ITEM, ASK, YES, NO)
CATALOGUE = Catalogue(
    Item(f"i{n}", f"The Film No {n}", 1990 + n, ("Drama",)) for n in range(NUM_ITEMS)
)
TOKENIZER = train_tokenizer(CATALOGUE)
FORMAT = embedded_format(TOKENIZER, max_events=5)
VECTORS = np.arange(NUM_ITEMS * DIM, dtype=np.float32).reshape(NUM_ITEMS, DIM)
BUILDER = PromptAssembler(TOKENIZER, FORMAT, VECTORS)

titles = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from([*SPECIALS, "The ", "|>", "<|", "<|yes", "\u200b", "\ufeff"]), max_size=30
    ).map("".join),
)


def prompt_of(events: list[PromptEvent], candidates: list[PromptCandidate]) -> Prompt:
    vector = np.full(DIM, 7.0, dtype=np.float32)
    tabular = np.arange(len(candidates) * COLUMNS, dtype=np.float32).reshape(-1, COLUMNS)
    return BUILDER.prompt(BUILDER.history_prefix(events), vector, candidates, tabular)


@settings(max_examples=300, deadline=None)
@given(title=titles, description=titles)
def test_text_never_yields_a_structural_token(title: str, description: str) -> None:
    ids = BUILDER.text_ids(Item("x", title, None, (), description), -1)
    structural = {TOKENIZER.token_to_id(name) for name in SPECIALS}
    assert not structural & set(ids)
    assert len(ids) <= FORMAT.max_item_tokens


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(titles, min_size=1, max_size=80),
    num_events=st.integers(0, 20),
)
def test_every_slot_has_its_vector_whatever_the_text(texts: list[str], num_events: int) -> None:
    events = [
        PromptEvent(Item("e", texts[n % len(texts)]), n % NUM_ITEMS, n % 2 == 0)
        for n in range(num_events)
    ]
    candidates = [PromptCandidate(Item("c", text), -1) for text in texts]
    prompt = prompt_of(events, candidates)
    kept = min(num_events, FORMAT.max_events)
    assert prompt.num_events == kept
    assert len(prompt.candidates) == len(texts)
    # One latent slot per event and candidate, one tabular slot per candidate.
    assert len(prompt.prefix.latent_at) == len(prompt.prefix.latent) == kept
    assert not len(prompt.prefix.tabular_at)
    for own in prompt.candidates:
        assert len(own.latent_at) == len(own.latent) == len(own.tabular_at) == 1
        assert set(own.latent_at).isdisjoint(own.tabular_at)
        assert own.ids[-1] == FORMAT.ask[-1]
        # Structure is where the builder put it and nowhere else.
        assert int((own.ids == FORMAT.item[0]).sum()) == 1
        assert not np.isin(own.ids, [FORMAT.liked, FORMAT.disliked]).any()
    assert int((prompt.prefix.ids == FORMAT.item[0]).sum()) == kept
    assert int(np.isin(prompt.prefix.ids, [FORMAT.liked, FORMAT.disliked]).sum()) == kept


def test_slots_hold_the_right_vectors() -> None:
    events = [PromptEvent(CATALOGUE.items[n], n, True) for n in range(8)]
    prompt = prompt_of(events, [PromptCandidate(CATALOGUE.items[2], 2)])
    newest = zip(prompt.prefix.latent, VECTORS[3:8], strict=True)
    assert all(np.array_equal(a, b) for a, b in newest)
    (own,) = prompt.candidates
    assert np.array_equal(own.latent[0], np.full(DIM, 7.0, dtype=np.float32))  # the user
    assert np.array_equal(own.tabular[0], np.arange(COLUMNS, dtype=np.float32))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            Item("a", "Alien", 1979, ("Horror", "Space"), "In space."),
            "Alien (1979). Horror, Space. In space.",
        ),
        (Item("a", "Alien"), "Alien"),
        (Item("a", "A\x00l\u202ei\u200ben"), "A l i en"),
        (Item("a"), ""),
    ],
)
def test_rendering(item: Item, text: str) -> None:
    assert render(item) == text


def test_the_profile_is_of_the_events_before_those_of_the_prompt() -> None:
    fmt = replace(FORMAT, max_profile_tokens=40)
    builder = PromptAssembler(TOKENIZER, fmt, VECTORS)
    events = [PromptEvent(CATALOGUE.items[n], n, n < 4) for n in range(10)]
    profile = TOKENIZER.encode("Liked 4 of 5. Likes Drama.", add_special_tokens=False).ids
    later = [*events[:5], *(replace(each, liked=True) for each in events[5:])]
    for history in (events, later):
        prefix = builder.history_prefix(history)
        assert prefix.num_events == 5
        own = [*fmt.begin, *profile]
        assert prefix.prefix.ids[: len(own) + 1].tolist() == [*own, fmt.item[0]]


def test_a_user_of_few_events_has_no_profile() -> None:
    builder = PromptAssembler(TOKENIZER, replace(FORMAT, max_profile_tokens=40), VECTORS)
    events = [PromptEvent(CATALOGUE.items[n], n, True) for n in range(5)]
    plain = PromptAssembler(TOKENIZER, FORMAT, VECTORS)
    found, expected = (each.history_prefix(events).prefix.ids for each in (builder, plain))
    assert found.tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(titles, max_size=4), room=st.integers(1, 60))
def test_a_profile_stays_in_its_room_and_never_yields_a_structural_token(
    labels: list[str], room: int
) -> None:
    builder = PromptAssembler(TOKENIZER, replace(FORMAT, max_profile_tokens=room), VECTORS)
    ids = builder.opening([(labels, True)] * 5).ids.tolist()
    assert ids[0] == FORMAT.begin[0]
    assert len(ids) <= 1 + room
    assert not {TOKENIZER.token_to_id(name) for name in SPECIALS} & set(ids[1:])


def test_format_round_trip() -> None:
    assert PromptFormat.from_bytes(FORMAT.to_bytes()) == FORMAT


@pytest.mark.parametrize(
    "fields",
    [
        {"max_events": "many"},
        {"max_events": -1},
        {"max_profile_tokens": -1},
        {"max_item_tokens": 0},
        {"liked": None},
        {"marks": [[1], [2]]},
        {"marks": [1, 2, 3, 4]},
        {"is_phrased": "yes"},
        {"x": 1},
        *({name: math.inf} for name in ("liked", "disliked", "max_item_tokens", "max_events")),
        {"stop": math.inf},
        {"max_events": 10**30},
        {"disliked": -1},
        {"begin": [0, -2]},
    ],
)
def test_a_format_that_is_none_is_refused(fields: dict[str, object]) -> None:
    data = json.dumps({**json.loads(FORMAT.to_bytes()), **fields}).encode()
    with pytest.raises(ModelError, match="prompt: unreadable"):
        PromptFormat.from_bytes(data)


def test_no_prompt_of_one_candidate_is_longer_than_its_format_says() -> None:
    long = Item("long", "The Film " * 50, 1990)
    events = [PromptEvent(long, -1, liked=True)] * (FORMAT.max_events + 3)
    prompt = prompt_of(events, [PromptCandidate(long, -1)])
    assert prompt.num_tokens == FORMAT.max_tokens
