from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jax
import numpy as np

from ..arguments import Fraction, PositiveInt, checked
from ..errors import InputError
from ..models import LanguageModel, Model, generate
from .losses import Batch
from .shuffling import shuffled
from .task import Part, in_parts
from .text_task import AbstractNextToken
from .token_folder import TokenFolder


class TokenFiles(AbstractNextToken):
    """Predict each next token of texts of any size, which `tokenize_files` made tokens of; the
    end is held out. Memory does not grow with the texts.

    In the order of the texts: the training, the test and the validation part, in tokens. The
    training part is cut into windows of `context` tokens, from a place on that is drawn for
    each pass. A pass takes each window once, in an order in which each place is computed by
    itself (`shuffled`): nothing but the step is needed to go on. Windows go over the ends of
    documents, which a token of its own marks; attention sees what is before it.

    **Arguments:**

    - `path`: the folder of tokens.
    - `context`: tokens in a sample.
    - `validation`, `test`: the fractions that are held out; with 0 there is no such test part.
      At the end of a run all of them are predicted: of a large text take a small fraction.

    **Raises:** `InputError` for a folder that is not complete, and where a part is too short.
    """

    def __init__(
        self, path: Path, context: PositiveInt, validation: Fraction = 0.1, test: Fraction = 0.0
    ):
        try:
            self.folder = TokenFolder(path)
        except (InputError, OSError) as error:
            raise InputError(f"data.path={error}") from None
        if validation + test >= 1:
            raise InputError(
                f"data.validation={validation} and data.test={test} leave nothing of the text "
                "to learn; lower one of them."
            )
        self.tokenizer = self.folder.tokenizer
        self.context = context
        whole = len(self.folder)
        ends = [int(whole * (1 - x)) for x in (validation + test, validation)]
        self._bounds = {
            "training": (0, ends[0]),
            "test": (ends[0], ends[1]),
            "validation": (ends[1], whole),
        }
        self.check_context()

    @property
    def parts(self) -> tuple[Part, ...]:
        low, high = self._bounds["test"]
        return ("validation", "test") if high > low else ("validation",)

    @property
    def windows(self) -> int:
        """The number of windows in a pass."""
        return self._bounds["training"][1] // self.context - 1

    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch:
        places = np.arange(step * size, (step + 1) * size)[rows]
        passes = places // self.windows
        starts = np.empty_like(places)
        for number in map(int, np.unique(passes)):
            here = passes == number
            chosen = shuffled(places[here] % self.windows, self.windows, seed, number)
            begin = np.random.default_rng([seed, number]).integers(self.context)
            starts[here] = begin + self.context * chosen
        return self._windows(starts)

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        """A part in consecutive windows, each token predicted once; what is left over at the
        end is dropped."""
        low, high = self._bounds[part]
        whole = range(low, high - self.context, self.context)
        for starts in in_parts(whole, size, samples):
            yield self._windows(starts)

    def fingerprint(self) -> str:
        """A checksum of all tokens."""
        return self.folder.fingerprint()

    def sample(self, model: Model, length: int) -> str | None:
        """A text that begins as a document does."""
        tokens = generate(
            cast(LanguageModel, model.ordinary),
            np.array([self.folder.index.end]),
            length,
            key=jax.random.key(0),
            temperature=0.8,
        )
        return self.tokenizer.decode(np.asarray(tokens)[1:])

    def _windows(self, starts: np.ndarray) -> Batch:
        found = self.folder.windows(starts, self.context + 1)
        return Batch(found[:, :-1], found[:, 1:])

    def check_context(self) -> None:
        needed = {"training": 2 * self.context, "validation": self.context + 1}
        if "test" in self.parts:
            needed["test"] = self.context + 1
        for name, tokens in needed.items():
            low, high = self._bounds[name]
            if high - low < tokens:
                raise InputError(
                    f"model.context={self.context} is too long for the {name} part of "
                    f"{self.folder.path}, which has {high - low} tokens (it needs at least "
                    f"{tokens}). Use longer texts, a larger fraction or a shorter context."
                )
