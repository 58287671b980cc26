"""Synthetic data for the demonstration: invented films, and users of three taste groups.

Each user belongs to one group of GROUPS. The log-odds of a like are the sum of LIKES, the
user's level, the film's quality, and the group's taste for the film's genres (± TASTE per
genre). Films are drawn by popularity, without repetition. Each label is drawn from its
probability, so the best possible AUC is known: ``truth.csv`` has the group and the
probability of each row. The constants describe a plausible small service; no model's
result was used to choose them.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 7
NUM_USERS, NUM_ITEMS = 480, 240
MIN_EVENTS, MAX_EVENTS = 25, 60
NUM_DAYS, LAST_JOIN_DAY = 300, 240
LIKES = 0.2  # log-odds that an average user likes an average film
TASTE = 1.5  # log-odds that a group adds for a genre it loves, or subtracts for one it avoids
QUALITY_SPREAD, LEVEL_SPREAD = 0.5, 0.3  # standard deviation over films and users, log-odds

GENRES = ("Heist", "Space", "Romance", "Western", "Haunting", "Satire", "Voyage", "Courtroom")
# Group → the genres that it loves, and the genres that it avoids.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "thrill": (("Heist", "Space", "Haunting"), ("Romance", "Satire")),
    "heart": (("Romance", "Voyage", "Western"), ("Haunting", "Heist")),
    "mind": (("Satire", "Courtroom", "Space"), ("Western", "Voyage")),
}
_ADJECTIVES = (
    "Silent",
    "Crimson",
    "Last",
    "Broken",
    "Golden",
    "Hidden",
    "Endless",
    "Paper",
    "Winter",
    "Glass",
    "Distant",
    "Burning",
    "Quiet",
    "Second",
    "Hollow",
    "Velvet",
)
_NOUNS = (
    "Harbor",
    "Orchard",
    "Signal",
    "Ledger",
    "Lantern",
    "Frontier",
    "Mirror",
    "Verdict",
    "Garden",
    "Comet",
    "Cellar",
    "Parade",
    "Compass",
    "Station",
    "Promise",
    "River",
)
_SCENES = {
    "Heist": "Final robbery",
    "Space": "Distant stars",
    "Romance": "Summer strangers",
    "Western": "Dusty town",
    "Haunting": "Restless house",
    "Satire": "Earnest office",
    "Voyage": "Torn map",
    "Courtroom": "Young lawyer",
}  # fmt: skip


def write_synthetic(folder: Path) -> None:
    """Writes items.csv, interactions.csv and truth.csv. The bytes are the same every time."""
    random = np.random.default_rng(SEED)
    genres = _draw_genres(random)
    quality = random.normal(0.0, QUALITY_SPREAD, NUM_ITEMS)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "items.csv", ["item_id", "title", "year", "genres", "description"],
           _items(genres, random))  # fmt: skip
    rows = list(_interactions(genres, quality, random))
    header = ["user_id", "item_id", "label", "timestamp", "position"]
    write_table(folder / "interactions.csv", header, [row[:5] for row in rows])
    header = ["user_id", "position", "group", "probability"]
    write_table(folder / "truth.csv", header, [[row[0], row[4], *row[5:]] for row in rows])


def read_truth(folder: Path) -> dict[tuple[str, int], tuple[str, float]]:
    """(user id, position) → (group, probability of a like). Empty if there is no truth.csv."""
    path = folder / "truth.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["user_id"], int(row["position"])): (row["group"], float(row["probability"]))
            for row in csv.DictReader(file)
        }


def _draw_genres(random: np.random.Generator) -> NDArray[np.bool_]:
    """(films, genres) flags: one or two genres per film."""
    flags = np.zeros((NUM_ITEMS, len(GENRES)), dtype=np.bool_)
    for row in flags:
        row[random.choice(len(GENRES), size=random.integers(1, 3), replace=False)] = True
    return flags


def _items(genres: NDArray[np.bool_], random: np.random.Generator) -> list[list[object]]:
    names = [f"The {one} {two}" for one in _ADJECTIVES for two in _NOUNS]
    random.shuffle(names)
    years = random.integers(1960, 2021, NUM_ITEMS)
    rows: list[list[object]] = []
    for index, flags in enumerate(genres):
        own = [name for name, flag in zip(GENRES, flags, strict=True) if flag]
        rows.append(
            [f"film-{index:03d}", names[index], years[index], "|".join(own), _SCENES[own[0]]]
        )
    return rows


def _interactions(
    genres: NDArray[np.bool_], quality: NDArray[np.float64], random: np.random.Generator
) -> list[list[object]]:
    """Rows of user, film, label, time, position, group and probability of a like."""
    names = list(GROUPS)
    popularity = np.exp(0.5 * random.normal(size=NUM_ITEMS) + 0.3 * quality)
    popularity /= popularity.sum()
    rows: list[list[object]] = []
    for user in range(NUM_USERS):
        group = names[int(random.integers(len(names)))]
        level = random.normal(0.0, LEVEL_SPREAD)
        count = int(random.integers(MIN_EVENTS, MAX_EVENTS + 1))
        items = random.choice(NUM_ITEMS, size=count, replace=False, p=popularity)
        joined = random.uniform(0, LAST_JOIN_DAY)
        days = np.sort(random.uniform(joined, NUM_DAYS, count))
        odds = LIKES + level + quality[items] + genres[items] @ _taste(group)
        chance = 1.0 / (1.0 + np.exp(-odds))
        liked = random.random(count) < chance
        rows += [
            [f"user-{user:03d}", f"film-{item:03d}", int(label), int(day * 86_400), position, group,
             f"{p:.6f}"]
            for position, (item, label, day, p) in enumerate(
                zip(items, liked, days, chance, strict=True)
            )
        ]  # fmt: skip
    return rows


def _taste(group: str) -> NDArray[np.float64]:
    """(genres,) log-odds that the group adds for each genre of a film."""
    loved, avoided = GROUPS[group]
    return np.array([TASTE * ((g in loved) - (g in avoided)) for g in GENRES])


def write_table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """Writes a CSV file with plain line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
