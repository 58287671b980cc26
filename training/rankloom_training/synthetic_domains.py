"""Synthetic logs of several domains, whose users behave in opposite ways: films, books and games.

Each domain has items, attributes and a style of titles of its own, and its users have a habit: how
an item that shares an attribute with the one before it is liked. Who liked a film wants more of the
same, who liked a book wants something else, and who disliked a game tries another one like it. The
log-odds of a like are the sum of LIKES, the user's level, the item's quality, the user's taste for
its attributes (± TASTE per attribute) and the habit. Each label is drawn from its probability, and
``truth.csv`` has the domain and the probability of each row. The habits differ so that an expert
for all users has to compromise: such a log proves mechanics, never accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.synthetic import write_table

SEED = 11
NUM_USERS, NUM_ITEMS = 200, 160  # of each domain
MIN_EVENTS, MAX_EVENTS = 30, 50
NUM_DAYS, LAST_JOIN_DAY = 300, 240
MIXED_SHARE = 0.15  # of the users, who take half of their items from the other domains
LIKES = 0.2  # log-odds that an average user likes an average item
TASTE = 0.7  # log-odds that a user adds for an attribute, or subtracts
QUALITY_SPREAD, LEVEL_SPREAD = 0.4, 0.3  # standard deviation over items and users, log-odds
COLUMN = "domain"  # of the item table

_FIRST = (
    *("Amber", "Bright", "Crooked", "Drowsy", "Empty", "Frozen"),
    *("Gilded", "Humble", "Iron", "Jolly", "Lonely", "Narrow"),
)
_SECOND = (
    *("Anchor", "Bridge", "Candle", "Doorway", "Engine", "Feather", "Gate"),
    *("Hammer", "Island", "Journal", "Kettle", "Ladder", "Meadow", "Needle"),
)


@dataclass(frozen=True, slots=True)
class Domain:
    """``title``: how two words become a title. ``after_like``, ``after_dislike``: log-odds that an
    item gains if it shares an attribute with the user's item before it, by what that was.
    """

    name: str
    title: str
    attributes: tuple[str, ...]
    after_like: float
    after_dislike: float


FILMS = Domain("films", "The {} {}", ("Heist", "Space", "Romance", "Western", "Satire"), 1.5, -1.5)
BOOKS = Domain("books", "A {1} for the {0}", ("Essay", "Saga", "Verse", "Memoir", "Fable"), -1.5, 0)
GAMES = Domain("games", "{0}{1} 2", ("Puzzle", "Racing", "Tactics", "Builder", "Arcade"), 0.0, 2.0)
DOMAINS = (FILMS, BOOKS, GAMES)


@dataclass(frozen=True, slots=True, eq=False)
class _Items:
    """``has``: (items, attributes) flags. ``quality``: (items,) log-odds."""

    domain: Domain
    has: NDArray[np.bool_]
    quality: NDArray[np.float64]

    @classmethod
    def drawn(cls, domain: Domain, random: np.random.Generator) -> _Items:
        """One or two attributes for each item."""
        num = len(domain.attributes)
        has = np.zeros((NUM_ITEMS, num), dtype=np.bool_)
        for row in has:
            row[random.choice(num, size=random.integers(1, 3), replace=False)] = True
        return cls(domain, has, random.normal(0.0, QUALITY_SPREAD, NUM_ITEMS))

    def id(self, index: int) -> str:
        return f"{self.domain.name}-{index:03d}"

    def habit(self, item: int, before: tuple[int, bool] | None) -> float:
        """``before``: the user's item of this domain before it, and whether it was liked."""
        if before is None or not (self.has[item] & self.has[before[0]]).any():
            return 0.0
        return self.domain.after_like if before[1] else self.domain.after_dislike


def write_domains(folder: Path, domains: Sequence[Domain], num_users: int = NUM_USERS) -> None:
    """Writes items.csv, interactions.csv and truth.csv. Equal arguments give equal bytes.

    ``num_users``: of each domain. A domain's items are the same whichever domains it is with.
    """
    items = [_Items.drawn(each, np.random.default_rng((SEED, *_code(each)))) for each in domains]
    random = np.random.default_rng((SEED, *(code for each in domains for code in _code(each))))
    rows = [
        row
        for home in range(len(items))
        for number in range(num_users)
        for row in _user(f"{items[home].domain.name}-user-{number:03d}", items, home, random)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    header = ["item_id", "title", "year", "genres", COLUMN]
    write_table(folder / "items.csv", header, [row for each in items for row in _table(each)])
    header = ["user_id", "item_id", "label", "timestamp", "position"]
    write_table(folder / "interactions.csv", header, [row[:5] for row in rows])
    header = ["user_id", "position", "group", "probability"]
    write_table(folder / "truth.csv", header, [[row[0], row[4], *row[5:]] for row in rows])


def _code(domain: Domain) -> bytes:
    return domain.name.encode()


def _table(items: _Items) -> Iterator[list[object]]:
    random = np.random.default_rng((SEED, 1, *_code(items.domain)))
    names = [items.domain.title.format(one, two) for one in _FIRST for two in _SECOND]
    random.shuffle(names)
    for index, flags in enumerate(items.has):
        own = [name for name, flag in zip(items.domain.attributes, flags, strict=True) if flag]
        year = int(random.integers(1980, 2021))
        yield [items.id(index), names[index], year, "|".join(own), items.domain.name]


def _user(
    name: str, items: Sequence[_Items], home: int, random: np.random.Generator
) -> Iterator[list[object]]:
    """Rows of user, item, label, time, position, domain and probability of a like."""
    count = int(random.integers(MIN_EVENTS, MAX_EVENTS + 1))
    days = np.sort(random.uniform(random.uniform(0, LAST_JOIN_DAY), NUM_DAYS, count))
    level = random.normal(0.0, LEVEL_SPREAD)
    tastes = [TASTE * random.choice([-1.0, 1.0], each.has.shape[1]) for each in items]
    orders = [random.permutation(NUM_ITEMS) for _ in items]
    before: dict[int, tuple[int, bool]] = {}
    visits = _visits(len(items), home, count, random)
    for position, (day, at) in enumerate(zip(days, visits, strict=True)):
        own, item = items[at], int(orders[at][position])
        odds = LIKES + level + own.quality[item] + own.has[item] @ tastes[at]
        chance = 1.0 / (1.0 + np.exp(-(odds + own.habit(item, before.get(at)))))
        before[at] = (item, bool(random.random() < chance))
        seconds, label = int(day * 86_400), int(before[at][1])
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
