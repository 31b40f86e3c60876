"""Translations of verses: chapters, the cache, what a decoder sees, and BLEU."""

import functools as ft
import json
import sys
from unittest.mock import Mock

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, training
from ide_transformer.contrib import translation, verses
from tests.helpers import built
from tests.running import run_here
from tests.training import stub


WORDS = {"sea": "mar", "night": "noche", "wind": "viento", "wide": "ancho", "long": "largo"}


def pairs():
    random = np.random.default_rng(0)
    for number in range(240):
        english = random.choice(list(WORDS), 3 + number % 3).tolist()
        yield f"Book {number // 6}", " ".join(english), " ".join(WORDS[x] for x in english)


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setattr(verses, "cached_verses", lambda path: list(pairs()))
    operators = ["attention", "cross_attention", "feed_forward"]
    model = {"kind": "translation_model", "layers": 1, "context": 48, "operators": operators}
    data = {"name": "verses_en_es", "path": str(tmp_path), "vocabulary": 270}
    return stub.config(data=data, model=model)


def test_parts_are_whole_chapters_and_texts_come_back(config, tmp_path, monkeypatch):
    """Also those as they are now, in the tokens that a run learned."""
    task = training.build_task(config)
    assert isinstance(task, contrib.VersesEnEs)
    known, sizes = {(english, spanish) for _, english, spanish in pairs()}, {}
    for part in task.parts:
        batches = list(task.held_out(5, part=part))
        sizes[part] = sum(len(b.targets) for b in batches)
        for batch in batches:
            source, text = batch.inputs
            found = zip(task.texts(source.tokens), task.texts(batch.targets), strict=True)
            assert set(found) <= known
            assert (text[:, 0] == task.end).all() and (source.mask.sum(1) > 1).all()
            # What follows a token is what is to be predicted there.
            ahead = batch.targets[:, :-1] != verses.UNCOUNTED
            assert (text[:, 1:] == batch.targets[:, :-1])[ahead].all()
    assert sizes == {"validation": 12, "test": 12} and task.dropped == 0
    short = contrib.VersesEnEs(tmp_path, 20, 270)
    assert short.dropped > 0
    monkeypatch.setattr(verses, "cached_verses", lambda path: [*pairs()][::2])
    found = training.build_task(config, task.tokenizer)
    assert found.tokenizer.vocabulary == task.tokenizer.vocabulary
    assert found.end == task.end and found.fingerprint() != task.fingerprint()


def test_verses_of_both_texts_are_read_once(tmp_path, monkeypatch):
    texts = {
        "engKJV2006eb": {(1, 1): "Now it\n came", (1, 2): "And the name"},
        "spaRV1909eb": {(1, 1): "Y aconteció", (2, 1): "Y tenía Noemi"},
    }
    sword, structure = Mock(), Mock()
    structure.get_books.return_value = {"ot": [Mock(chapter_lengths=[2, 1])]}
    structure.get_books.return_value["ot"][0].name = "Ruth"
    sword.SwordModules.return_value.get_bible_from_module = lambda name: Mock(
        get_structure=lambda: structure,
        get=lambda books, chapters, verses: texts[name].get((*chapters, *verses), ""),
    )
    monkeypatch.setitem(sys.modules, "pysword", Mock())
    monkeypatch.setitem(sys.modules, "pysword.modules", sword)
    monkeypatch.setattr(verses, "require", Mock())
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ide.InputError, match=r"engKJV2006eb\.conf is missing\. Run apt-get"):
        verses.cached_verses(tmp_path)
    for number, name in enumerate(texts):
        (tmp_path / f"mods.d/{name}.conf").parent.mkdir(exist_ok=True)
        (tmp_path / f"mods.d/{name}.conf").write_text(f"[a]\nDataPath=./modules/{number}/\n")
    (tmp_path / "modules/1").mkdir(parents=True)
    (tmp_path / "modules/1/nt.bzz").write_bytes(b"first")
    found = [("Ruth 1", "Now it came", "Y aconteció")]
    assert verses.cached_verses(tmp_path) == verses.cached_verses(tmp_path) == found
    sword.SwordModules.assert_called_once_with(str(tmp_path))
    # Other texts are read; a damaged cache is not.
    (tmp_path / "modules/1/nt.bzz").write_bytes(b"second")
    texts["spaRV1909eb"][1, 2] = "Y el nombre"
    assert len(verses.cached_verses(tmp_path)) == sword.SwordModules.call_count == 2
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes().replace(b"Ruth", b"Rut."))
    with pytest.raises(ide.InputError, match=r"is damaged\. Delete it"):
        verses.cached_verses(tmp_path)


def test_a_translation_sees_no_later_word(config):
    """And all of its source."""
    task = training.build_task(config)
    build = ft.partial(training.build_model, config, task)
    model = built(lambda: build(jax.random.key(0)))
    batch = task.batch(0, 2, seed=0)
    source, text = batch.inputs
    outputs = eqx.filter_jit(
        lambda text, tokens: model(
            batch.inputs._replace(source=source._replace(tokens=tokens), text=text)
        )
    )
    before = np.asarray(outputs(text, source.tokens))
    later = np.where(np.arange(text.shape[1]) < 4, text, 1)
    off = np.abs(outputs(later, source.tokens) - before).max(axis=(0, 2))
    assert off[:4].max() == 0 < off[4:].min()
    off = np.abs(
        outputs(text, np.where(np.arange(text.shape[1]) < 1, 1, source.tokens)) - before
    )
    assert off.max(axis=2).min() > 0


@pytest.mark.heavy
def test_a_run_translates(config, tmp_path, capsys):
    run = training.train(config, runs=tmp_path / "runs")
    assert json.loads(run.summary.read_text())["test_loss"] > 0
    loaded = training.load_model(run.path)
    greedy = translation.translated(loaded, samples=6)
    assert len(greedy) == 6
    pytest.importorskip("sacrebleu")
    perfect = [x._replace(written=x.reference) for x in greedy]
    assert translation.bleu(perfect)[0] == pytest.approx(100)
    assert "BLEU" in run_here(capsys, "translate", run.path, "--samples", "4")
