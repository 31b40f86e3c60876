"""Arguments of tasks, and tokenizers, that are wrong."""

import jax
import numpy as np
import pytest
import tokenizers as tk

import ide_transformer as ide
from ide_transformer import tasks


TEXT = "the sea is wide and the night is long\n" * 20


def test_names_that_are_none():
    with pytest.raises(
        ide.InputError, match="tokenizer='character': tokenizer should be 'characters' or 'bpe'"
    ):
        tasks.LanguageTask(TEXT, 8, tokenizer="character")
    with pytest.raises(ide.InputError, match="part='train'"):
        next(tasks.LanguageTask(TEXT, 8).held_out(2, part="train"))
    with pytest.raises(ide.InputError, match="BurgersInterval: points='grids'"):
        tasks.BurgersInterval(17, points="grids")
    with pytest.raises(ide.InputError, match="vocabulary=10: 256 tokens are the bytes"):
        tasks.LanguageTask(TEXT, 8, tokenizer="bpe", vocabulary=10)


def test_numbers_that_no_token_has_count(tmp_path):
    """A file of tokens has room for the greatest."""
    words = {"a": 0, "b": 70000, "<|endoftext|>": 2, "[UNK]": 3}
    tokenizer = tasks.PretrainedTokenizer(tk.Tokenizer(tk.models.WordLevel(words, "[UNK]")))
    assert tokenizer.vocabulary == 70001
    tokenizer.save(tmp_path / "words.json")
    (tmp_path / "a.jsonl").write_text('{"text": "b"}\n' * 9)
    task = tasks.Dataset(tmp_path / "a.jsonl", 1, str(tmp_path / "words.json"))
    assert task.windows_at(np.array([0, 3])).tolist() == [[70000, 2], [2, 70000]]


def test_texts_that_are_none_are_not_encoded():
    words = {"a": 0, "[UNK]": 1}
    tokenizer = tasks.PretrainedTokenizer(tk.Tokenizer(tk.models.WordLevel(words, "[UNK]")))
    with pytest.raises(ide.InputError, match="give a list of strings"):
        tokenizer.encode_batch("a b", 4)


def test_a_folder_with_the_name_of_a_text(tmp_path):
    (tmp_path / "in/more.txt").mkdir(parents=True)
    (tmp_path / "in/more.txt/a.txt").write_text(TEXT)
    assert tasks.read_text(str(tmp_path / "in")) == TEXT
    assert len(tasks.Dataset(tmp_path / "in", 8).tokens) == len(TEXT) + 1


def test_tokens_of_a_cached_decoder():
    """Those of a tokenizer have no sign; a list is none."""
    model = ide.LanguageModel(
        7,
        6,
        4,
        control=ide.Tied((ide.Damping(0.1),), 1),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(0),
    )
    decoder = ide.CachedDecoder(model, 6)
    tokens = tasks.CharacterTokenizer.train("abcdefg").encode("face")
    logits, cache = decoder.prefill(tokens[:3])
    after, _ = decoder.extend(tokens[3], np.int32(3), cache)
    whole = model(tokens)
    np.testing.assert_allclose([logits, after], whole[2:], atol=1e-6)
    with pytest.raises(ide.InputError, match=r"prompt=\[1, 2\]"):
        decoder.prefill([1, 2])
    with pytest.raises(ide.InputError, match="it is empty; give it at least one token"):
        model(np.zeros((2, 0), int))
