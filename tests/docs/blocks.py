"""The fenced blocks of the pages that readers copy from."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED_COMMAND = re.compile(
    r"^ {4,}(?:\$ )?(?:rankloom|python|pip|scripts/\w+|git) .*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page, in the order of the page."""

    page: str
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0].strip()

    @property
    def commands(self) -> list[list[str]]:
        """The words of each ``$`` line, without comments."""
        lines = [line for line in self.text.splitlines() if line.startswith("$ ")]
        return [shlex.split(line[2:], comments=True) for line in lines]


def blocks_of(page: Path) -> list[Block]:
    name = page.relative_to(ROOT).as_posix()
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(name, match["language"], match["text"]) for match in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUNNABLE = [block for block in BLOCKS if block.language in ("console", "python")]
