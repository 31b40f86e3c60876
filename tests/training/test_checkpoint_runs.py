"""Checkpoints in runs and scripts: tokenizers, conversion, evaluation, training on."""

import json
import re
import shutil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import tokenizers as tk
import yaml
from safetensors.numpy import load_file

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.pretrained import load_pretrained
from ide_transformer.training.configuration import files
from ide_transformer.training.setup import setup
from ide_transformer.training.steps import build
from tests.golden.copies import changed_copy
from tests.helpers import GOLDEN, largest
from tests.running import run_here
from tests.training import stub
from tests.training.conftest import RUN, TEXT, config, contents, equal


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A small Llama with a tokenizer of 61 tokens, in the current folder."""
    folder = changed_copy(tmp_path / "llama", "llama", max_position_embeddings=32)
    letters = {token: i for i, token in enumerate(["[pad]", *map(chr, range(63, 123))])}
    letters[" "] = letters.pop("@")
    letters["."] = letters.pop("A")
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.decoder = tk.decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    # Whether it sees later tokens is tried elsewhere; it takes a second.
    monkeypatch.setattr(build, "check_causal", lambda *_: None)
    return folder


def test_a_checkpoint_becomes_a_run_that_writes_text_and_comes_back(checkpoint):
    run = training.import_pretrained("llama", "imported", "runs")
    model, tokenizer = ide.load_run(run.path)[0], run.load_tokenizer()
    assert equal(model, load_pretrained(checkpoint))
    assert run.load_config().model.context == model.inputs.context == 32
    text = ide.generate(model, "the sea", 4, temperature=0.0, tokenizer=tokenizer)
    assert text.startswith("the sea") and len(text) > len("the sea")
    # The configuration of a run on a text that begins with its weights.
    Path("text.txt").write_text(TEXT)
    tree = {"name": "on", "data": {"name": "text", "path": "text.txt"}}
    tree["model"] = {"pretrained": "imported", "context": 16}
    on = files.config_of(tree, "here")
    assert on.model.pretrained == str(checkpoint) and on.model.run == str(run.path.resolve())
    start = setup(on)
    assert equal(start.model, model) and start.task.sizes["vocabulary"] == tokenizer.vocabulary
    training.export_run("runs/imported", "back")
    before, after = (load_file(Path(x, "model.safetensors")) for x in (checkpoint, "back"))
    assert before.keys() == after.keys() and equal(before, after)
    assert Path("back/tokenizer.json").exists()


def test_the_loss_of_a_checkpoint_is_the_mean_over_its_windows(checkpoint):
    loaded = training.load_model(str(checkpoint), [])
    text = TEXT[:300]
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(tokens=16)], text)
    tokens = loaded.tokenizer.encode(text).astype(int)
    windows = tokens[np.arange(0, len(tokens) - 16, 16)[:, None] + np.arange(17)]
    scores = jax.nn.log_softmax(eqx.filter_jit(loaded.model)(windows[:, :-1]))
    losses = -np.take_along_axis(np.asarray(scores), windows[:, 1:, None], axis=-1)
    assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert row["perplexity"] == pytest.approx(np.exp(row["loss"]))
    size = len(loaded.tokenizer.decode(windows[:, 1:].ravel()).encode())
    bits = np.sum(losses) / np.log(2) / size
    assert row["bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_an_encoder_writes_no_text_and_the_command_says_what_to_call(capsys):
    output = run_here(capsys, "sample", GOLDEN / "bert", expected=2)
    assert "x.model(x.tokenizer.encode_batch" in output


TREE = stub.tree()
YAML = r"```yaml\n(.*?)```"
TUNED = {"model": {"pretrained": "small", "checkpoint": 2}, "optimizer": TREE["optimizer"]}
TUNED |= {"training": TREE["training"] | {"seed": 1}}


def test_a_run_begins_with_the_weights_of_another_and_outlives_it(folder):
    (folder / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    source, source_run = ide.load_run(RUN, checkpoint=2)
    before = source_run.load_config()
    run = stub.start_run(ide.training.load_config("tuned.yaml"), RUN.parent)
    run_config = run.load_config()
    assert (run_config.data, run_config.control) == (before.data, before.control)
    assert run.tokenizer.read_bytes() == source_run.tokenizer.read_bytes()
    start_of_run = setup(run_config)
    task, model, start = start_of_run.task, start_of_run.model, start_of_run.origin
    assert equal(model.control, source.control)
    assert run.start == start and (start["run"], start["step"]) == (source_run.identity, 2)
    # Where it has to begin again, it does so with the same weights only.
    unbegun = training.RunFolder(shutil.copytree(run.path, folder / "unbegun"))
    shutil.rmtree(unbegun.checkpoints)
    unbegun.checkpoints.mkdir()
    unbegun.fingerprints.write_text(
        unbegun.fingerprints.read_text().replace(start["weights"], "0")
    )
    with pytest.raises(ide.InputError, match="its start"):
        training.resume_run(unbegun.path)
    shutil.rmtree(RUN)
    first = eqx.filter_jit(task.loss)(source, task.batch(0, 4, 1)).loss
    training.resume_run(run.path)
    assert stub.losses(run)[0] == pytest.approx(float(first), rel=1e-5)


def test_options_that_are_not_given_are_those_of_the_run(tmp_path):
    options = {"lengths": [1, 2], "held_out_lengths": [3, 4]}
    before = stub.config(data={"name": "parity", "options": options})
    (tmp_path / "config.yaml").write_text(training.dump_config(before))
    tree = {"model": {"pretrained": str(tmp_path)}, "data": {"options": {"lengths": [1, 3]}}}
    config = files.config_of(tree, "here")
    assert config.data.options == options | {"lengths": [1, 3]}


def test_what_does_not_fit_the_weights_of_a_run_is_named(folder):
    (folder / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    (folder / "other.txt").write_text("é" * 900)
    for override, message in [
        ("model.layers=1", r"model\.layers: 2 there, 1 here"),
        ("data.tokenizer=bpe", r"data\.tokenizer"),
        ("data.vocabulary=300", r"data\.vocabulary"),
        ("data.path=other.txt", "'é'"),
    ]:
        with pytest.raises(ide.InputError, match=message):
            ide.train(training.load_config("tuned.yaml", [override]))
    assert [x.name for x in RUN.parent.iterdir()] == [RUN.name]


def test_a_run_of_ones_own_is_written_with_its_tokenizer_and_a_card(folder, capsys):
    # Its blocks are those of a published layout.
    gpt = config(name="gpt", model={"operators": ["attention", "feed_forward"]})
    run = stub.start_run(gpt, RUN.parent)
    run.metrics.write_text('{"step": 0, "validation_loss": 1.25}\n')
    run_here(capsys, "convert", run.path, "for_others")
    files = contents(Path("for_others"))
    run_here(capsys, "convert", run.path, "for_others", expected=2)
    assert files == contents(Path("for_others"))
    loaded = ide.load_model("for_others")
    tokens = np.asarray(loaded.tokenizer.encode("the s"), int)
    assert tokens.tolist() == run.load_tokenizer().encode("the s").tolist()
    outputs = eqx.filter_jit(lambda model: model(tokens[:4]))
    assert largest(outputs(loaded.model), outputs(training.load_run(run.path)[0])) < 1e-12
    options = json.loads(Path("for_others/tokenizer_config.json").read_text())
    assert options["model_input_names"] == ["input_ids", "attention_mask"]
    assert "0 of 4 steps (validation loss: 1.25)" in Path("for_others/README.md").read_text()
    # Anybody can train it again.
    (tree,) = re.findall(YAML, Path("for_others/README.md").read_text(), re.DOTALL)
    Path("again.yaml").write_text(tree)
    assert training.load_config("again.yaml") == run.load_config()


@pytest.mark.heavy
def test_transformers_reads_a_run_of_a_text(tmp_path, capsys, monkeypatch):
    transformers, torch = map(pytest.importorskip, ("transformers", "torch"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text := TEXT + "an old king rides over a grey hill.\n" * 40)
    data = {"name": "text", "path": "text.txt", "tokenizer": "bpe", "vocabulary": 300}
    tree = stub.tree(data=data, model={"context": 64})
    Path("small.yaml").write_text(yaml.safe_dump(tree))
    run_here(capsys, "train", "small.yaml")
    run_here(capsys, "convert", RUN, "exported")
    loaded = ide.load_model(RUN)
    spaced = text[:150] + "  \nold sea,\n\n  or not"
    tokens = np.asarray(loaded.tokenizer.encode(spaced))[:64]
    read = transformers.AutoTokenizer.from_pretrained("exported")
    theirs = transformers.AutoModelForCausalLM.from_pretrained("exported").eval()
    assert read(spaced)["input_ids"][:64] == tokens.tolist()
    assert read.decode(read(spaced)["input_ids"]) == spaced
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens.tolist()])).logits[0].numpy()
    np.testing.assert_allclose(ide.compiled(loaded.model)(tokens), expected, atol=1e-5)
