"""Links of the pages lead somewhere, pictures are sound, and badges say what the project says."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.blocks import PAGES, ROOT
from docs.house import PROJECT

LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(?:#[^)\s]*)?\)")
IMAGES = sorted((ROOT / "docs" / "images").glob("*.svg"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.name))
def test_pictures_have_a_title_and_load_nothing(image: Path) -> None:
    root = ElementTree.fromstring(image.read_text(encoding="utf-8"))
    assert root.find("{*}title") is not None
    assert not [each for each in root.iter() if each.tag.endswith(("}image", "}script"))]


def test_badges_say_what_the_project_says() -> None:
    badges = (ROOT / "docs" / "images" / "badges.svg").read_text(encoding="utf-8")
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", badges)
    said = dict(zip(texts[::2], texts[1::2], strict=True))
    assert said["license"] == PROJECT["license"]
    assert f">={said['python'].rstrip('+')}" == PROJECT["requires-python"]
    assert PROJECT["version"].startswith(said["status"].rstrip("x"))
