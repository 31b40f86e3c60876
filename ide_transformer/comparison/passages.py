"""Passages of a text, in halves that belong together."""

import re
from collections.abc import Iterable


# Characters of a passage: long enough to say something, short enough that a batch of them has
# little padding.
_LEAST, _MOST = 300, 500


def halves_of_speeches(plays: str) -> list[tuple[str, str]]:
    """Those of speeches of plays in Markdown, without the speaker and directions, which have
    marks."""
    speeches = (
        " ".join(line for line in map(str.strip, speech.splitlines()) if line[:1] not in "*_#")
        for speech in plays.split("\n\n")
    )
    return _halves(speeches)


def halves_of_sentences(text: str) -> list[tuple[str, str]]:
    """Those of consecutive sentences, so many that they make a passage."""
    passages, passage = [], ""
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        passage = f"{passage} {sentence}"
        if len(passage) > _LEAST:
            passages.append(passage)
            passage = ""
    return _halves(passages)


def _halves(passages: Iterable[str]) -> list[tuple[str, str]]:
    """Halves by words, of the passages that are neither too short nor too long."""
    words = [passage.split() for passage in passages]
    pairs = [(" ".join(w[: len(w) // 2]), " ".join(w[len(w) // 2 :])) for w in words]
    return [pair for pair in pairs if _LEAST < len(" ".join(pair)) < _MOST]
