"""Translate verses, from texts of SWORD."""

import hashlib
import itertools as it
import json
import re
from pathlib import Path

import numpy as np

from ide_transformer.arguments import Fraction, FractionOrAll, PositiveInt
from ide_transformer.contrib.encoder_decoder import SourceAndText, TranslationModel
from ide_transformer.errors import InputError, whole_file
from ide_transformer.models import Text
from ide_transformer.packages import cache_folder, require, told_once
from ide_transformer.tasks import (
    UNCOUNTED,
    AbstractDataSet,
    AbstractTextTask,
    AbstractTokenizer,
    Batch,
    BytePairTokenizer,
    InstanceCrossEntropy,
    Part,
)


# Modules of SWORD in the Debian packages sword-text-kjv and sword-text-sparv.
_ENGLISH = "engKJV2006eb"
_SPANISH = "spaRV1909eb"


class VersesEnEs(AbstractTextTask, AbstractDataSet):
    """Translate verses from English (King James Version) to Spanish (Reina–Valera, 1909):
    31,084 pairs, public domain, from the Debian packages `sword-text-kjv` and
    `sword-text-sparv`.

    Whole chapters are held out, the same for every run, so that no neighbour gives a verse
    away. A byte-pair encoding of both languages is learned from the training part. Verses
    longer than the context are left out; `dropped` is their number.

    `inputs`: a `SourceAndText` of the English tokens, padded, with a mask, and the end token
    followed by the Spanish tokens; `targets: [samples, context]`, the Spanish tokens and the
    end, then -1.

    **Arguments:**

    - `path`: the folder with `mods.d` and `modules`, such as `/usr/share/sword`. pysword reads
      it once, which takes minutes; then the verses are in the cache.
    - `context`: the most tokens of a verse, its end included.
    - `vocabulary`: tokens of the byte-pair encoding.
    - `validation`, `test`: the fractions of the chapters that are held out; `validation` 1
      holds out all.
    - `tokenizer`: a tokenizer to use; default: a new one.
    """

    model = TranslationModel
    causal = True
    holds_out_all = True
    loss = InstanceCrossEntropy()

    def __init__(
        self,
        path: str | Path,
        context: PositiveInt,
        vocabulary: PositiveInt = 4096,
        validation: FractionOrAll = 0.05,
        test: Fraction = 0.05,
        tokenizer: AbstractTokenizer | None = None,
    ):
        verses = cached_verses(Path(path))
        chapters = sorted({chapter for chapter, *_ in verses})
        order = np.random.default_rng(0).permutation(len(chapters))
        place_of = {chapters[i]: place for place, i in enumerate(order)}
        ends = [int(len(chapters) * x) for x in (test, test + validation)]
        parts: dict[str, list[tuple[str, str]]] = {"training": [], "validation": [], "test": []}
        for chapter, english, spanish in verses:
            number = np.searchsorted(ends, place_of[chapter], "right")
            parts[("test", "validation", "training")[number]].append((english, spanish))
        if tokenizer is None:
            learned = "\n".join(text for pair in parts["training"] for text in pair)
            tokenizer = BytePairTokenizer.train(learned, vocabulary)
        self.tokenizer, self.end = tokenizer.ending()
        self.context = context
        self.data = {}
        for name, pairs in parts.items():
            sources = []
            targets = []
            for pair in pairs:
                encoded = [
                    np.append(self.tokenizer.encode(text), self.end).astype(np.int32)
                    for text in pair
                ]
                if max(map(len, encoded)) <= context:
                    sources.append(encoded[0])
                    targets.append(encoded[1])
            self.data[name] = sources, targets
        self.dropped = len(verses) - sum(len(part[0]) for part in self.data.values())
        self.whole = validation == 1
        for name, (sources, _) in self.data.items():
            if not sources and (not self.whole or name == "validation"):
                raise InputError(
                    f"the {name} part has no verse of at most model.context={context} tokens; "
                    "raise it, or hold out a larger part."
                )

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation",) if self.whole else super().parts

    def texts(self, tokens: np.ndarray) -> list[str]:
        """The text of each row of tokens, up to the end token."""
        ended = np.cumsum(tokens == self.end, axis=1) > 0
        rows = zip(tokens, ended, strict=True)
        return [self.tokenizer.decode(row[~over]).strip() for row, over in rows]

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        sources, targets = self.data[part]
        shape = len(samples), self.context
        english = np.full(shape, self.end, np.int32)
        text = english.copy()
        mask = np.zeros(shape, bool)
        wanted = np.full(shape, UNCOUNTED, np.int32)
        for row, number in enumerate(samples):
            source = sources[number]
            target = targets[number]
            english[row, : len(source)] = source
            mask[row, : len(source)] = True
            text[row, 1 : len(target)] = target[:-1]
            wanted[row, : len(target)] = target
        return Batch(SourceAndText(Text(english, mask), text), wanted)


def cached_verses(path: Path) -> list[tuple[str, str, str]]:
    """Chapter, English and Spanish of each verse that both texts have, from the cache."""
    files = [path / f"mods.d/{name}.conf" for name in (_ENGLISH, _SPANISH)]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(
            f"data.path={path}: {missing[0]} is missing. Run apt-get install sword-text-kjv "
            "sword-text-sparv and give /usr/share/sword, or the folder of the unpacked "
            "packages."
        )
    for file in [*files]:
        for place in re.findall(r"^DataPath=(.+)$", file.read_text("utf-8", "replace"), re.M):
            if not (path / place).resolve().is_relative_to(path.resolve()):
                raise InputError(f"{file}: DataPath={place} lies outside of {path}.")
            files += sorted(x for x in (path / place).rglob("*") if x.is_file())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    cached = cache_folder() / f"verses-en-es-{digest[:16]}.json"
    if cached.is_file():
        checksum, _, text = cached.read_bytes().partition(b"\n")
        if hashlib.sha256(text).hexdigest() != checksum.decode("latin-1"):
            raise InputError(f"{cached} is damaged. Delete it, and the verses are read again.")
        return [tuple(x) for x in json.loads(text)]
    told_once(f"reading the verses in {path}, which takes minutes", cached)
    require("pysword", "translation", "the verses are read by")
    from pysword.modules import SwordModules

    modules = SwordModules(str(path))
    modules.parse_modules()
    english, spanish = map(modules.get_bible_from_module, (_ENGLISH, _SPANISH))
    verses = []
    for book in it.chain.from_iterable(english.get_structure().get_books().values()):
        for chapter, length in enumerate(book.chapter_lengths, 1):
            for verse in range(1, length + 1):
                place = {"books": [book.name], "chapters": [chapter], "verses": [verse]}
                pair = [" ".join(x.get(**place).split()) for x in (english, spanish)]
                if all(pair):
                    verses.append((f"{book.name} {chapter}", *pair))
    cached.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(verses, ensure_ascii=False).encode()
    with whole_file(cached) as part:
        part.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    return verses
