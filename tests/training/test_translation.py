"""The verses as a task, and translations by a run on them."""

import json

import numpy as np
import pytest
from running import run_here
from training import stub

from ide_transformer import InputError, tasks, training
from ide_transformer.tasks import verses


WORDS = {"sea": "mar", "night": "noche", "wind": "viento", "wide": "ancho", "long": "largo"}


def pairs():
    random = np.random.default_rng(0)
    for number in range(240):
        english = random.choice(list(WORDS), 3 + number % 3).tolist()
        yield f"Book {number // 6}", " ".join(english), " ".join(WORDS[x] for x in english)


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setattr(verses, "cached_verses", lambda path: list(pairs()))
    return config_of(tmp_path)


def config_of(tmp_path, **changes):
    operators = ["attention", "cross_attention", "feed_forward"]
    model = {"kind": "translation_model", "depth": 1, "context": 48, "operators": operators}
    data = {"name": "verses_en_es", "path": str(tmp_path), "vocabulary": 270}
    return stub.config(data=data, model=model | changes)


def test_parts_are_whole_chapters_and_texts_come_back(config, tmp_path):
    task = training.build_task(config)
    assert isinstance(task, tasks.VersesEnEs)
    known = {(english, spanish) for _, english, spanish in pairs()}
    sizes = {}
    for part in task.parts:
        batches = list(task.held_out(5, part=part))
        sizes[part] = sum(len(b.targets) for b in batches)
        for batch in batches:
            source, text = batch.inputs
            found = zip(task.texts(source.tokens), task.texts(batch.targets), strict=True)
            assert set(found) <= known
            assert (text[:, 0] == task.end).all() and (source.mask.sum(1) > 1).all()
            ahead = batch.targets[:, :-1] != verses.UNCOUNTED
            # What follows a token is what is to be predicted there.
            assert (text[:, 1:] == batch.targets[:, :-1])[ahead].all()
    assert sizes == {"validation": 12, "test": 12} and task.dropped == 0
    short = tasks.VersesEnEs(tmp_path, 20, 270)
    assert short.dropped > 0
    with pytest.raises(InputError, match=r"no verse of at most model\.context=1 tokens"):
        tasks.VersesEnEs(tmp_path, 1, 270)


@pytest.mark.heavy
def test_a_run_translates(config, tmp_path, capsys):
    run = training.train(config, runs=tmp_path / "runs")
    assert json.loads(run.summary.read_text())["test_loss"] > 0
    loaded = training.load_model(run.path)
    greedy = training.translated(loaded, samples=6)
    assert len(greedy) == 6
    known = {(english, spanish) for _, english, spanish in pairs()}
    assert all((x.source, x.reference) in known for x in greedy)
    pytest.importorskip("sacrebleu")
    perfect = [x._replace(written=x.reference) for x in greedy]
    assert training.bleu(perfect)[0] == pytest.approx(100)
    assert "BLEU" in run_here(capsys, "translate.py", run.path, "--samples", "4", "--beams", 3)
    average = ("--weights", "average", "--samples", "4", "solver.kind=heun")
    said = run_here(capsys, "translate.py", run.path, *average, expected=2)
    assert "training.average" in said


def test_texts_that_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"engKJV2006eb\.conf is missing\. Run apt-get"):
        tasks.VersesEnEs(tmp_path, 64)


def test_verses_are_read_again_where_their_files_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    read = []
    monkeypatch.setattr(verses, "_read", lambda path: (read.append(path), [*pairs()])[1])
    for name in ("engKJV2006eb", "spaRV1909eb"):
        (tmp_path / "mods.d").mkdir(exist_ok=True)
        (tmp_path / name).mkdir()
        (tmp_path / name / "ot.bzz").write_text("verses")
        (tmp_path / f"mods.d/{name}.conf").write_text(f"[{name}]\nDataPath=./{name}/\n")
    for _ in range(2):
        assert verses.cached_verses(tmp_path) == [*pairs()]
    assert len(read) == 1
    (tmp_path / "spaRV1909eb/ot.bzz").write_text("others")
    verses.cached_verses(tmp_path)
    assert len(read) == 2
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes().replace(b"mar", b"rio"))
    with pytest.raises(
        InputError, match=r"is damaged\. Delete it, and the verses are read again"
    ):
        verses.cached_verses(tmp_path)


def test_a_run_keeps_its_tokens(config, tmp_path, monkeypatch):
    """Its texts as they are now, in the tokens that it learned."""
    learned = training.build_task(config)
    other = training.build_task(config, learned.tokenizer)
    assert other.tokenizer.vocabulary == learned.tokenizer.vocabulary
    assert other.end == learned.end and other.fingerprint() == learned.fingerprint()
    monkeypatch.setattr(verses, "cached_verses", lambda path: [*pairs()][::2])
    found = training.build_task(config, learned.tokenizer)
    assert found.tokenizer.vocabulary == learned.tokenizer.vocabulary
    assert found.fingerprint() != learned.fingerprint()


def test_the_encoder_has_operators_of_its_own(config, tmp_path):
    task = training.build_task(config)
    model = stub.model_of(config, **task.sizes)
    block = model.control(0.0)
    assert [type(x).__name__ for x in block] == ["Attention", "CrossAttention", "FeedForward"]
    assert block[0].causal
    encoder = model.inputs.encoder
    block = encoder.control(0.0)
    assert [type(x).__name__ for x in block] == ["Attention", "FeedForward"]
    assert not block[0].causal and task.sizes["vocabulary"] == encoder.inputs.vocabulary
    with pytest.raises(InputError, match="a constraint with weights belongs to one of its two"):
        stub.model_of(config_of(tmp_path, constraint="layer_norm"), **task.sizes)
