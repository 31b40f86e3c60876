# Characters of a speech: long enough to say something, short enough that a batch of them has
# little padding.
_LEAST, _MOST = 300, 500


def halves_of_speeches(plays: str) -> list[tuple[str, str]]:
    """Speeches of 300 to 500 characters from plays in Markdown, each in two halves of equally
    many words, without the speaker and the directions, which have marks."""
    pairs = []
    for speech in plays.split("\n\n"):
        lines = (line.strip() for line in speech.splitlines())
        words = " ".join(line for line in lines if not line.startswith(tuple("*_#"))).split()
        middle = len(words) // 2
        pairs.append((" ".join(words[:middle]), " ".join(words[middle:])))
    return [pair for pair in pairs if _LEAST < len(" ".join(pair)) < _MOST]
