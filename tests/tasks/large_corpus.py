"""A large text to test with, made of a small one:
`python tests/tasks/large_corpus.py 300 there` writes 300 MB, as large.jsonl and .parquet."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def documents(text: str, size: int, *, seed: int = 0) -> list[str]:
    """Parts of the text, `size` bytes in all, in which one letter in a hundred is replaced by
    another, so that no two are the same."""
    source = np.frombuffer(text.encode("ascii", "ignore"), np.uint8)
    random, remaining, texts = np.random.default_rng(seed), size, []
    while remaining > 0:
        length = min(remaining, int(random.integers(200, 8000)))
        first = int(random.integers(len(source) - length))
        part = source[first : first + length].copy()
        places = random.integers(0, length, length // 100)
        places = places[part[places] > 64]
        part[places] = random.integers(97, 123, len(places), dtype=np.uint8)
        texts.append(part.tobytes().decode())
        remaining -= length
    return texts


def write_corpus(folder: Path, name: str, texts: list[str]) -> Path:
    """The texts as NAME.jsonl, whose path it gives."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    with path.open("w") as file:
        for index, text in enumerate(texts):
            file.write(json.dumps({"id": index, "text": text}) + "\n")
    return path


if __name__ == "__main__":
    from ide_transformer.tasks import shakespeare

    texts, folder = documents(shakespeare(), int(float(sys.argv[1]) * 1e6)), Path(sys.argv[2])
    write_corpus(folder, "large", texts)
    table = pa.table({"id": range(len(texts)), "text": texts})
    pq.write_table(table, folder / "large.parquet", row_group_size=2000)
