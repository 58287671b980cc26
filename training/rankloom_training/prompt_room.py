"""Room in the prompt for what a recipe adds to it: short texts of the items, the user's profile"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rankloom_engine.prompt import PromptFormat

ITEM_TEXT_TOKENS = 32  # the 25 words of a description, or ten keywords
PROFILE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class PromptRoom:
    """What a prompt is to have room for."""

    item_texts: bool = False
    profiles: bool = False

    def of(self, fmt: PromptFormat) -> PromptFormat:
        """A format of items' titles and labels, with that room."""
        return dataclasses.replace(
            fmt,
            max_item_tokens=fmt.max_item_tokens + ITEM_TEXT_TOKENS * self.item_texts,
            max_profile_tokens=PROFILE_TOKENS * self.profiles,
        )
