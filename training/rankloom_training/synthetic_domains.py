"""Synthetic logs of several domains, in which the same words mean different things.

Films, books and games have items, attributes and a style of titles of their own, but one
vocabulary: a mood that makes a film liked makes a book disliked, and means something else in games.
The log-odds of a like are the sum of LIKES, the user's level, the user's taste for the item's
attributes (± TASTE per attribute), and what the mood in its title means there. Items are many and
rows of each are few (about two for 100 users), so that words say what counts of likes do not. Each
label is drawn from its probability, and ``truth.csv`` has the domain and the probability of each
row. An expert for all domains has to compromise, by construction: such a log proves mechanics,
never accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.synthetic import write_table

SEED = 11
NUM_USERS, NUM_ITEMS = 100, 1500  # of each domain
MIN_EVENTS, MAX_EVENTS = 24, 40
NUM_DAYS, LAST_JOIN_DAY = 300, 240
MIXED_SHARE = 0.15  # of the users, who take half of their items from the other domains
LIKES = 0.1  # log-odds that an average user likes an average item
TASTE = 0.7  # log-odds that a user adds for an attribute, or subtracts
LEVEL_SPREAD = 0.3  # standard deviation over users, log-odds
COLUMN = "domain"  # of the item table

MOODS = ("Dark", "Gentle", "Grand", "Odd", "Quiet", "Wild")
_FIRST = (
    *("Amber", "Bright", "Crooked", "Drowsy", "Empty", "Frozen", "Gilded", "Humble", "Iron"),
    *("Jolly", "Lonely", "Narrow", "Orange", "Polite", "Royal", "Rusty", "Silver", "Tiny"),
    *("Upper", "Violet", "Wicked", "Young"),
)
_SECOND = (
    *("Anchor", "Bridge", "Candle", "Doorway", "Engine", "Feather", "Gate", "Hammer", "Island"),
    *("Journal", "Kettle", "Ladder", "Meadow", "Needle", "Orchard", "Pocket", "Quarry", "River"),
    *("Saddle", "Temple", "Urchin", "Valley"),
)


@dataclass(frozen=True, slots=True)
class Domain:
    """``title``: how a mood and two words become a title. ``meaning``: log-odds of each mood."""

    name: str
    title: str
    attributes: tuple[str, ...]
    meaning: tuple[float, ...]


FILMS = Domain(
    "films",
    "The {} {} {}",
    ("Heist", "Space", "Romance", "Western", "Satire"),
    (1.6, -1.6, 1.2, -1.2, 0.8, -0.8),
)
BOOKS = Domain(
    "books",
    "A {0} {2} in {1}",
    ("Essay", "Saga", "Verse", "Memoir", "Fable"),
    (-1.6, 1.6, -1.2, 1.2, -0.8, 0.8),
)
GAMES = Domain(
    "games",
    "{0} {2} {1} II",
    ("Puzzle", "Racing", "Tactics", "Builder", "Arcade"),
    (-1.2, -0.8, 1.6, 0.8, -1.6, 1.2),
)
DOMAINS = (FILMS, BOOKS, GAMES)


@dataclass(frozen=True, slots=True, eq=False)
class _Items:
    """``has``: (items, attributes) flags. ``words``: (items, 3) mood and two other words.

    ``appeal``: (items,) log-odds that the mood adds.
    """

    domain: Domain
    has: NDArray[np.bool_]
    words: NDArray[np.int64]
    appeal: NDArray[np.float64]

    @classmethod
    def of(cls, domain: Domain) -> _Items:
        """One or two attributes and a title of its own for each item, always the same ones."""
        random, num = np.random.default_rng((SEED, *domain.name.encode())), len(domain.attributes)
        has = np.zeros((NUM_ITEMS, num), dtype=np.bool_)
        for row in has:
            row[random.choice(num, size=random.integers(1, 3), replace=False)] = True
        sizes = (len(MOODS), len(_FIRST), len(_SECOND))
        drawn = random.permutation(np.prod(sizes))[:NUM_ITEMS]
        words = np.stack(np.unravel_index(drawn, sizes), axis=1)
        return cls(domain, has, words, np.array(domain.meaning)[words[:, 0]])

    def id(self, index: int) -> str:
        return f"{self.domain.name}-{index:03d}"

    def rows(self) -> Iterator[list[object]]:
        """Id, title, year, attributes and domain of each item."""
        random = np.random.default_rng(SEED)
        for index, (flags, words) in enumerate(zip(self.has, self.words, strict=True)):
            own = [name for name, flag in zip(self.domain.attributes, flags, strict=True) if flag]
            mood, first, second = words.tolist()
            title = self.domain.title.format(MOODS[mood], _FIRST[first], _SECOND[second])
            year = int(random.integers(1980, 2021))
            yield [self.id(index), title, year, "|".join(own), self.domain.name]


def write_domains(folder: Path, domains: Sequence[Domain], num_users: int = NUM_USERS) -> None:
    """Writes items.csv, interactions.csv and truth.csv. Equal arguments give equal bytes.

    ``num_users``: of each domain. A domain's items are the same whichever domains it is with.
    """
    items = [_Items.of(each) for each in domains]
    random = np.random.default_rng((SEED, *(each.name.encode()[0] for each in domains)))
    rows = [
        row
        for home in range(len(items))
        for number in range(num_users)
        for row in _user(f"{domains[home].name}-user-{number:03d}", items, home, random)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    header = ["item_id", "title", "year", "genres", COLUMN]
    write_table(folder / "items.csv", header, [row for each in items for row in each.rows()])
    header = ["user_id", "item_id", "label", "timestamp", "position"]
    write_table(folder / "interactions.csv", header, [row[:5] for row in rows])
    header = ["user_id", "position", "group", "probability"]
    write_table(folder / "truth.csv", header, [[row[0], row[4], *row[5:]] for row in rows])


def _user(
    name: str, items: Sequence[_Items], home: int, random: np.random.Generator
) -> Iterator[list[object]]:
    """Rows of user, item, label, time, position, domain and probability of a like."""
    count = int(random.integers(MIN_EVENTS, MAX_EVENTS + 1))
    days = np.sort(random.uniform(random.uniform(0, LAST_JOIN_DAY), NUM_DAYS, count))
    level = random.normal(0.0, LEVEL_SPREAD)
    tastes = [TASTE * random.choice([-1.0, 1.0], each.has.shape[1]) for each in items]
    orders = [random.permutation(NUM_ITEMS) for _ in items]
    visits = _visits(len(items), home, count, random)
    for position, (day, at) in enumerate(zip(days, visits, strict=True)):
        own, item = items[at], int(orders[at][position])
        odds = LIKES + level + own.appeal[item] + own.has[item] @ tastes[at]
        chance = 1.0 / (1.0 + np.exp(-odds))
        seconds, label = int(day * 86_400), int(random.random() < chance)
        yield [name, own.id(item), label, seconds, position, own.domain.name, f"{chance:.6f}"]


def _visits(
    num_domains: int, home: int, count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """(count,) the domain of each of a user's events."""
    others = [each for each in range(num_domains) if each != home]
    visits = np.full(count, home)
    if others and random.random() < MIXED_SHARE:
        away = random.random(count) < 0.5
        visits[away] = random.choice(others, int(away.sum()))
    return visits
