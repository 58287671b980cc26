from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from rankloom_engine.packing import PackedRow, Segment
from rankloom_engine.prompt import PromptAssembler, PromptCandidate, PromptEvent
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.embedded import embedded_format, train_tokenizer
from rankloom_training.prompt_room import PromptRoom
from rankloom_training.visibility import Protocol, View, scoring_view, training_views
from rankloom_training.windows import MAX_TARGETS, Inputs, Window, WindowMaker, batches
from rankloom_training.words import Words

MAX_EVENTS, DIM, COLUMNS, MAX_USERS = 10, 3, 2, 30
SEED = 2


@pytest.fixture(scope="session", params=[False, True], ids=["plain", "profiles"])
def builder(dataset: Dataset, request: pytest.FixtureRequest) -> PromptAssembler:
    tokenizer = train_tokenizer(dataset.catalogue)
    vectors = np.random.default_rng(0).normal(size=(len(dataset.catalogue), DIM))
    fmt = PromptRoom(profiles=request.param).of(embedded_format(tokenizer, MAX_EVENTS))
    return PromptAssembler(tokenizer, fmt, vectors.astype(np.float32))


def views(log: Interactions) -> Iterator[View]:
    """Training and scoring views of both protocols, of the users with most rows."""
    most = np.argsort(-np.bincount(log.user))[:MAX_USERS]
    for protocol in Protocol:
        scored = scoring_view(log, protocol, Split.TEST)
        for view in (*training_views(log, protocol, SEED), scored):
            yield View(view.rows[np.isin(log.user[view.rows], most)], view.cutoff)


def inputs_of(view: View) -> Inputs:
    random, num = np.random.default_rng(SEED), len(view.rows)
    vector, tabular = random.normal(size=(num, DIM)), random.normal(size=(num, COLUMNS))
    return Inputs(view, vector.astype("f4"), tabular.astype("f4"), random.normal(size=num))


def part(packed: PackedRow, positions: np.ndarray) -> tuple[list[int], list[bytes], list[bytes]]:
    """Ids and soft tokens at ascending positions of a packed row."""
    tokens = packed.tokens
    latent = zip(tokens.latent_at, tokens.latent, strict=True)
    tabular = zip(tokens.tabular_at, tokens.tabular, strict=True)
    return (
        tokens.ids[positions].tolist(),
        [vector.tobytes() for at, vector in latent if at in positions],
        [row.tobytes() for at, row in tabular if at in positions],
    )


def whole(segment: Segment) -> tuple[list[int], list[bytes], list[bytes]]:
    return (
        segment.ids.tolist(),
        [vector.tobytes() for vector in segment.latent],
        [row.tobytes() for row in segment.tabular],
    )


def check_candidate(
    dataset: Dataset, builder: PromptAssembler, inputs: Inputs, window: Window, number: int
) -> None:
    """Compares one candidate of a window with the prompt of that row alone."""
    log, items, packed = dataset.log, dataset.catalogue.items, window.packed
    index = int(window.rows[number])
    row = int(inputs.view.rows[index])
    own = np.flatnonzero(packed.block == number + 1)
    seen = int(packed.visible[own[0]])
    assert set(packed.visible[own].tolist()) == {seen}
    assert packed.position[own].tolist() == list(range(seen, seen + len(own)))
    assert packed.read_at[number] == own[-1]
    prefix = part(packed, np.arange(seen))
    num_seen, visible = len(prefix[1]), inputs.view.visible_before(log, row)
    assert num_seen == len(visible) or MAX_EVENTS // 2 <= num_seen <= MAX_EVENTS
    recent = [int(other) for other in visible[len(visible) - num_seen :]]
    earlier = [int(other) for other in visible[: len(visible) - num_seen]]
    before, events = (
        [PromptEvent(items[log.item[o]], int(log.item[o]), bool(log.liked[o])) for o in rows]
        for rows in (earlier, recent)
    )
    assert prefix == whole(builder.prefix(events, before))
    candidate = PromptCandidate(items[log.item[row]], int(log.item[row]))
    alone = builder.candidate(candidate, inputs.vector[index], inputs.tabular[index])
    assert part(packed, own) == whole(alone)
    assert window.label[number] == log.liked[row]
    assert window.tree_logits[number] == np.float32(inputs.tree_logits[index])


