"""Checkpoints in runs and scripts: tokenizers, conversion, evaluation, training on."""

import json
import shutil

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk
from golden.copies import make_archive
from helpers import GOLDEN, fast_first
from running import run_here
from safetensors.numpy import load_file

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.models.generate import Draw
from ide_transformer.pretrained import load_pretrained


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


@pytest.fixture
def checkpoint(tmp_path):
    """A small Llama with a tokenizer of 61 tokens."""
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN / "llama", folder)
    letters = {token: i for i, token in enumerate(["[pad]", *map(chr, range(63, 123))])}
    letters[" "] = letters.pop("@")
    letters["."] = letters.pop("A")
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.decoder = tk.decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def config_of(checkpoint, tmp_path, **solver):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    tree = {
        "name": "on",
        "data": {"name": "text", "path": str(text)},
        "model": {"pretrained": str(checkpoint), "context": 16},
        "optimizer": {"warmup": 2, "learning_rate": 0.003},
        "training": {"steps": 40, "batch_size": 8, "log_every": 1, "sample": 0},
    }
    if solver:
        tree["solver"] = solver
    return training.Config.model_validate(tree)


def test_texts_are_padded_and_come_back(checkpoint, tmp_path):
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(checkpoint)
    text = tokenizer.encode_batch(["the sea", "night", "a very long night"], context=10)
    assert text.tokens.shape == (3, 10) and text.mask is not None
    assert text.mask.sum(axis=1).tolist() == [7, 5, 10]
    assert (text.tokens[1, 5:] == 0).all()
    assert tokenizer.decode(text.tokens[0, :7]) == "the sea"
    assert tokenizer.encode("the sea").tolist() == text.tokens[0, :7].tolist()
    tokenizer.save(tmp_path / "stored.json")
    stored = tasks.load_tokenizer(tmp_path / "stored.json")
    assert isinstance(stored, tasks.PretrainedTokenizer)
    assert stored.encode("the wide sea").tolist() == tokenizer.encode("the wide sea").tolist()


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint):
    (checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(ide.InputError, match="is no tokenizer"):
        tasks.PretrainedTokenizer.from_pretrained(checkpoint)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ide.InputError, match=r"tokenizer\.json is missing"):
        tasks.PretrainedTokenizer.from_pretrained(checkpoint)


def test_a_checkpoint_becomes_a_run_and_comes_back(checkpoint, tmp_path):
    folder = training.import_pretrained(str(checkpoint), "imported", tmp_path / "runs")
    loaded = training.load_model(str(folder.path), [])
    with pytest.raises(ide.InputError, match=r"solver\.kind is missing"):
        training.load_model(str(folder.path), ["solver.steps_per_interval=2"])
    with pytest.raises(ide.InputError, match=r"brings its own steps; drop solver\.options"):
        training.load_model(str(folder.path), ["solver={kind: native, options: {a: 1}}"])
    with pytest.raises(ide.InputError, match="name='my run': it names a folder"):
        training.import_pretrained(str(checkpoint), "my run", tmp_path / "runs")
    tokens = np.arange(12)
    assert jnp.array_equal(loaded.model(tokens), load_pretrained(checkpoint)(tokens))
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("the sea")) == "the sea"
    training.export_run(folder.path, tmp_path / "back")
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert (tmp_path / "back" / "tokenizer.json").exists()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "solver", fast_first(0, [{"kind": "strang", "sub_solver": "heun"}, {}], heavy=1)
)
def test_training_goes_on_from_a_checkpoint_with_any_scheme(checkpoint, tmp_path, solver):
    config = config_of(checkpoint, tmp_path, **solver)
    folder = training.train(config, runs=tmp_path / "runs")
    losses = [line["loss"] for line in training.read_metrics(folder.metrics) if "loss" in line]
    task = training.build_task(config)
    model = training.build_model(config, task, jax.random.key(0))
    first = eqx.filter_jit(task.loss)(model, task.batch(0, 8, 0)).loss
    # The first loss is that of the weights of the checkpoint.
    assert losses[0] == pytest.approx(float(first), rel=1e-4)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    native = type(load_pretrained(checkpoint).solver).__name__
    expected = "Strang" if solver else native
    assert type(training.load_model(str(folder.path), []).model.solver).__name__ == expected
    if solver:
        with pytest.raises(ide.InputError, match=r"solver: Strang.* here, LieTrotter"):
            training.export_run(folder.path, tmp_path / "back")
    else:
        training.export_run(folder.path, tmp_path / "back")


def test_a_checkpoint_is_built_with_another_scheme(checkpoint, tmp_path):
    config = config_of(checkpoint, tmp_path, kind="strang", sub_solver="heun")
    model = training.build_model_of_size(config, {}, jax.random.key(0))
    assert eqx.tree_equal(model.solver, ide.Strang(diffrax.Heun()))
    native = load_pretrained(checkpoint)
    assert eqx.tree_equal(model.control, native.control)


def loss_at_16(loaded, text):
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(tokens=16)], text)
    return row


def test_the_loss_of_a_checkpoint_is_the_mean_over_its_windows(checkpoint):
    loaded = training.load_model(str(checkpoint), [])
    text = TEXT[:300]
    found = loss_at_16(loaded, text)
    tokens = loaded.tokenizer.encode(text).astype(int)
    windows = tokens[np.arange(0, len(tokens) - 16, 16)[:, None] + np.arange(17)]
    scores = np.asarray(jax.nn.log_softmax(loaded.model(windows[:, :-1])))
    losses = -np.take_along_axis(scores, windows[:, 1:, None], axis=-1)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    other = training.load_model(str(checkpoint), ["solver.kind=rk4"])
    assert loss_at_16(other, text)["loss"] != found["loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"pretrained": "x", "width": 7}}, r"gives the model; drop model\.width"),
        ({"solver": {"kind": "native"}}, r"solver\.kind=native is the scheme of a checkpoint"),
        (
            {"model": {"pretrained": "x"}, "control": {"kind": "tied"}},
            r"gives the weights and the tokenizer; drop control",
        ),
    ],
)
def test_what_a_checkpoint_gives_cannot_be_configured(tmp_path, change, message):
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(change))
    with pytest.raises(ide.InputError, match=message):
        training.load_config(file)


