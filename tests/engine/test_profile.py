from __future__ import annotations

import pytest

from rankloom_engine.profile import MAX_PROFILE_EVENTS, JudgedLabels, clear_labels, profile_text

DRAMA: tuple[str, ...] = ("Drama",)
NOIR: tuple[str, ...] = ("Noir", "Drama")


@pytest.mark.parametrize(
    ("opinions", "text"),
    [
        ([], ""),
        ([(DRAMA, True), (NOIR, False)], "Liked 1 of 2."),
        ([(DRAMA, True)] * 3, "Liked 3 of 3. Likes Drama."),
        ([(NOIR, False)] * 3 + [((), True)], "Liked 1 of 4. Dislikes Noir, Drama."),
        # Of Drama 7 of 10 were liked, which is clear; of Noir 2 of 3 disliked, which is not.
        (
            [(DRAMA, True)] * 6 + [(NOIR, True)] + [(NOIR, False)] * 2 + [(DRAMA, False)],
            "Liked 7 of 10. Likes Drama.",
        ),
    ],
)
def test_a_profile_says_what_the_opinions_prove(opinions: list[JudgedLabels], text: str) -> None:
    assert profile_text(opinions) == text


def test_it_is_of_the_newest_opinions() -> None:
    newest: list[JudgedLabels] = [(DRAMA, False)] * MAX_PROFILE_EVENTS
    assert profile_text([(NOIR, True)] * 40 + newest) == profile_text(newest)


def test_the_clearest_label_comes_first() -> None:
    opinions: list[JudgedLabels] = [*[(NOIR, True)] * 3, (DRAMA, False)]
    assert clear_labels(opinions, liked=True) == ["Noir", "Drama"]
    assert clear_labels(opinions, liked=False) == []
