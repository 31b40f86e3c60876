"""Tokenizers: text to integers and back."""

import abc
import contextlib
import functools as ft
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from jaxtyping import Int

from ..arguments import Bound, at_least, checked
from ..errors import InputError
from ..models import Text
from ..packages import require
from ..pretrained import find_pretrained, tokenizer_file
from ..pretrained.files import read_json


if TYPE_CHECKING:
    import tokenizers as tk

# Tokens that end a document; `BytePairTokenizer` uses the first.
_ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
_END_CHARACTER = "\x03"
# The line ends of `str.splitlines`.
_LINE_END = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"


def _import_tokenizers() -> ModuleType:
    require("tokenizers", "hf", "byte-pair encodings and tokenizers of checkpoints need")
    import tokenizers

    return tokenizers


class AbstractTokenizer(abc.ABC):
    """Maps between texts and sequences of tokens `0 … vocabulary - 1`."""

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """The number of tokens."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, as int32."""

    @abc.abstractmethod
    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of tokens."""

    @ft.cached_property
    def token_bytes(self) -> Int[np.ndarray, " vocabulary"]:
        """The bytes of each token in UTF-8; 0 for a token that `decode` leaves out."""
        texts = (self.decode([token]) for token in range(self.vocabulary))
        return np.array([len(text.encode()) for text in texts])

    def encode_batch(self, texts: Sequence[str], context: int) -> Text:
        """Texts with the special tokens at their beginning and end, cut to `context` tokens and
        padded to the longest; `InputError` if this is not supported."""
        raise self._missing_method("encode_batch")

    def ending(self) -> tuple["AbstractTokenizer", int]:
        """A tokenizer with a token that ends a document, and this token; `InputError` if there
        is none. In a text, too, the token ends a document."""
        raise self._missing_method("ending")

    def for_others(self) -> "tk.Tokenizer":
        """The equal tokenizer of the library `tokenizers`; `InputError` if there is none."""
        raise self._missing_method("for_others")

    def _missing_method(self, method: str) -> InputError:
        return InputError(f"{type(self).__name__} does not support {method}(); define it.")

    @abc.abstractmethod
    def save(self, path: str | Path) -> None:
        """Writes a JSON file that `load_tokenizer` reads."""


class CharacterTokenizer(AbstractTokenizer):
    """One token for each character, in the order of code points."""

    def __init__(self, characters: str):
        self.characters = characters
        points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
        # The token of each code point; `vocabulary` if there is none.
        self._table = np.full(int(points.max(initial=0)) + 2, len(characters), np.int32)
        self._table[points] = np.arange(len(characters))

    @classmethod
    def train(cls, text: str) -> "CharacterTokenizer":
        return cls("".join(sorted(set(text))))

    @property
    def vocabulary(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        # The last entry stands for all larger points.
        tokens = self._table[np.minimum(points, len(self._table) - 1)]
        unknown = tokens == self.vocabulary
        if unknown.any():
            first = chr(points[np.argmax(unknown)])
            raise InputError(
                f"the character {first!r} is not in the training text; the tokenizer has "
                f"{self.characters!r}."
            )
        return tokens

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return "".join(self.characters[token] for token in tokens)

    def ending(self) -> tuple["CharacterTokenizer", int]:
        """The character U+0003, END OF TEXT, ends a document."""
        tokenizer = CharacterTokenizer.train(self.characters + _END_CHARACTER)
        return tokenizer, tokenizer.characters.index(_END_CHARACTER)

    def for_others(self) -> "tk.Tokenizer":
        tk = _import_tokenizers()
        vocabulary = {character: token for token, character in enumerate(self.characters)}
        tokenizer = tk.Tokenizer(tk.models.WordLevel(vocabulary))
        tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(tk.Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = tk.decoders.Fuse()
        return tokenizer

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"characters": self.characters}), encoding="utf-8")


class _LibraryTokenizer(AbstractTokenizer):
    """Base class for tokenizers of the library `tokenizers`."""

    def __init__(self, tokenizer: "tk.Tokenizer"):
        self._tokenizer = tokenizer
        # Some of the integers in between may not be tokens.
        self._tokens = sorted(tokenizer.get_vocab().values())

    @property
    def vocabulary(self) -> int:
        return self._tokens[-1] + 1 if self._tokens else 0

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self._call("decode", [int(token) for token in tokens])

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of the library, which panics if a pattern takes too long."""
        with _wrap_errors("the tokenizer fails at this text"):
            return getattr(self._tokenizer, method)(*arguments, **options)

    @ft.cached_property
    def token_bytes(self) -> Int[np.ndarray, " vocabulary"]:
        # After another token, because some decoders change the beginning of a text.
        first = self.encode("a")[:1].tolist()
        texts = self._call("decode_batch", [[*first, token] for token in self._tokens])
        before = len(self.decode(first).encode())
        sizes = np.zeros(self.vocabulary, int)
        for token, text in zip(self._tokens, texts, strict=True):
            sizes[token] = len(text.encode()) - before
            if "\ufffd" in text:  # part of a character
                name = cast(str, self._tokenizer.id_to_token(token))
                sizes[token] = 1 if name.startswith("<0x") else len(name)
        return sizes


