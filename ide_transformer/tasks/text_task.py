"""Base classes of the tasks on tokens of texts."""

import abc
import copy
import math
from pathlib import Path
from typing import Any, ClassVar

from ..models import LanguageModel, Model
from .losses import Batch
from .pretrained_tokenizer import load_tokenizer
from .task import AbstractTask, one_number
from .tokenizers import AbstractTokenizer


class AbstractTextTask(AbstractTask):
    """A task on texts, whose samples have `context` tokens of a `tokenizer`, which is kept
    beside the trained model."""

    tokenizer: AbstractTokenizer
    context: int

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.tokenizer.vocabulary}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def save(self, tokenizer: Path) -> None:
        self.tokenizer.save(tokenizer)

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any] | None:
        if not tokenizer.exists():
            return None
        return {"vocabulary": load_tokenizer(tokenizer).vocabulary}


class AbstractNextToken(AbstractTextTask):
    """Predict each next token, in windows of a text that is longer."""

    model: ClassVar[type[Model]] = LanguageModel
    causal: ClassVar[bool] = True

    @abc.abstractmethod
    def check_context(self) -> None:
        """**Raises:** `InputError` where a part of the text is shorter than a window."""

    @abc.abstractmethod
    def part_of_batch(self, step: int, size: int, seed: int, rows: slice) -> Batch: ...

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return self.part_of_batch(step, size, seed, slice(None))

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractNextToken":
        tokens = one_number(tokens)
        other = copy.copy(self)
        other.context = tokens
        other.check_context()
        return other

    def figures(self, loss: float) -> dict[str, float]:
        # Beyond the largest number of float64.
        return {"perplexity": math.exp(loss) if loss < 709 else math.inf}
