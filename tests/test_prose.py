"""The front page is short, and pages have plain words."""

import re

from tests.helpers import ROOT


FRONT = ROOT / "README.md"
DOCS = ROOT / "docs"
# Words that a sentence does without when it names the thing again.
DETOURS = re.compile(
    r"\b(that of|those of|so many|in the place of|gone on|anew)\b".replace(" ", r"\s+"), re.I
)


def test_the_front_page_is_short_and_soon_shows_an_example():
    text = FRONT.read_text(encoding="utf-8")
    before, found, _ = text.partition("```python")
    assert len(text.splitlines()) <= 120
    assert found and len(before.split()) < 150


def test_pages_say_what_they_mean_without_detours():
    pages = [FRONT, *DOCS.rglob("*.md"), *DOCS.rglob("*.py")]
    detours = {page: len(DETOURS.findall(page.read_text(encoding="utf-8"))) for page in pages}
    assert not detours[FRONT]
    assert sum(detours.values()) <= 15, {x: n for x, n in detours.items() if n}
