"""Explanations over the wire name only what stands in their prompt."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import islice

import grpc
import pytest

from rankloom_features.provider import UserQuery
from rankloom_proto.v1 import ranking_pb2
from server.explanations import explain, request, stubborn
from server.rankings import candidates, known_user, ranking_channel, with_options
from server.rankings import rank as rank_by
from server.served_parts import ServedParts

NUM_USERS = 12


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(stubborn(parts)[0]) as channel:
        yield channel


def own(parts: ServedParts, user: str, item_id: str) -> set[str]:
    """Numbers in the user's prompt: of titles and years."""
    catalogue = parts.loaded.catalogue
    events = parts.loaded.provider.features(UserQuery(user, None)).events[-20:]
    items = [catalogue.get(each.item_id) for each in events] + [catalogue.get(item_id)]
    years = [item.year for item in items if item and item.year]
    titles = [item.title for item in items if item]
    return {
        *map(str, years),
        *(str(year // 10 * 10) for year in years),
        *(number for title in titles for number in re.findall(r"\d+", title)),
    }


async def texts(
    channel: grpc.aio.Channel, parts: ServedParts, **options: object
) -> list[tuple[str, set[str]]]:
    """A text for each of some users, and the numbers that it may have."""
    given = {"max_tokens": 48, "temperature": 1.0, "max_evidence": 0, **options}
    found = []
    for n, user in enumerate(islice(parts.loaded.provider.events.users(), NUM_USERS)):
        item = parts.loaded.catalogue.items[n].item_id
        message = request(
            parts,
            user_id=user,
            candidate=candidates([item])[0],
            options=ranking_pb2.ExplainOptions(seed=n, **given),  # type: ignore[arg-type]
        )
        found.append(((await explain(channel, message)).text, own(parts, user, item)))
    return found


def num_foreign(found: list[tuple[str, set[str]]]) -> int:
    return sum(bool(set(re.findall(r"\d+", text)) - allowed) for text, allowed in found)


async def test_texts_name_only_titles_and_years_of_the_prompt(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    found = await texts(channel, parts)
    assert sum(bool(text.strip()) for text, _ in found) > NUM_USERS // 2
    assert num_foreign(found) == 0
    assert num_foreign(await texts(channel, parts, grounded=True)) == 0


async def test_grounding_can_be_left_out(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    assert num_foreign(await texts(channel, parts, grounded=False)) > 0


async def test_explanations_of_a_ranking_are_grounded_too(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    explaining = ranking_pb2.ExplainOptions(max_tokens=48, temperature=1.0, max_evidence=0)
    answer = await rank_by(channel, with_options(parts, explain_top_k=5, explain=explaining))
    user = known_user(parts)
    found = [(each.text, own(parts, user, each.item_id)) for each in answer.explanations]
    assert len(found) == 5
    assert num_foreign(found) == 0