class BytePairTokenizer(_LibraryTokenizer):
    """Byte-pair encoding on bytes, as in GPT-2; it encodes every text."""

    @classmethod
    @checked
    def train(cls, text: str, vocabulary: Annotated[int, at_least(256)]) -> "BytePairTokenizer":
        """Learns `vocabulary` tokens from a text; 256 of them are the bytes."""
        tk = _import_tokenizers()
        tokenizer = tk.Tokenizer(tk.models.BPE())
        tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tk.decoders.ByteLevel()
        trainer = tk.trainers.BpeTrainer(
            # The trainer reserves memory for all; a text has no more pairs than bytes.
            vocab_size=min(vocabulary, 256 + 4 * len(text)),
            initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> np.ndarray:
        lines = self._call("encode_batch", text.splitlines(keepends=True))
        tokens = [np.asarray(line.ids, dtype=np.int32) for line in lines]
        return np.concatenate(tokens) if tokens else np.zeros(0, np.int32)

    def ending(self) -> tuple["BytePairTokenizer", int]:
        """Adds a token, which `decode` leaves out."""
        tokenizer = _import_tokenizers().Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.add_special_tokens([_ENDS[0]])
        return BytePairTokenizer(tokenizer), cast(int, tokenizer.token_to_id(_ENDS[0]))

    def for_others(self) -> "tk.Tokenizer":
        tk = _import_tokenizers()
        tokenizer = tk.Tokenizer.from_str(self._tokenizer.to_str())
        # `encode` encodes each line alone.
        lines = tk.pre_tokenizers.Split(tk.Regex(_LINE_END), "merged_with_previous")
        words = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = tk.pre_tokenizers.Sequence([lines, words])
        return tokenizer

    def save(self, path: str | Path) -> None:
        # The library's `save` hides errors of the system.
        Path(path).write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")


class PretrainedTokenizer(_LibraryTokenizer):
    """The tokenizer of a checkpoint. `encode` adds no special tokens."""

    def __init__(self, tokenizer: "tk.Tokenizer"):
        super().__init__(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Some damaged files fail only at the first text.
        self._tokenizer.encode("")

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._call("encode", text, add_special_tokens=False).ids, np.int32)

    @checked
    def encode_batch(
        self, texts: Annotated[Sequence[str], Bound("at least one text", len)], context: int
    ) -> Text:
        special = self._tokenizer.num_special_tokens_to_add(False)
        if context < special:
            raise InputError(
                f"encode_batch: context={context}: {special} tokens mark the beginning and end "
                "of a text; pass more."
            )
        self._tokenizer.enable_truncation(context)
        encoded = self._call("encode_batch", list(texts))
        self._tokenizer.no_truncation()
        longest = max(len(text.ids) for text in encoded)
        tokens, mask, types = np.zeros((3, len(encoded), longest), np.int32)
        for row, text in enumerate(encoded):
            columns = slice(len(text.ids))
            tokens[row, columns] = text.ids
            mask[row, columns] = text.attention_mask
            types[row, columns] = text.type_ids
        return Text(tokens, mask.astype(bool), types)

    def ending(self) -> tuple["PretrainedTokenizer", int]:
        name = end_token(self._tokenizer)
        if name is not None:
            return self, cast(int, self._tokenizer.token_to_id(name))
        raise InputError(
            f"the tokenizer of the checkpoint has no token that ends a document, such as "
            f"{_ENDS[0]} or {_ENDS[1]}; use another tokenizer."
        )

    def for_others(self) -> "tk.Tokenizer":
        # Like `encode`, without special tokens.
        content = json.loads(self._tokenizer.to_str()) | {"post_processor": None}
        return _import_tokenizers().Tokenizer.from_str(json.dumps(content))

    def save(self, path: str | Path) -> None:
        content = {"checkpoint": json.loads(self._tokenizer.to_str())}
        Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "PretrainedTokenizer":
        """Reads the tokenizer of a checkpoint: `tokenizer.json` in its folder, or
        `<name>.tokenizer.json` next to an archive of glassllm; `InputError` if there is none.
        `path` as in `load_pretrained`."""
        path = find_pretrained(path)
        file = tokenizer_file(path)
        if not file.is_file():
            raise InputError(
                f"{file} is missing, which encodes and decodes text for this checkpoint; put "
                "the tokenizer.json of its release there."
            )
        tk = _import_tokenizers()
        with _wrap_errors(f"{file} is not a tokenizer"):
            if path.is_file():
                return cls(_glassllm_tokenizer(read_json(file)))
            return cls(tk.Tokenizer.from_file(str(file)))


def end_token(tokenizer: "tk.Tokenizer") -> str | None:
    """The token that ends a document, if there is one."""
    ends = (x for x in (*_ENDS, _END_CHARACTER) if tokenizer.token_to_id(x) is not None)
    return next(ends, None)


def load_tokenizer(path: str | Path) -> AbstractTokenizer:
    """Loads a saved tokenizer; `InputError` if the file is damaged."""
    path = Path(path)
    with _wrap_errors(f"{path} is not a tokenizer"):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "characters" in content:
            return CharacterTokenizer(content["characters"])
    tk = _import_tokenizers()
    with _wrap_errors(f"{path} is not a tokenizer"):
        if "checkpoint" in content:
            return PretrainedTokenizer(tk.Tokenizer.from_str(json.dumps(content["checkpoint"])))
        tokenizer = tk.Tokenizer.from_str(text)
        # The tokenizer of a checkpoint may do more than merge bytes.
        has_more = any(content.get(x) for x in ("post_processor", "truncation", "padding"))
        has_bytes = (content.get("pre_tokenizer") or {}).get("type") == "ByteLevel"
        merges_bytes = (
            content["model"].get("type", "BPE") == "BPE" and has_bytes and not has_more
        )
        return (BytePairTokenizer if merges_bytes else PretrainedTokenizer)(tokenizer)


@contextlib.contextmanager
def _wrap_errors(message: str) -> Iterator[None]:
    """Turns any error, also a panic of the library, into an `InputError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(f"{message}: {error}.") from None


def _glassllm_tokenizer(content: dict[str, Any]) -> "tk.Tokenizer":
    """Byte-pair encoding on characters, whose merges cross neither words nor lines."""
    tk = _import_tokenizers()
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    merges = [tuple(pair) for pair in content["merges"]]
    tokens = [*specials, *content["alphabet"], *(a + b for a, b in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tk.Tokenizer(tk.models.BPE(vocabulary, merges, unk_token="<unk>"))
    normalizers = tk.normalizers
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(" ", "▁")]
    )
    words = tk.Regex("\\n|▁*[^▁\\n]+|▁+")
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(words, "isolated")
    decoders = tk.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens(specials)
    return tokenizer
