"""Text to integers and back."""

import abc
import contextlib
import functools as ft
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Int

from ..errors import InputError
from ..models import Text
from ..packages import require
from ..pretrained import find_pretrained, tokenizer_file
from ..pretrained.files import read_json


if TYPE_CHECKING:
    import tokenizers as tk

# Names of the token that ends a document; the first is ours.
_ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
_END_CHARACTER = "\x03"
# The ends of lines of `str.splitlines`.
_LINE_END = "\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"


def _library() -> ModuleType:
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
        """The bytes in UTF-8 of the text of each token; 0 for a token that `decode` leaves
        out."""
        texts = (self.decode([token]) for token in range(self.vocabulary))
        return np.array([len(text.encode()) for text in texts])

    def encode_batch(self, texts: Sequence[str], context: int) -> Text:
        """Texts with the tokens that mark beginning and end, cut to `context` tokens and
        padded to the longest; `InputError` if there are no such tokens."""
        raise self._lacks("tokens that mark the end of a text", "encode_batch")

    def ending(self) -> tuple["AbstractTokenizer", int]:
        """The tokenizer with a token that ends a document, and that token; `InputError` if
        there is none. A text that contains it ends there."""
        raise self._lacks("token that ends a document", "ending")

    def for_others(self) -> "tk.Tokenizer":
        """A tokenizer of the library `tokenizers` that gives the same tokens; `InputError` if
        there is none."""
        raise self._lacks("form for other libraries", "for_others")

    def _lacks(self, what: str, method: str) -> InputError:
        return InputError(f"{type(self).__name__} has no {what}; define {method}().")

    @abc.abstractmethod
    def save(self, path: str | Path) -> None:
        """Writes a JSON file that `load_tokenizer` reads."""


class CharacterTokenizer(AbstractTokenizer):
    """One token for each character, in the order of code points."""

    def __init__(self, characters: str):
        if "".join(sorted(set(characters))) != characters:
            raise InputError(
                "CharacterTokenizer: give each character once, in the order of code points, or "
                "write CharacterTokenizer.train(text)."
            )
        self.characters = characters
        points = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
        # The token of each code point; `vocabulary` for none.
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
                f"The character {first!r} does not occur in the text of the training; the "
                f"model knows {self.characters!r}."
            )
        return tokens

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return "".join(self.characters[token] for token in tokens)

    def ending(self) -> tuple["CharacterTokenizer", int]:
        """The character U+0003, END OF TEXT, ends a document."""
        tokenizer = CharacterTokenizer.train(self.characters + _END_CHARACTER)
        return tokenizer, tokenizer.characters.index(_END_CHARACTER)

    def for_others(self) -> "tk.Tokenizer":
        tk = _library()
        numbers = {character: number for number, character in enumerate(self.characters)}
        tokenizer = tk.Tokenizer(tk.models.WordLevel(numbers))
        tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(tk.Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = tk.decoders.Fuse()
        return tokenizer

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"characters": self.characters}), encoding="utf-8")


