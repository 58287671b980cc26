"""Reviews of the synthetic films: what a user says follows from the user's taste.

The rating comes from the log-odds of a like that ``synthetic`` plants, with noise, cut so that most
are 5, as in real sets. The text speaks of each genre that the user's group loves or avoids, in
words that do not name it, and of the film's quality; each sentence is said or left out by chance.
So the text knows causes of the rating, and says something of the user's next one.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from rankloom_training.synthetic import (
    GROUPS,
    NUM_USERS,
    read_truth,
    write_synthetic,
    write_table,
)

SEED = 17
NOISE = 0.7  # standard deviation of the opinion on one film, log-odds
SHARES = (0.07, 0.06, 0.11, 0.21)  # of the ratings 1 to 4; the rest is 5
SAID = 0.7  # chance that a sentence is said

_PRAISE = {
    "Heist": ("The plan clicks like a lock.", "Every double cross surprised me."),
    "Space": ("The void between planets took my breath.", "Such wonder in orbit."),
    "Romance": ("Their first kiss made me weep.", "I believed every tender glance."),
    "Western": ("The duel at noon is superb.", "I could smell the saddle leather."),
    "Haunting": ("I slept with the light on.", "The whispers in the attic chilled me."),
    "Satire": ("I laughed at every jab.", "Its mockery is razor sharp."),
    "Voyage": ("I wanted to sail with them.", "Each port was an adventure."),
    "Courtroom": ("The final plea is gripping.", "The cross examination is brilliant."),
}
_BLAME = {
    "Heist": ("The vault business bored me.", "Thieves again, who cares."),
    "Space": ("Endless rockets left me cold.", "All that starlight is tedious."),
    "Romance": ("The kisses made me cringe.", "Too much sighing and swooning."),
    "Western": ("Horses and dust sent me to sleep.", "One more tired gunfight."),
    "Haunting": ("The ghosts are silly.", "Creaking doors annoy me."),
    "Satire": ("The jokes are smug.", "I missed anyone sincere."),
    "Voyage": ("The journey drags on and on.", "I was seasick with boredom."),
    "Courtroom": ("The legal talk is dry.", "Objection after objection, yawn."),
}
_FINE = ("Beautifully made.", "The acting shines.", "A careful, rich picture.")
_POOR = ("Badly made.", "The acting is wooden.", "A careless, cheap picture.")
_PLAIN = ("Saw it last night.", "My sister lent it to me.", "It came in the mail.", "So, this one.")
_CLEAR_QUALITY = 0.25  # log-odds from which a film's quality is spoken of


def write_reviews(folder: Path, num_users: int = NUM_USERS) -> None:
    """Writes what ``write_synthetic`` writes, with rating and text in place of the label.

    Equal arguments give equal bytes. ``num_users``: the log has the first so many users alone.
    """
    write_synthetic(folder)
    genres = {row["item_id"]: tuple(row["genres"].split("|")) for row in _rows(folder, "items")}
    log, truth = _rows(folder, "interactions"), read_truth(folder)
    planted = [truth[row["user_id"], int(row["position"])] for row in log]
    odds = np.array([math.log(chance / (1.0 - chance)) for _, chance in planted])
    random = np.random.default_rng(SEED)
    opinion = odds + random.normal(0.0, NOISE, len(odds))
    rating = 1 + np.searchsorted(np.quantile(opinion, np.cumsum(SHARES)), opinion)
    quality = _quality(log, odds)
    header = ["user_id", "item_id", "rating", "timestamp", "position", "text"]
    write_table(folder / "interactions.csv", header, [
        [row["user_id"], row["item_id"], int(stars), row["timestamp"], row["position"],
         _text(genres[row["item_id"]], group, quality[row["item_id"]], random)]
        for row, stars, (group, _) in zip(log, rating, planted, strict=True)
        if row["user_id"] < f"user-{num_users:03d}"
    ])  # fmt: skip


def _rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _quality(
    log: list[dict[str, str]], odds: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> dict[str, float]:
    """Film → how much better than the average film its users like it, log-odds."""
    by_film: dict[str, list[float]] = {}
    for row, value in zip(log, odds.tolist(), strict=True):
        by_film.setdefault(row["item_id"], []).append(value)
    return {film: float(np.mean(values) - odds.mean()) for film, values in by_film.items()}


def _text(genres: tuple[str, ...], group: str, quality: float, random: np.random.Generator) -> str:
    loved, avoided = GROUPS[group]
    choices: list[tuple[str, ...]] = [_PRAISE[genre] for genre in genres if genre in loved]
    choices += [_BLAME[genre] for genre in genres if genre in avoided]
    if abs(quality) > _CLEAR_QUALITY:
        choices.append(_FINE if quality > 0 else _POOR)
    said = [str(random.choice(each)) for each in choices if random.random() < SAID]
    return " ".join(said or [str(random.choice(_PLAIN))])
