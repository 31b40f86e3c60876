"""Tasks that predict each next token of a text."""

import abc
import copy
import functools as ft
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Int

from ..arguments import Fraction, FractionOrAll, PositiveInt, checked
from ..errors import InputError, at
from ..models import LanguageModel, Model, generate
from .losses import Batch, Mean
from .task import AbstractTask, Part, checksum_of_all, in_parts, in_passes, one_number
from .texts import read_text, shakespeare
from .tokenizers import AbstractTokenizer, BytePairTokenizer, CharacterTokenizer, load_tokenizer
from .tokenizing import learned_size, tokenize


class AbstractNextToken(AbstractTask):
    """Predict each next token in windows of a longer text. The text is divided into a training,
    test and validation part, in this order. A run saves the tokenizer."""

    model = LanguageModel
    causal = True
    may_hold_out_all = True
    compared = None
    tokenizer: AbstractTokenizer
    # The first token of each part, and the first token after it.
    bounds: Mapping[str, tuple[int, int]]
    # The length of held-out windows; `None` for the context.
    window: int | None = None

    @property
    def holds_out_all(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "training" not in self.bounds

    @abc.abstractmethod
    def windows_at(self, starts: np.ndarray) -> np.ndarray:
        """The tokens of the windows that begin at `starts`, `[windows, context + 1]`."""

    @abc.abstractmethod
    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch: ...

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.tokenizer.vocabulary}

    def save(self, tokenizer: Path) -> None:
        self.tokenizer.save(tokenizer)

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any] | None:
        if not tokenizer.exists():
            return None
        return {"vocabulary": load_tokenizer(tokenizer).vocabulary}

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if "test" in self.bounds else ("validation",)

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self.part_of_batch(step, size, seed, slice(None))

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        """A part in consecutive windows, which predict each token once. Tokens after the last
        whole window are dropped. A `window` longer than the context is predicted in pieces, of
        which the last may be shorter."""
        window = self.window or self.context
        first, end = self.bounds.get(part, (0, 0))
        num_pieces, rest = divmod(window, self.context)
        for starts in in_parts(range(first, end - window, window), size, samples):
            pieces = (starts[:, None] + self.context * np.arange(num_pieces)).ravel()
            for piece in range(0, len(pieces), size):
                yield self.batch_at(pieces[piece : piece + size])
            if rest:
                yield self.with_tokens(rest).batch_at(starts + num_pieces * self.context)

    def batch_at(self, starts: np.ndarray) -> Batch:
        windows = self.windows_at(starts).astype(np.int32)
        return Batch(windows[:, :-1], windows[:, 1:])

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractNextToken":
        other = copy.copy(self)
        other.context = one_number(tokens)
        other.check_context()
        return other

    def divide(self, ends: Sequence[int], *, training: bool = True, test: bool) -> None:
        """Sets the bounds of the parts, from the ends of training, test and validation."""
        has_part = {"training": training, "test": test, "validation": True}
        bounds = zip(has_part, (0, *ends), ends, strict=False)
        self.bounds = {part: (first, end) for part, first, end in bounds if has_part[part]}
        self.check_context()

    def min_tokens(self, part: str) -> int:
        """The least number of tokens of a part."""
        return self.context + 1

    def check_context(self) -> None:
        for part, (first, end) in self.bounds.items():
            if end - first < self.min_tokens(part):
                raise InputError(
                    f"model.context={self.context} is longer than the {part} text allows: got "
                    f"{end - first} tokens, expected {self.min_tokens(part)}. Use a longer "
                    "text, a larger fraction or a shorter context."
                )

    @property
    def token_bytes(self) -> Int[np.ndarray, " vocabulary"]:
        """The bytes of each token in UTF-8."""
        return self.tokenizer.token_bytes

    def further_means(self, batch: Batch, loss: Mean) -> dict[str, Mean]:
        """The bits per byte of the text in UTF-8, which unlike the loss compare tokenizers."""
        size = int(np.sum(self.token_bytes[batch.targets]))
        return {"bits_per_byte": Mean(loss.total / math.log(2), size)}

    def figures(self, loss: float) -> dict[str, float]:
        return {"perplexity": math.exp(loss) if loss < 709 else math.inf}


