"""A large text to test with, made of a small one: `python tests/tasks/large_corpus.py 2 FOLDER`
writes 2 GiB of plays."""

import sys
from pathlib import Path

import numpy as np


_BLOCK = 2**26


def write_corpus(
    folder: Path, text: str, size: int, *, seed: int = 0, noise: float = 0.01
) -> None:
    """Files of at most 64 MiB, `size` bytes in all: the text again and again, in each of which
    some letters are replaced by others, so that no two are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.frombuffer(text.encode("ascii", "ignore"), np.uint8)
    random = np.random.default_rng(seed)
    for number, first in enumerate(range(0, size, _BLOCK)):
        block = np.resize(source, min(_BLOCK, size - first)).copy()
        places = random.integers(0, len(block), int(noise * len(block)))
        places = places[block[places] > 64]
        block[places] = random.integers(97, 123, len(places), dtype=np.uint8)
        (folder / f"{number:04}.txt").write_bytes(block.tobytes())


if __name__ == "__main__":
    from ide_transformer.tasks import shakespeare

    write_corpus(Path(sys.argv[2]), shakespeare(), int(float(sys.argv[1]) * 2**30))
