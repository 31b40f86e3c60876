"""Checkpoints in runs and scripts: tokenizers, conversion, evaluation, training on."""

import json
import re
import shutil
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
import tokenizers as tk
from golden.copies import make_archive
from helpers import GOLDEN, ROOT, fast_first, largest
from running import run_here
from safetensors.numpy import load_file
from training import stub
from training.conftest import RUN, TEXT, equal

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.pretrained import load_pretrained
from ide_transformer.training.loading import build_start


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A small Llama with a tokenizer of 61 tokens, in the current folder."""
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN / "llama", folder)
    letters = {token: i for i, token in enumerate(["[pad]", *map(chr, range(63, 123))])}
    letters[" "] = letters.pop("@")
    letters["."] = letters.pop("A")
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.decoder = tk.decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_texts_are_padded_and_come_back(checkpoint):
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(checkpoint)
    text = tokenizer.encode_batch(["the sea", "night", "a very long night"], context=10)
    assert text.tokens.shape == (3, 10) and text.mask.sum(axis=1).tolist() == [7, 5, 10]
    assert (text.tokens[1, 5:] == 0).all()
    tokenizer.save("stored.json")
    stored = tasks.load_tokenizer("stored.json")
    assert isinstance(stored, tasks.PretrainedTokenizer)
    for each in (tokenizer, stored):
        assert each.decode(text.tokens[0, :7]) == "the sea"
        assert each.encode("the sea").tolist() == text.tokens[0, :7].tolist()


def test_a_checkpoint_becomes_a_run_that_writes_text_and_comes_back(checkpoint):
    run = training.import_pretrained("llama", "imported", "runs")
    loaded = ide.load_model(str(run.path))
    model, tokenizer = ide.load_run(run.path)[0], run.load_tokenizer()
    assert equal(loaded.model, load_pretrained(checkpoint)) and equal(model, loaded.model)
    prompt = np.asarray(loaded.tokenizer.encode("the sea"), int)
    written = ide.generate(model, prompt, 4, key=jax.random.key(7), temperature=0.0)
    text = ide.generate(model, "the sea", 4, temperature=0.0, tokenizer=tokenizer)
    assert text == loaded.tokenizer.decode(np.asarray(written)) and text.startswith("the sea")
    pair = ["the sea", "a ship"]
    texts = ide.generate(model, pair, 4, temperature=0.0, tokenizer=tokenizer)
    assert texts[0] == text and texts[1].startswith("a ship")
    with pytest.raises(ide.InputError, match="it is empty"):
        ide.generate(model, [], 4, temperature=0.0, tokenizer=tokenizer)
    with pytest.raises(ide.InputError, match=r"give tokenizer=load_model\(path\)\.tokenizer"):
        ide.generate(model, "the sea", 4, temperature=0.0)
    on = begun_from("imported")
    assert on.model.pretrained == str(checkpoint) and on.model.run == str(run.path.resolve())
    task, begun, _ = build_start(on)
    assert equal(begun, model) and task.sizes["vocabulary"] == loaded.tokenizer.vocabulary
    # The checkpoint itself has no configuration, and takes another scheme as well.
    other = build_start(begun_from("llama", solver="strang(heun)"))[1]
    assert equal(other.control, model.control) and other.solver == ide.Strang(diffrax.Heun())
    training.export_run("runs/imported", "back")
    before, after = (load_file(Path(x, "model.safetensors")) for x in (checkpoint, "back"))
    assert before.keys() == after.keys() and equal(before, after)
    assert Path("back/tokenizer.json").exists()


def begun_from(model, **sections):
    """The configuration of a run on a text that begins with the weights of a model."""
    Path("text.txt").write_text(TEXT)
    model = {"pretrained": model, "context": 16}
    data = {"name": "text", "path": "text.txt"}
    return training.Config.model_validate(
        {"name": "on", "data": data, "model": model, **sections}
    )


def test_the_loss_of_a_checkpoint_is_the_mean_over_its_windows(checkpoint):
    loaded = training.load_model(str(checkpoint), [])
    other = training.load_model(str(checkpoint), ["solver={kind: strang, sub_solver: heun}"])
    assert equal(other.model.solver, ide.Strang(diffrax.Heun()))
    text = TEXT[:300]
    (found,) = training.evaluate_on_meshes(loaded, [ide.Mesh(tokens=16)], text)
    tokens = loaded.tokenizer.encode(text).astype(int)
    windows = tokens[np.arange(0, len(tokens) - 16, 16)[:, None] + np.arange(17)]
    scores = jax.nn.log_softmax(eqx.filter_jit(loaded.model)(windows[:, :-1]))
    losses = -np.take_along_axis(np.asarray(scores), windows[:, 1:, None], axis=-1)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
    size = len(loaded.tokenizer.decode(windows[:, 1:].ravel()).encode())
    bits = np.sum(losses) / np.log(2) / size
    assert found["bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_what_a_checkpoint_gives_or_is_not_is_refused(checkpoint, tmp_path):
    shutil.copytree(GOLDEN / "bert", "bert")
    shutil.copy("llama/tokenizer.json", "bert")
    runs = tmp_path / "runs"
    llama, bert = (training.load_model(name) for name in ("llama", "bert"))

    own_steps = ["solver={kind: native, options: {a: 1}}"]
    for call, arguments, message in [
        (ide.load_run, ("nope",), r"no such run or checkpoint; .* holds bert, llama\."),
        (ide.load_model, ("llama", own_steps), r"brings its own steps; drop solver\.options"),
        (ide.load_model, ("llama", ["model.width=3"]), r"model\.width: the weights are given"),
        (training.import_pretrained, ("llama", "my run", runs), "'my run': it names a folder"),
        (training.import_pretrained, ("bert", "x", runs), "of TextInputs and States; a Lang"),
        (training.evaluate_loss, (bert, TEXT), "predicts no text"),
        (training.similarities, (llama, ["one", "two"]), "need a TextEncoder"),
    ]:
        with pytest.raises(ide.InputError, match=message):
            call(*arguments)
    assert not runs.exists()
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ide.InputError, match=r"tokenizer\.json is missing"):
        tasks.PretrainedTokenizer.from_pretrained(checkpoint)


TUNED = """
model: {pretrained: small, checkpoint: 2}
optimizer: {warmup: 1, learning_rate: 0.01}
training: {steps: 4, batch_size: 4, log_every: 1, checkpoint_every: 2, evaluate_every: 2,
  keep_best: false, sample: 0, seed: 1}