def _ends(size: int, validation: float, test: float) -> list[int]:
    """The ends of the training, test and validation part of a text."""
    if test and validation + test >= 1:
        raise InputError(
            f"data.validation={validation} and data.test={test} leave nothing to learn; lower "
            "one."
        )
    return [int(size * (1 - x)) for x in (validation + test, validation, 0)]


def on_same_tokens(tasks: Sequence[AbstractTask]) -> list[AbstractTask]:
    """Gives tasks that read one text the same held-out tokens, in windows of the longest
    context. Returns other tasks unchanged."""
    texts = [copy.copy(task) for task in tasks if isinstance(task, AbstractNextToken)]
    window = max((task.context for task in texts), default=0)
    if len(texts) < len(tasks) or len({task.fingerprint() for task in texts}) > 1:
        return [*tasks]
    for task in texts:
        task.window = window
    return [*texts]


# `repeated` compares at most this many windows, of at least this many tokens.
_COMPARED = 256
_SHORTEST = 32


class LanguageTask(AbstractNextToken):
    """Predict each next token of a text, whose end is held out. Training windows begin at
    random tokens.

    **Arguments:**

    - `text`: the text.
    - `context`: the tokens of a sample.
    - `tokenizer`: `characters`; `bpe` for a byte-pair encoding learned from the training part;
      or a tokenizer.
    - `vocabulary`: the tokens of the byte-pair encoding, 512 by default.
    - `validation`, `test`: the fractions of the characters to hold out. `validation` 1 holds
      out all, `test` 0 makes no test part.
    """

    @checked
    def __init__(
        self,
        text: str,
        context: PositiveInt,
        *,
        tokenizer: Literal["characters", "bpe"] | AbstractTokenizer = "characters",
        vocabulary: PositiveInt | None = None,
        validation: FractionOrAll = 0.1,
        test: Fraction = 0.0,
    ):
        ends = _ends(len(text), validation, test)
        texts = [text[a:b] for a, b in zip((0, *ends), ends, strict=False)]
        size = learned_size(tokenizer, vocabulary)
        if tokenizer == "characters":
            tokenizer = CharacterTokenizer.train(text)
        elif tokenizer == "bpe":
            tokenizer = BytePairTokenizer.train(texts[0], size)
        self.tokenizer = tokenizer
        self.context = context
        encoded = list(map(tokenizer.encode, texts))
        self.tokens = np.concatenate(encoded)
        ends = np.cumsum([len(x) for x in encoded]).tolist()
        self.divide(ends, training=validation < 1, test=test > 0)

    def windows_at(self, starts: np.ndarray) -> np.ndarray:
        return self.tokens[starts[:, None] + np.arange(self.context + 1)]

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        last = self.bounds["training"][1] - self.context
        starts = np.random.default_rng([seed, step]).integers(0, last, size)
        return self.batch_at(starts[rows])

    def fingerprint(self) -> str:
        """A checksum of all tokens and of the bounds of the parts."""
        return checksum_of_all((self.tokens.astype(np.int64), self.bounds))

    def repeated(self) -> dict[Part, tuple[int, int]]:
        """For each part how many of its windows the training part also has, and how many were
        searched for, at most 256. Empty for a context below 32 tokens, as short windows recur
        by chance."""
        counts: dict[Part, tuple[int, int]] = {}
        if self.context < _SHORTEST:
            return counts
        # One character for each token, because Python searches texts fast.
        text = self.tokens.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        learned = text[: self.bounds["training"][1]]
        for part in self.parts:
            first, last = self.bounds[part]
            starts = [*range(first, last - self.context, self.context)]
            starts = starts[:: -(-len(starts) // _COMPARED)]
            repeated = sum(text[x : x + self.context + 1] in learned for x in starts)
            counts[part] = repeated, len(starts)
        return counts

    def sample(self, model: Model, length: int) -> str | None:
        """Text after a line break, or after the first token if the tokenizer has no line
        break."""
        tokenizer = self.tokenizer
        prompt = "\n"
        try:
            tokenizer.encode(prompt)
        except InputError:
            prompt = tokenizer.decode(self.tokens[:1])
        key = jax.random.key(0)
        return generate(model, prompt, length, tokenizer=tokenizer, key=key, temperature=0.8)


class Shakespeare(LanguageTask):
    """Predict each next token of the plays of Shakespeare; see `shakespeare` and
    `LanguageTask`."""

    @classmethod
    def build(cls, context: int, **options: Any) -> "Shakespeare":
        return cls(shakespeare(), context, **options)


class Text(LanguageTask):
    """Predict each next token of a text file or of the files of a folder; see `read_text` and
    `LanguageTask`."""

    @classmethod
    def build(cls, path: str | Path, context: int, **options: Any) -> "Text":
        with at("data.path"):
            text = read_text(path)
        return cls(text, context, **options)


class Dataset(AbstractNextToken):
    """Predict each next token of texts of any size, whose end is held out. The library
    `datasets` reads the texts and caches their tokens on disk.

    Each pass cuts the training part into windows of `context` tokens from a random first token,
    and uses each window once, in random order. A window may contain the ends of documents,
    which a token marks; attention looks across them.

    **Arguments:**

    - `path`: a file or folder of texts (`.txt`, `.md`: a document each) or of tables (`.jsonl`,
      `.parquet`, `.csv`: a document in each row), or the name of a data set of the hub.
    - `context`, `vocabulary`, `validation`, `test`: see `LanguageTask`. A run ends by
      predicting all held-out tokens, so use small fractions of a large text.
    - `tokenizer`: `characters`; `bpe` for a byte-pair encoding learned from 16 MiB spread over
      all texts; a file with a saved tokenizer; a checkpoint, see `load_pretrained`; or a
      tokenizer.
    - `column`: the column of a table with the texts.
    - `between`: a line that separates documents in text files.
    - `subset`, `split`: of a data set of the hub; default: the split `train`.
    """

    @checked
    def __init__(
        self,
        path: str | Path,
        context: PositiveInt,
        *,
        tokenizer: str | AbstractTokenizer = "characters",
        vocabulary: PositiveInt | None = None,
        validation: FractionOrAll = 0.1,
        test: Fraction = 0.0,
        column: str = "text",
        between: str | None = None,
        subset: str | None = None,
        split: str | None = None,
    ):
        source = dict(column=column, between=between, subset=subset, split=split)
        size = learned_size(tokenizer, vocabulary)
        self.tokens, self.tokenizer, self.end = tokenize(path, tokenizer, size, **source)
        self.context = context
        ends = _ends(len(self.tokens), validation, test)
        self.divide(ends, training=validation < 1, test=test > 0)

    def windows_at(self, starts: np.ndarray) -> np.ndarray:
        return self.tokens.windows(starts, self.context + 1)

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        # One less, because a pass begins anywhere in the first window.
        windows = self.bounds["training"][1] // self.context - 1
        passes = [place // windows for place in range(step * size, (step + 1) * size)]
        offsets = [np.random.default_rng([seed, x]).integers(self.context) for x in passes]
        starts = offsets + self.context * in_passes(step, size, windows, seed)
        return self.batch_at(starts[rows])

    def min_tokens(self, part: str) -> int:
        return 2 * self.context if part == "training" else self.context + 1

    @ft.cached_property
    def token_bytes(self) -> Int[np.ndarray, " vocabulary"]:
        sizes = self.tokenizer.token_bytes.copy()
        sizes[self.end] = 0  # the mark of an end is not text
        return sizes

    def fingerprint(self) -> str:
        """A checksum of all tokens and of the bounds of the parts."""
        return checksum_of_all((self.tokens.fingerprint(), self.bounds))

    def repeated(self) -> dict[Part, tuple[int, int]]:
        """Empty, because a search of a large text takes long."""
        return {}

    def sample(self, model: Model, length: int) -> str | None:
        prompt = np.array([self.end])
        tokens = generate(model, prompt, length, key=jax.random.key(0), temperature=0.8)
        return self.tokenizer.decode(np.asarray(tokens)[1:])
