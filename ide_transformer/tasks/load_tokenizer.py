import json
from pathlib import Path

import tokenizers as tk

from .pretrained_tokenizer import PretrainedTokenizer
from .tokenizers import AbstractTokenizer, BytePairTokenizer, CharacterTokenizer


def load_tokenizer(path: Path) -> AbstractTokenizer:
    """The tokenizer that was saved to `path`."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    if "characters" in content:
        return CharacterTokenizer(content["characters"])
    if "checkpoint" in content:
        stored = json.dumps(content["checkpoint"])
        return PretrainedTokenizer(tk.Tokenizer.from_str(stored))
    return BytePairTokenizer(tk.Tokenizer.from_str(text))
