import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as tk

from ..errors import InputError
from ..models import Text
from ..pretrained import find_pretrained, tokenizer_file
from ..pretrained.files import read_json
from .tokenizers import END, AbstractTokenizer, BytePairTokenizer, CharacterTokenizer


# Names of the token that ends a document.
_ENDS = (END, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
# The largest known, of 260,000 tokens, has 33 MB.
_MOST_BYTES = 128 * 2**20


class PretrainedTokenizer(AbstractTokenizer):
    """The tokenizer of a checkpoint, of any kind. `encode` leaves out the tokens that mark
    the beginning and the end of a text."""

    def __init__(self, tokenizer: tk.Tokenizer):
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Some that are damaged fail at the first text only.
        self._tokenizer.encode("")

    @property
    def vocabulary(self) -> int:
        # There may be numbers that no token has.
        return max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def encode(self, text: str) -> np.ndarray:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(ids, np.uint32)

    def encode_batch(self, texts: Sequence[str], context: int) -> Text:
        if isinstance(texts, str) or not texts:
            raise InputError(f"encode_batch: texts={texts!r}; give a list of strings.")
        self._tokenizer.enable_truncation(context)
        encoded = self._tokenizer.encode_batch(list(texts))
        self._tokenizer.no_truncation()
        longest = max(len(text.ids) for text in encoded)

        def padded(name: str) -> np.ndarray:
            rows = np.zeros((len(encoded), longest), np.int32)
            for row, text in zip(rows, encoded, strict=True):
                row[: len(text.ids)] = getattr(text, name)
            return rows

        mask = padded("attention_mask").astype(bool)
        return Text(padded("ids"), mask, padded("type_ids"))

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self._tokenizer.decode([int(token) for token in tokens])

    def ending(self) -> tuple["PretrainedTokenizer", int]:
        """The end of text of the checkpoint."""
        for name in _ENDS:
            token = self._tokenizer.token_to_id(name)
            if token is not None:
                return self, token
        raise InputError(
            f"the tokenizer of the checkpoint has none of the tokens {', '.join(_ENDS)}, which "
            "end a document; take another tokenizer."
        )

    def save(self, path: Path) -> None:
        content = {"checkpoint": json.loads(self._tokenizer.to_str())}
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "PretrainedTokenizer":
        """Reads the tokenizer of a checkpoint, which is found as by `load_pretrained`:
        `tokenizer.json` in its folder, or `<name>.tokenizer.json` next to an archive of
        glassllm.

        **Raises:** `InputError` where there is none.
        """
        path = find_pretrained(path)
        file = tokenizer_file(path)
        if not file.is_file():
            raise InputError(
                f"{file} is missing: the checkpoint has no tokenizer, so it can neither read "
                "nor write text. Put the tokenizer.json of its release there."
            )
        with _reading(file):
            if path.is_file():
                return cls(_glassllm(read_json(file)))
            return cls(tk.Tokenizer.from_file(str(file)))


def load_tokenizer(path: Path) -> AbstractTokenizer:
    """The tokenizer that was saved to `path`.

    **Raises:** `InputError` where the file is damaged or of another kind.
    """
    with _reading(path):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if "characters" in content:
            return CharacterTokenizer(content["characters"])
        if "checkpoint" in content:
            stored = json.dumps(content["checkpoint"])
            return PretrainedTokenizer(tk.Tokenizer.from_str(stored))
        return BytePairTokenizer(tk.Tokenizer.from_str(text))


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the file."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(f"it has more than {_MOST_BYTES:,} bytes")
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the library has no exception of its own, and panics
        raise InputError(f"{file} is no tokenizer: {error}.") from None


def _glassllm(content: dict[str, Any]) -> tk.Tokenizer:
    """Byte-pair encoding on characters, whose merges cross neither words nor lines."""
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    merges = [tuple(pair) for pair in content["merges"]]
    tokens = [*specials, *content["alphabet"], *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tk.Tokenizer(tk.models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = tk.normalizers.Sequence(
        [tk.normalizers.NFC(), tk.normalizers.Replace(" ", "▁")]
    )
    words = tk.Regex("\\n|▁*[^▁\\n]+|▁+")
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(words, "isolated")
    tokenizer.decoder = tk.decoders.Sequence(
        [tk.decoders.Replace("▁", " "), tk.decoders.Fuse()]
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer
