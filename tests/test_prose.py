"""What a reader is asked to read: the length of the front page and of all pages, and plain
words."""

import re

from tests.helpers import ROOT


FRONT = ROOT / "README.md"
DOCS = ROOT / "docs"
# Words that a sentence does without when it names the thing again.
DETOURS = re.compile(
    r"\b(that of|those of|so many|in the place of|gone on|anew)\b".replace(" ", r"\s+"), re.I
)


def counted(pattern, *pages):
    """The matches on each page that has any."""
    found = {page: len(re.findall(pattern, page.read_text(encoding="utf-8"))) for page in pages}
    return {
        page.relative_to(ROOT).as_posix(): number for page, number in found.items() if number
    }


def test_the_front_page_is_short_and_soon_shows_an_example():
    text = FRONT.read_text(encoding="utf-8")
    before, found, _ = text.partition("```python")
    assert len(text.splitlines()) <= 120
    assert found and len(before.split()) < 150


def test_all_pages_together_are_read_in_an_afternoon():
    words = counted(r"\S+", *ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    assert sum(words.values()) <= 45_000, words


def test_pages_say_what_they_mean_without_detours():
    assert not counted(DETOURS, FRONT)
    detours = counted(DETOURS, *DOCS.rglob("*.md"), *DOCS.rglob("*.py"))
    assert sum(detours.values()) <= 15, detours