class _LibraryTokenizer(AbstractTokenizer):
    """Base class of tokenizers of the library `tokenizers`."""

    def __init__(self, tokenizer: "tk.Tokenizer"):
        self._tokenizer = tokenizer
        # Some numbers may have no token.
        self._numbers = sorted(tokenizer.get_vocab().values())

    @property
    def vocabulary(self) -> int:
        return self._numbers[-1] + 1 if self._numbers else 0

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self._called("decode", [int(token) for token in tokens])

    def _called(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of the library, which panics if a pattern takes too long."""
        with _named_errors("the tokenizer fails at this text"):
            return getattr(self._tokenizer, method)(*arguments, **options)

    @ft.cached_property
    def token_bytes(self) -> Int[np.ndarray, " vocabulary"]:
        # Decoded after another token, since some decoders change the beginning of a text.
        first = self.encode("a")[:1].tolist()
        texts = self._called("decode_batch", [[*first, token] for token in self._numbers])
        before = len(self.decode(first).encode())
        sizes = np.zeros(self.vocabulary, int)
        for token, text in zip(self._numbers, texts, strict=True):
            sizes[token] = len(text.encode()) - before
            if "\ufffd" in text:  # a part of a character
                name = cast(str, self._tokenizer.id_to_token(token))
                sizes[token] = 1 if name.startswith("<0x") else len(name)
        return sizes


class BytePairTokenizer(_LibraryTokenizer):
    """Byte-pair encoding on bytes, as in GPT-2; every text can be encoded."""

    @classmethod
    def train(cls, text: str, vocabulary: int) -> "BytePairTokenizer":
        """Learns `vocabulary` tokens from a text; 256 of them are the bytes."""
        if vocabulary < 256:
            raise InputError(
                f"vocabulary={vocabulary}: 256 tokens are the bytes; give at least 256."
            )
        tk = _library()
        tokenizer = tk.Tokenizer(tk.models.BPE())
        tokenizer.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tk.decoders.ByteLevel()
        trainer = tk.trainers.BpeTrainer(
            # It reserves memory for them; a text has no more pairs than bytes.
            vocab_size=min(vocabulary, 256 + 4 * len(text)),
            initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> np.ndarray:
        lines = self._called("encode_batch", text.splitlines(keepends=True))
        tokens = [np.asarray(line.ids, dtype=np.int32) for line in lines]
        return np.concatenate(tokens) if tokens else np.zeros(0, np.int32)

    def ending(self) -> tuple["BytePairTokenizer", int]:
        """One more token, which `decode` leaves out."""
        tokenizer = _library().Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.add_special_tokens([_ENDS[0]])
        return BytePairTokenizer(tokenizer), cast(int, tokenizer.token_to_id(_ENDS[0]))

    def for_others(self) -> "tk.Tokenizer":
        tk = _library()
        tokenizer = tk.Tokenizer.from_str(self._tokenizer.to_str())
        # `encode` takes line by line.
        lines = tk.pre_tokenizers.Split(tk.Regex(_LINE_END), "merged_with_previous")
        words = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = tk.pre_tokenizers.Sequence([lines, words])
        return tokenizer

    def save(self, path: str | Path) -> None:
        # The library's own save hides the error of the system.
        Path(path).write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")


class PretrainedTokenizer(_LibraryTokenizer):
    """The tokenizer of a checkpoint, of any kind. `encode` leaves out the marks of the
    beginning and the end of a text."""

    def __init__(self, tokenizer: "tk.Tokenizer"):
        super().__init__(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Some damaged files fail only at the first text.
        self._tokenizer.encode("")

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._called("encode", text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str], context: int) -> Text:
        if isinstance(texts, str) or not texts:
            raise InputError(f"encode_batch: texts={texts!r}; give a list of strings.")
        marks = self._tokenizer.num_special_tokens_to_add(False)
        if context < marks:
            raise InputError(
                f"encode_batch: context={context}: {marks} tokens mark the beginning and the "
                "end of a text; give more."
            )
        self._tokenizer.enable_truncation(context)
        encoded = self._called("encode_batch", list(texts))
        self._tokenizer.no_truncation()
        longest = max(len(text.ids) for text in encoded)
        tokens, mask, types = np.zeros((3, len(encoded), longest), np.int32)
        for row, text in enumerate(encoded):
            here = row, slice(len(text.ids))
            tokens[here] = text.ids
            mask[here] = text.attention_mask
            types[here] = text.type_ids
        return Text(tokens, mask.astype(bool), types)

    def ending(self) -> tuple["PretrainedTokenizer", int]:
        name = end_token(self._tokenizer)
        if name is not None:
            return self, cast(int, self._tokenizer.token_to_id(name))
        raise InputError(
            f"the tokenizer of the checkpoint has no token that ends a document, such as "
            f"{_ENDS[0]} or {_ENDS[1]}; take another tokenizer."
        )

    def for_others(self) -> "tk.Tokenizer":
        # Without marks of the beginning and the end, as `encode`.
        content = json.loads(self._tokenizer.to_str()) | {"post_processor": None}
        return _library().Tokenizer.from_str(json.dumps(content))

    def save(self, path: str | Path) -> None:
        content = {"checkpoint": json.loads(self._tokenizer.to_str())}
        Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "PretrainedTokenizer":
        """Reads the tokenizer of a checkpoint that `load_pretrained` finds: `tokenizer.json` in
        its folder, or `<name>.tokenizer.json` next to an archive of glassllm; `InputError` if
        there is none."""
        path = find_pretrained(path)
        file = tokenizer_file(path)
        if not file.is_file():
            raise InputError(
                f"{file} is missing, so the checkpoint can neither read nor write text. Put "
                "the tokenizer.json of its release there."
            )
        tokenizer = _library().Tokenizer
        with _named_errors(f"{file} is not a tokenizer"):
            if path.is_file():
                return cls(_glassllm(read_json(file)))
            return cls(tokenizer.from_file(str(file)))


def end_token(tokenizer: "tk.Tokenizer") -> str | None:
    """The token that ends a document, if there is one."""
    known = (x for x in (*_ENDS, _END_CHARACTER) if tokenizer.token_to_id(x) is not None)
    return next(known, None)


def load_tokenizer(path: str | Path) -> AbstractTokenizer:
    """The tokenizer that was saved to `path`; `InputError` if the file is damaged."""
    path = Path(path)
    with _named_errors(f"{path} is not a tokenizer"):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "characters" in content:
            return CharacterTokenizer(content["characters"])
    tokenizer = _library().Tokenizer
    with _named_errors(f"{path} is not a tokenizer"):
        if "checkpoint" in content:
            return PretrainedTokenizer(tokenizer.from_str(json.dumps(content["checkpoint"])))
        found = tokenizer.from_str(text)
        # The tokenizer of a checkpoint may do more than merge bytes.
        more = any(content.get(x) for x in ("post_processor", "truncation", "padding"))
        bytes_alone = (content.get("pre_tokenizer") or {}).get("type") == "ByteLevel"
        merges = content["model"].get("type", "BPE") == "BPE" and bytes_alone and not more
        return BytePairTokenizer(found) if merges else PretrainedTokenizer(found)


@contextlib.contextmanager
def _named_errors(said: str) -> Iterator[None]:
    """Turns all errors inside, also panics of the library, into an `InputError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(f"{said}: {error}.") from None


def _glassllm(content: dict[str, Any]) -> "tk.Tokenizer":
    """Byte-pair encoding on characters, whose merges cross neither words nor lines."""
    tk = _library()
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    merges = [tuple(pair) for pair in content["merges"]]
    tokens = [*specials, *content["alphabet"], *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tk.Tokenizer(tk.models.BPE(vocabulary, merges, unk_token="<unk>"))
    to = tk.normalizers
    tokenizer.normalizer = to.Sequence([to.NFC(), to.Replace(" ", "▁")])
    words = tk.Regex("\\n|▁*[^▁\\n]+|▁+")
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(words, "isolated")
    back = tk.decoders
    tokenizer.decoder = back.Sequence([back.Replace("▁", " "), back.Fuse()])
    tokenizer.add_special_tokens(specials)
    return tokenizer
