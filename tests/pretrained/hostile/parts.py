"""Tokenizers and texts that attack their reader."""

import json
import os

from golden.copies import changed_copy
from pretrained.hostile.registry import DEEP, attack

from ide_transformer import tasks


# The library does not raise an exception for these, it panics: at once, or at the first text.
WORDS = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "////"}
ENDS = [{"SpecialToken": {"id": "</s>", "type_id": 0}}]
TEMPLATE = {"type": "TemplateProcessing", "single": ENDS, "pair": ENDS, "special_tokens": {}}
TOKENIZERS = {
    "nested": DEEP,
    "that_panics": json.dumps(WORDS | {"normalizer": CHARACTERS}),
    "that_panics_later": json.dumps(WORDS | {"post_processor": TEMPLATE}),
    "of_8_GB": "{",
}


@attack(*TOKENIZERS)
def tokenizer(folder, case):
    file = changed_copy(folder, "llama") / "tokenizer.json"
    file.write_text(TOKENIZERS[case])
    if case == "of_8_GB":
        os.truncate(file, 8 * 2**30)
    return file, lambda: tasks.PretrainedTokenizer.from_pretrained(folder)


@attack(
    '{"characters": 5}', '{"characters": "ba"}', '{"characters": "aab"}', '{"checkpoint": 1}'
)
def saved_tokenizer(folder, content):
    file = folder / "tokenizer.json"
    file.write_text(content)
    return file, lambda: tasks.load_tokenizer(file)


@attack()
def text(folder):
    (folder / "plays.txt").mkdir()
    return folder, lambda: tasks.read_text(folder)