@pytest.mark.heavy
def test_a_run_from_a_checkpoint_has_an_average(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    (tmp_path / "text.txt").write_text(TEXT)
    keys = {
        "data.name": "text",
        "data.path": tmp_path / "text.txt",
        "model.context": 8,
        "training.average": 0.9,
        "training.steps": 1,
        "training.batch_size": 2,
        "training.sample": 0,
        "optimizer.warmup": 0,
        "optimizer.learning_rate": 1e-3,
    }
    runs = tmp_path / "runs"
    overrides = [f"{key}={value}" for key, value in keys.items()]
    run = training.import_pretrained(str(checkpoint), "x", runs, overrides)
    summary = json.loads(training.resume_run(run.path, runs=runs).summary.read_text())
    loss = summary["validation_loss"]
    assert summary["validation_loss_of_average"] == pytest.approx(loss, rel=1e-2)


def test_a_checkpoint_of_the_wrong_kind_is_refused(tmp_path, checkpoint):
    with pytest.raises(ide.InputError, match="holds a model of TextInputs and States; a Lang"):
        shutil.copy(checkpoint / "tokenizer.json", tmp_path)
        shutil.copytree(GOLDEN / "bert", tmp_path / "bert")
        shutil.copy(checkpoint / "tokenizer.json", tmp_path / "bert")
        training.import_pretrained(str(tmp_path / "bert"), "x", tmp_path / "runs")
    loaded = training.load_model(str(tmp_path / "bert"), [])
    with pytest.raises(ide.InputError, match="predicts no text"):
        training.evaluate_loss(loaded, TEXT)
    loaded = training.load_model(str(checkpoint), [])
    with pytest.raises(ide.InputError, match="need a TextEncoder"):
        training.similarities(loaded, ["one", "two"])
    with pytest.raises(ide.InputError, match=r"model\.width: the weights are given"):
        training.load_model(str(checkpoint), ["model.width=3"])
    assert not (tmp_path / "runs").exists()


def test_scripts_take_checkpoints(checkpoint, tmp_path, capsys):
    sample = ["sample.py", checkpoint, "--prompt", "the", "--length", 5, "--top-p", 0.5]
    assert run_here(capsys, *sample).startswith("the")
    convert = ["convert.py", tmp_path / "none", tmp_path / "runs" / "x"]
    output = run_here(capsys, *convert, expected=2)
    assert "there is no such run or checkpoint" in output and "holds llama." in output


def test_an_archive_becomes_a_run_and_an_archive_that_writes_text(tmp_path, capsys):
    make_archive(tmp_path / "one.npz", vocabulary=11)
    letters = {"alphabet": list("abcdefg"), "merges": []}
    (tmp_path / "one.tokenizer.json").write_text(json.dumps(letters))
    run, two = tmp_path / "runs/one", tmp_path / "new/two"
    run_here(capsys, "convert.py", tmp_path / "one.npz", run)
    run_here(capsys, "convert.py", run, two)
    assert two.is_file() and not two.with_name("two.npz").exists()
    texts = [
        run_here(capsys, "sample.py", path, "--prompt", "abc", "--length", 3).splitlines()[0]
        for path in (tmp_path / "one.npz", run, two)
    ]
    assert texts[0].startswith("abc") and texts == texts[:1] * 3


def test_text_to_text_in_two_lines(checkpoint, tmp_path):
    folder = training.import_pretrained(str(checkpoint), "run", tmp_path)
    loaded = ide.load_model(str(folder.path))
    text = ide.generate(loaded.model, "the sea", 4, temperature=0.0, tokenizer=loaded.tokenizer)
    prompt = jnp.asarray(loaded.tokenizer.encode("the sea"), int)
    tokens = ide.generate(loaded.model, prompt, 4, key=jax.random.key(7), temperature=0.0)
    assert text == loaded.tokenizer.decode(np.asarray(tokens)) and text.startswith("the sea")
    model, run = ide.load_run(str(folder.path))
    tokenizer = run.load_tokenizer()
    assert text == ide.generate(model, "the sea", 4, temperature=0.0, tokenizer=tokenizer)
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(str(checkpoint))
    assert text == ide.generate(model, "the sea", 4, temperature=0.0, tokenizer=tokenizer)
    with pytest.raises(ide.InputError, match=r"give tokenizer=load_model\(path\)\.tokenizer"):
        ide.generate(model, "the sea", 4, temperature=0.0)


def test_the_most_likely_tokens_that_have_a_probability_are_drawn_from(key):
    probabilities = jnp.array([0.1, 0.5, 0.05, 0.35])
    logits = jnp.broadcast_to(jnp.log(probabilities), (2000, 4))
    for top_p, expected in ((0.4, {1}), (0.6, {1, 3}), (0.9, {0, 1, 3}), (1.0, {0, 1, 2, 3})):
        drawn = Draw(1.0, None, top_p)(logits, key)
        assert set(np.asarray(drawn).tolist()) == expected
    drawn = Draw(1.0, None, 0.6)(logits, key)
    assert jnp.mean(drawn == 1) == pytest.approx(0.5 / 0.85, abs=0.04)
