"""Text to integers and back."""

import abc
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers as tk

from ..errors import InputError
from ..models import Text


# Ends a document in a byte-pair encoding, and in one of characters.
END = "<|endoftext|>"
_END_CHARACTER = "\x03"


class AbstractTokenizer(abc.ABC):
    """A map between texts and sequences of tokens `0 … vocabulary - 1`."""

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """The number of tokens."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text."""

    @abc.abstractmethod
    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of some tokens."""

    def encode_batch(self, texts: Sequence[str], context: int) -> Text:
        """Texts with the tokens that mark beginning and end, cut to `context` tokens and
        padded to the longest.

        **Raises:** `InputError` for a tokenizer without such tokens.
        """
        raise InputError(f"{type(self).__name__} has no tokens that mark the end of a text.")

    def ending(self) -> tuple["AbstractTokenizer", int]:
        """Add a token that ends a document; gives the tokenizer and that token. A
        text that contains it ends there.

        **Raises:** `InputError` for a tokenizer that has none and cannot take one more.
        """
        raise InputError(f"{type(self).__name__} has no token that ends a document.")

    @abc.abstractmethod
    def save(self, path: Path) -> None:
        """Writes a JSON file that `load_tokenizer` reads."""


class CharacterTokenizer(AbstractTokenizer):
    """One token for each character that occurs, in the order of their code points."""

    def __init__(self, characters: str):
        if "".join(sorted(set(characters))) != characters:
            raise InputError(
                "CharacterTokenizer: each character has to be there once, in the order of code "
                "points; write CharacterTokenizer.train(text)."
            )
        self.characters = characters
        points = _code_points(characters)
        # The token of each code point; `vocabulary` for those that have none.
        self._table = np.full(int(points.max(initial=0)) + 2, len(characters), np.uint32)
        self._table[points] = np.arange(len(characters))

    @classmethod
    def train(cls, text: str) -> "CharacterTokenizer":
        return cls("".join(sorted(set(text))))

    @property
    def vocabulary(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        points = _code_points(text)
        # The last entry stands for all points that are larger.
        tokens = self._table[np.minimum(points, len(self._table) - 1)]
        unknown = tokens == self.vocabulary
        if unknown.any():
            first = chr(points[np.argmax(unknown)])
            raise InputError(
                f"The character {first!r} does not occur in the text that the model was "
                f"trained on; it knows {self.characters!r}."
            )
        return tokens

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return "".join(self.characters[token] for token in tokens)

    def ending(self) -> tuple["CharacterTokenizer", int]:
        """The character U+0003, END OF TEXT, ends a document."""
        tokenizer = CharacterTokenizer.train(self.characters + _END_CHARACTER)
        return tokenizer, tokenizer.characters.index(_END_CHARACTER)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"characters": self.characters}), encoding="utf-8")


class BytePairTokenizer(AbstractTokenizer):
    """Byte-pair encoding on bytes, as in GPT-2; every text can be encoded."""

    def __init__(self, tokenizer: tk.Tokenizer):
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, text: str, vocabulary: int) -> "BytePairTokenizer":
        """Learns `vocabulary` tokens from a text; 256 of them are the bytes.

        **Raises:** `InputError` for fewer.
        """
        if vocabulary < 256:
            raise InputError(
                f"vocabulary={vocabulary}: 256 tokens are the bytes; give as many or more."
            )
        tokenizer = tk.Tokenizer(tk.models.BPE())
        tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tk.decoders.ByteLevel()
        trainer = tk.trainers.BpeTrainer(
            # It reserves memory for them, and a text has no more pairs than bytes.
            vocab_size=min(vocabulary, 256 + 4 * len(text)),
            initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer)

    @property
    def vocabulary(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        lines = self._tokenizer.encode_batch(text.splitlines(keepends=True))
        tokens = [np.asarray(line.ids, dtype=np.uint32) for line in lines]
        return np.concatenate(tokens) if tokens else np.zeros(0, np.uint32)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self._tokenizer.decode([int(token) for token in tokens])

    def ending(self) -> tuple["BytePairTokenizer", int]:
        """One more token, which `decode` leaves out."""
        tokenizer = tk.Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.add_special_tokens([END])
        token = tokenizer.token_to_id(END)
        assert token is not None
        return BytePairTokenizer(tokenizer), token

    def save(self, path: Path) -> None:
        # Its own save hides the error of the system.
        path.write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
