import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import jax
import numpy as np

from ..arguments import Fraction, PositiveInt, checked
from ..errors import InputError
from ..models import LanguageModel, Model, generate
from .losses import Batch
from .task import Part, in_parts
from .text_task import AbstractNextToken
from .texts import read_text, shakespeare
from .tokenizers import AbstractTokenizer, BytePairTokenizer, CharacterTokenizer


class LanguageTask(AbstractNextToken):
    """Predict each next token of a text; the end of the text is held out.

    In the order of the text: the training, the test and the validation part.

    **Arguments:**

    - `text`: the text.
    - `context`: tokens in a sample.
    - `tokenizer`: `characters`, `bpe` for a byte-pair encoding learned from the training
      part, or a tokenizer.
    - `vocabulary`: tokens of the byte-pair encoding.
    - `validation`: the fraction of the characters that is held out for validation; 1 for all of
      them, where nothing is to be learned.
    - `test`: that for the test; with 0 there is no such part.

    **Raises:** `InputError` if a part of the text is shorter than the context.
    """

    def __init__(
        self,
        text: str,
        context: int,
        tokenizer: str | AbstractTokenizer = "characters",
        vocabulary: int = 512,
        validation: float = 0.1,
        test: Fraction = 0.0,
    ):
        if validation > 1 or (test and validation + test >= 1):
            raise InputError(
                f"data.validation={validation} and data.test={test} leave nothing of the text "
                "to learn; lower one of them."
            )
        ends = [int(len(text) * (1 - x)) for x in (validation + test, validation)]
        train, rest = text[: ends[0]], (text[ends[0] : ends[1]], text[ends[1] :])
        if tokenizer == "characters":
            tokenizer = CharacterTokenizer.train(text)
        elif tokenizer == "bpe":
            tokenizer = BytePairTokenizer.train(train, vocabulary)
        elif isinstance(tokenizer, str):
            raise InputError(f"tokenizer={tokenizer!r}: write characters or bpe.")
        self.tokenizer = tokenizer
        self.context = context
        self.train = self.tokenizer.encode(train)
        self.test, self.validation = map(self.tokenizer.encode, rest)
        sizes = {"training": validation < 1, "validation": True, "test": test > 0}
        self._used = [name for name, used in sizes.items() if used]
        self.check_context()

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.test) else ("validation",)

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        """Windows that begin anywhere in the training text."""
        random = np.random.default_rng([seed, step])
        starts = random.integers(0, len(self.train) - self.context, size)
        return self._windows(self.train, starts[rows])

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        """The text of a part in consecutive windows, each token predicted once; what is left
        over at the end is dropped."""
        tokens = self.test if part == "test" else self.validation
        whole = range(0, len(tokens) - self.context, self.context)
        for starts in in_parts(whole, size, samples):
            yield self._windows(tokens, starts)

    def fingerprint(self) -> str:
        """A checksum of all tokens."""
        tokens = np.concatenate([self.train, self.test, self.validation]).astype(np.int64)
        return hashlib.sha256(tokens.tobytes()).hexdigest()

    def check_context(self) -> None:
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        for name in self._used:
            if len(parts[name]) <= self.context:
                raise InputError(
                    f"model.context={self.context} is longer than the {name} text, which has "
                    f"{len(parts[name])} tokens (it needs at least {self.context + 1}). Use a "
                    "longer text or a shorter context."
                )

    def sample(self, model: Model, length: int) -> str | None:
        return generate(
            cast(LanguageModel, model.ordinary),
            self._prompt(),
            length,
            key=jax.random.key(0),
            temperature=0.8,
            tokenizer=self.tokenizer,
        )

    def _prompt(self) -> str:
        """A new line, or in a text without one its first token."""
        try:
            self.tokenizer.encode("\n")
        except InputError:
            return self.tokenizer.decode(self.train[:1])
        return "\n"

    def _windows(self, tokens: np.ndarray, starts: np.ndarray) -> Batch:
        windows = tokens[starts[:, None] + np.arange(self.context + 1)].astype(np.int32)
        return Batch(windows[:, :-1], windows[:, 1:])


# Names of tokenizers, or a tokenizer.
_Tokenizer = Literal["characters", "bpe"] | AbstractTokenizer


class Shakespeare(LanguageTask):
    """Predict the next token of the plays of Shakespeare; see `shakespeare`."""

    @classmethod
    def build(
        cls,
        context: int,
        tokenizer: _Tokenizer = "characters",
        vocabulary: int = 512,
        validation: float = 0.1,
        test: float = 0.0,
    ) -> "Shakespeare":
        return cls(shakespeare(), context, tokenizer, vocabulary, validation, test)


class Text(LanguageTask):
    """Predict the next token of a text file, or of the files in a folder; see `read_text`."""

    @classmethod
    def build(
        cls,
        path: Path,
        context: int,
        tokenizer: _Tokenizer = "characters",
        vocabulary: int = 512,
        validation: float = 0.1,
        test: float = 0.0,
    ) -> "Text":
        try:
            text = read_text(path)
        except (InputError, OSError) as error:
            raise InputError(f"data.path={error}") from None
        return cls(text, context, tokenizer, vocabulary, validation, test)
