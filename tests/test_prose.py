"""What a reader is asked to read: the length of the front page and of all pages, and plain
words."""

import re

from helpers import ROOT


FRONT = ROOT / "README.md"
DOCS = ROOT / "docs"
# Words that a sentence does without when it names the thing again.
DETOURS = re.compile(
    r"\b(that of|those of|so many|in the place of|gone on|anew)\b".replace(" ", r"\s+"), re.I
)


def read(*paths):
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_the_front_page_is_short_and_soon_shows_an_example():
    text = read(FRONT)
    before, found, _ = text.partition("```python")
    assert len(text.splitlines()) <= 120
    assert found and len(before.split()) < 150


def test_all_pages_together_are_read_in_an_afternoon():
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    assert sum(len(read(page).split()) for page in pages) <= 45_000


def test_pages_say_what_they_mean_without_detours():
    assert not DETOURS.findall(read(FRONT))
    assert len(DETOURS.findall(read(*DOCS.rglob("*.md"), *DOCS.rglob("*.py")))) <= 15
