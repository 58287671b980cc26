"""A verdict is Yes or No, alone at the start; letters inside of words are none."""

from __future__ import annotations

import pytest

from rankloom_training.reasons.verdicts import split_verdict


@pytest.mark.parametrize(
    ("text", "verdict", "rest"),
    [
        ("Yes. You liked it.", True, "You liked it."),
        ("No, since it is long.", False, "since it is long."),
        ("  Yes\nBecause.", True, "Because."),
        ("**No.** Too long.", False, "Too long."),
        ("**Yes** - a hit", True, "a hit"),
        ("No", False, ""),
        ("Yes: fine", True, "fine"),
    ],
)
def test_a_verdict_at_the_start_is_read(text: str, verdict: bool, rest: str) -> None:
    assert split_verdict(text) == (verdict, rest)


@pytest.mark.parametrize(
    "text",
    [
        *("Not really.", "Now, this is good.", "Know that.", "Nothing. No.", "Yesterday. Yes."),
        *("No doubt you will like it.", "Yes and no.", "The answer is Yes.", "yes.", "", "NO."),
    ],
)
def test_other_beginnings_are_no_verdict(text: str) -> None:
    assert split_verdict(text) == (None, text.strip())