def test_each_row_is_in_one_window_and_sees_its_own_prompt(
    dataset: Dataset, builder: PromptAssembler
) -> None:
    maker = WindowMaker(dataset.log, dataset.catalogue, builder)
    random = np.random.default_rng(0)
    for view in views(dataset.log):
        inputs = inputs_of(view)
        windows = maker.windows(inputs)
        covered = np.concatenate([window.rows for window in windows])
        assert np.sort(covered).tolist() == list(range(len(view.rows)))
        for index in random.permutation(len(windows))[:60]:
            window = windows[index]
            assert 1 <= len(window.rows) <= MAX_TARGETS
            assert len(np.unique(dataset.log.user[view.rows[window.rows]])) == 1
            for number in range(len(window.rows)):
                check_candidate(dataset, builder, inputs, window, number)


def test_a_view_without_rows_has_no_windows(dataset: Dataset, builder: PromptAssembler) -> None:
    maker = WindowMaker(dataset.log, dataset.catalogue, builder)
    nothing = View(np.zeros(0, np.int64), dataset.log.start)
    assert maker.windows(inputs_of(nothing)) == []


@pytest.mark.parametrize("max_tokens", [1, 500, 10**6])
def test_batches_hold_each_window_once_within_their_budget(
    dataset: Dataset, builder: PromptAssembler, max_tokens: int
) -> None:
    view = next(views(dataset.log))
    windows = WindowMaker(dataset.log, dataset.catalogue, builder).windows(inputs_of(view))[:80]
    made = batches(windows, max_tokens, np.random.default_rng(0))
    found = Counter(id(window) for batch in made for window in batch)
    assert found == Counter(id(window) for window in windows)
    for batch in made:
        assert len(batch) == 1 or sum(len(w.packed) for w in batch) <= max_tokens


def test_words_stand_behind_the_verdict_of_their_row_and_are_read_before_each(
    dataset: Dataset, builder: PromptAssembler
) -> None:
    log, view = dataset.log, next(views(dataset.log))
    inputs = inputs_of(view)
    said = {int(row): Words((5, 6), (7, 8, 9), frozenset()) for row in view.rows[::3]}
    plain = WindowMaker(log, dataset.catalogue, builder).windows(inputs)
    taught = WindowMaker(log, dataset.catalogue, builder, said).windows(inputs)
    assert sum(len(window.words) for window in taught) == 3 * len(said)
    for with_words, without in zip(taught, plain, strict=True):
        num_rows = len(with_words.rows)
        ids, reads = with_words.packed.tokens.ids, with_words.packed.read_at
        assert len(reads) == num_rows + len(with_words.words)
        # Verdicts are read at the same tokens and positions as without words.
        at, plain_at = reads[:num_rows], without.packed.read_at
        assert ids[at].tolist() == without.packed.tokens.ids[plain_at].tolist()
        verdicts = np.where(with_words.label > 0, builder.format.liked, builder.format.disliked)
        told = np.unique(with_words.word_of)
        assert ids[at[told] + 1].tolist() == verdicts[told].tolist()
        place, plain_place = with_words.packed.position, without.packed.position
        assert place[at].tolist() == plain_place[plain_at].tolist()
        for read, word, row in zip(
            reads[num_rows:], with_words.words, with_words.word_of, strict=True
        ):
            before = {7: 6, 8: 7, 9: 8}[int(word)]
            assert (ids[read], with_words.packed.block[read]) == (before, row + 1)