"""


def test_a_run_begins_with_the_weights_of_another_and_outlives_it(there):
    (there / "tuned.yaml").write_text(TUNED)
    source, folder = ide.load_run(RUN, checkpoint=2)
    before = folder.load_config()
    run = ide.train("tuned.yaml")
    own = run.load_config()
    assert (own.model.width, own.training.seed) == (4, 1)
    assert (own.data, own.control) == (before.data, before.control)
    assert run.tokenizer.read_bytes() == folder.tokenizer.read_bytes()
    task, model, _ = build_start(own)
    assert equal(model.control, source.control)
    first = eqx.filter_jit(task.loss)(source, task.batch(0, 4, 1)).loss
    assert stub.losses(run)[0] == pytest.approx(float(first), rel=1e-5)
    other = training.load_config("tuned.yaml", ["solver.kind=strang", "model.dropout=0.1"])
    model = build_start(other)[1]
    assert model.random and type(model.solver) is ide.Strang
    assert equal(*(jax.tree.leaves(eqx.filter(x, eqx.is_array)) for x in (model, source)))
    shutil.rmtree(RUN)
    again = stub.resumed(run, there / "again", 2)
    assert equal(ide.load_run(again.path)[0], ide.load_run(run.path)[0])


def test_what_does_not_fit_the_weights_of_a_run_is_named(there):
    (there / "tuned.yaml").write_text(TUNED)
    (there / "other.txt").write_text("é" * 900)
    for override, message in [
        ("model.depth=1", r"do not fit the model; drop .*\(model.depth: 2 there, 1 here\)"),
        ("model.heads=1", r"gives the model; drop .*\(model.heads: 2 there, 1 here\)"),
        ("control=tied", "drop .*control.kind: 'piecewise_constant' there, 'tied' here"),
        ("data.tokenizer=bpe", r"drop data\.tokenizer\."),
        ("data.path=other.txt", "The character 'é' does not occur"),
        ("model.checkpoint=3", "there is no checkpoint 3; the run has 2, 4"),
        ("training.refine={0: 1, 2: 2}", "begins with its layers"),
    ]:
        with pytest.raises(ide.InputError, match=message):
            ide.train(training.load_config("tuned.yaml", [override]))
    assert [x.name for x in RUN.parent.iterdir()] == [RUN.name]


def test_an_archive_becomes_a_run_and_an_archive_that_writes_text(tmp_path, capsys):
    make_archive(tmp_path / "one.npz", vocabulary=11)
    letters = {"alphabet": list("abcdefg"), "merges": []}
    (tmp_path / "one.tokenizer.json").write_text(json.dumps(letters))
    run, two = tmp_path / "runs/one", tmp_path / "new/two"
    run_here(capsys, "convert.py", tmp_path / "one.npz", run)
    run_here(capsys, "convert.py", run, two)
    assert two.is_file() and not two.with_name("two.npz").exists()
    sample = "--prompt", "abc", "--length", 3, "--top-p", 0.5
    texts = [
        run_here(capsys, "sample.py", path, *sample).splitlines()[0] for path in (run, two)
    ]
    assert texts[0].startswith("abc") and texts[0] == texts[1]
    assert equal(*(dict(np.load(path)) for path in (tmp_path / "one.npz", two)))
    output = run_here(capsys, "convert.py", tmp_path / "none", run, expected=2)
    assert "there is no such run or checkpoint" in output and "holds one.npz" in output


def test_a_run_of_ones_own_is_written_with_its_tokenizer_and_a_card(there, end, capsys):
    assert "for_others: a checkpoint of" in run_here(capsys, "convert.py", RUN, "for_others")
    files = {path: path.read_bytes() for path in Path("for_others").iterdir()}
    assert "is there already" in run_here(capsys, "convert.py", RUN, "for_others", expected=2)
    assert files == {path: path.read_bytes() for path in Path("for_others").iterdir()}
    loaded = ide.load_model("for_others")
    tokens = np.asarray(loaded.tokenizer.encode("the s"), int)
    assert (
        tokens.tolist() == tasks.load_tokenizer(RUN / "tokenizer.json").encode("the s").tolist()
    )
    assert largest(loaded.model(tokens[:4]), end(tokens[:4])) < 1e-12
    card = Path("for_others/README.md").read_text()
    summary = training.RunFolder(RUN).load_summary()
    assert f"| validation loss | {summary['validation_loss']:.4f} |" in card
    assert "| data | text, text.txt |" in card and "| steps | 4 of 4 |" in card
    assert card.startswith("---\n# license: say") and "\n# for_others\n" in card
    # Anybody can train it again.
    (tree,) = re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)
    Path("again.yaml").write_text(tree)
    assert training.load_config(Path("again.yaml")) == training.load_config(RUN / "config.yaml")
    run_here(capsys, "convert.py", RUN, "earlier", "--checkpoint", 2)
    earlier = Path("earlier/README.md").read_text()
    assert "| steps | 2 of 4 |" in earlier and "test loss" not in earlier
    output = run_here(
        capsys, "convert.py", "for_others", "runs/x", "--checkpoint", 2, expected=2
    )
    assert "--checkpoint and --weights are of a run" in output


# `tests/test_whole_way.py` does the same with a text.
FOR_OTHERS = {
    "digits_vit": (
        "AutoModelForImageClassification",
        ["model.class_token=true", "model.depth=2"],
    ),
    "llama": ("AutoModelForCausalLM", ["model.depth=2"]),
}


@pytest.mark.heavy
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fast_first(0, FOR_OTHERS, heavy=1))
def test_transformers_reads_a_run(name, tmp_path, capsys):
    transformers, torch = map(pytest.importorskip, ("transformers", "torch"))
    kind, overrides = FOR_OTHERS[name]
    few = "training.steps=10", "optimizer.warmup=2", "training.sample=0"
    few += "training.evaluate_samples=8", "training.batch_size=4", "data.validation=0.002"
    config = ROOT / f"configs/{name}.yaml"
    run_here(capsys, "train.py", config, *few, *overrides, "--runs", tmp_path)
    run_here(capsys, "convert.py", tmp_path / name, tmp_path / "out")
    run = training.RunFolder(tmp_path / name)
    ours = ide.load_pretrained(tmp_path / "out", dtype="float32")
    reader = getattr(transformers, kind)
    theirs = reader.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    task = training.build_task(training.load_config(run.config))
    inputs = next(iter(task.held_out(4))).inputs
    if name == "digits_vit":
        pixels = torch.tensor(np.moveaxis(inputs, -1, 1).copy())
        found = theirs(pixel_values=pixels).logits
    else:
        found = theirs(torch.tensor(inputs).long()).logits
        text, ids = TEXT[:200] + "  \nTo be,\n\n  or not", transformers.AutoTokenizer
        tokenizer = ids.from_pretrained(tmp_path / "out")
        tokens = tokenizer(text)["input_ids"]
        assert tokens == run.load_tokenizer().encode(text).tolist()
        assert tokenizer.decode(tokens) == text
    logits, trained = found.detach().numpy(), ide.load_run(run.path)[0]
    assert 0.1 < np.abs(logits).max() < 10
    assert largest(logits, eqx.filter_jit(ours)(inputs)) < 1e-5
    assert largest(logits, eqx.filter_jit(trained)(inputs)) < 1e-5
