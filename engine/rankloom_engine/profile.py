"""A user's profile: what the events before those of the prompt say, in one line of plain words.

It is made from the events alone, so it is as fresh as they are, and the same in training and in
serving. It names no title: nothing but the prompt's events may be cited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

MAX_PROFILE_EVENTS = 15  # as in ReasoningRec (arXiv 2410.23180)
MIN_LABEL_EVENTS, CLEAR_SHARE = 3, 0.7
MAX_LABELS = 3  # of either kind
JudgedLabels = tuple[Collection[str], bool]  # an item's attributes, and whether it was liked


def profile_text(opinions: Sequence[JudgedLabels]) -> str:
    """How many of the newest opinions are likes, and the attributes that are clear; may be empty.

    ``opinions``: of the events before those of the prompt, oldest first.
    """
    newest = opinions[-MAX_PROFILE_EVENTS:]
    if not newest:
        return ""
    parts = [f"Liked {sum(liked for _, liked in newest)} of {len(newest)}."]
    for word, liked in (("Likes", True), ("Dislikes", False)):
        if labels := clear_labels(newest, liked=liked)[:MAX_LABELS]:
            parts.append(f"{word} {', '.join(labels)}.")
    return " ".join(parts)


def clear_labels(opinions: Sequence[JudgedLabels], *, liked: bool) -> list[str]:
    """Attributes of MIN_LABEL_EVENTS items or more, of which CLEAR_SHARE or more were judged so.

    The clearest first; equally clear ones as they came.
    """
    judged: dict[str, list[bool]] = {}
    for labels, own in opinions:
        for label in labels:
            judged.setdefault(label, []).append(own is liked)
    shares = {
        label: sum(each) / len(each)
        for label, each in judged.items()
        if len(each) >= MIN_LABEL_EVENTS
    }
    clear = [label for label, share in shares.items() if share >= CLEAR_SHARE]
    return sorted(clear, key=lambda label: -shares[label])
