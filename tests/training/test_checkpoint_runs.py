"""Checkpoints in runs and scripts: tokenizers, conversion, evaluation, training on."""

import re
import shutil
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
import tokenizers as tk
import yaml
from helpers import GOLDEN, ROOT, fast_first, largest
from running import run_here
from safetensors.numpy import load_file
from training import stub
from training.conftest import RUN, TEXT, contents, equal

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


def test_a_checkpoint_becomes_a_run_that_writes_text_and_comes_back(checkpoint):
    run = training.import_pretrained("llama", "imported", "runs")
    model, tokenizer = ide.load_run(run.path)[0], run.load_tokenizer()
    assert equal(model, load_pretrained(checkpoint))
    text = ide.generate(model, "the sea", 4, temperature=0.0, tokenizer=tokenizer)
    assert text.startswith("the sea") and len(text) > len("the sea")
    # The configuration of a run on a text that begins with its weights.
    Path("text.txt").write_text(TEXT)
    tree = {"name": "on", "data": {"name": "text", "path": "text.txt"}}
    tree["model"] = {"pretrained": "imported", "context": 16}
    on = training.Config.model_validate(tree)
    assert on.model.pretrained == str(checkpoint) and on.model.run == str(run.path.resolve())
    task, begun, _ = build_start(on)
    assert equal(begun, model) and task.sizes["vocabulary"] == tokenizer.vocabulary
    # The checkpoint itself has no configuration, and takes another scheme as well.
    tree |= {"model": tree["model"] | {"pretrained": "llama"}, "solver": "strang(heun)"}
    other = build_start(training.Config.model_validate(tree))[1]
    assert equal(other.control, model.control) and other.solver == ide.Strang(diffrax.Heun())
    training.export_run("runs/imported", "back")
    before, after = (load_file(Path(x, "model.safetensors")) for x in (checkpoint, "back"))
    assert before.keys() == after.keys() and equal(before, after)
    assert Path("back/tokenizer.json").exists()


def test_the_loss_of_a_checkpoint_is_the_mean_over_its_windows(checkpoint):
    loaded = training.load_model(str(checkpoint), [])
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


TREE = stub.tree()
TUNED = {"model": {"pretrained": "small", "checkpoint": 2}, "optimizer": TREE["optimizer"]}
TUNED |= {"training": TREE["training"] | {"seed": 1}}


def test_a_run_begins_with_the_weights_of_another_and_outlives_it(there):
    (there / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    source, folder = ide.load_run(RUN, checkpoint=2)
    before = folder.load_config()
    run = ide.train("tuned.yaml")
    own = run.load_config()
    assert (own.data, own.control) == (before.data, before.control)
    assert run.tokenizer.read_bytes() == folder.tokenizer.read_bytes()
    task, model, _ = build_start(own)
    assert equal(model.control, source.control)
    first = eqx.filter_jit(task.loss)(source, task.batch(0, 4, 1)).loss
    assert stub.losses(run)[0] == pytest.approx(float(first), rel=1e-5)
    shutil.rmtree(RUN)
    again = stub.resumed(run, there / "again", 2)
    assert equal(ide.load_run(again.path)[0], ide.load_run(run.path)[0])


def test_what_does_not_fit_the_weights_of_a_run_is_named(there):
    (there / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    (there / "other.txt").write_text("é" * 900)
    for override, message in [
        ("model.depth=1", r"do not fit the model; drop .*\(model.depth: 2 there, 1 here\)"),
        ("data.tokenizer=bpe", r"drop data\.tokenizer\."),
        ("data.path=other.txt", "The character 'é' does not occur"),
    ]:
        with pytest.raises(ide.InputError, match=message):
            ide.train(training.load_config("tuned.yaml", [override]))
    assert [x.name for x in RUN.parent.iterdir()] == [RUN.name]


def test_a_run_of_ones_own_is_written_with_its_tokenizer_and_a_card(there, end, capsys):
    run_here(capsys, "convert.py", RUN, "for_others")
    files = contents(Path("for_others"))
    assert "is there already" in run_here(capsys, "convert.py", RUN, "for_others", expected=2)
    assert files == contents(Path("for_others"))
    loaded = ide.load_model("for_others")
    tokens = np.asarray(loaded.tokenizer.encode("the s"), int)
    own = tasks.load_tokenizer(RUN / "tokenizer.json").encode("the s")
    assert tokens.tolist() == own.tolist()
    assert largest(loaded.model(tokens[:4]), end(tokens[:4])) < 1e-12
    card = Path("for_others/README.md").read_text()
    # Anybody can train it again.
    (tree,) = re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)
    Path("again.yaml").write_text(tree)
    assert training.load_config(Path("again.yaml")) == training.load_config(RUN / "config.yaml")
    training.export_run(RUN, "earlier", checkpoint=2)
    assert "| steps | 2 of 4 |" in Path("earlier/README.md").read_text()


# `tests/test_whole_way.py` does the same with a text.
FOR_OTHERS = {
    "digits_vit": ("AutoModelForImageClassification", "model.class_token=true"),
    "llama": ("AutoModelForCausalLM", "model.width=64"),
}


@pytest.mark.heavy
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fast_first(0, FOR_OTHERS, heavy=1))
def test_transformers_reads_a_run(name, tmp_path):
    transformers, torch = map(pytest.importorskip, ("transformers", "torch"))
    kind, override = FOR_OTHERS[name]
    few = ["training.steps=10", "optimizer.warmup=2", "training.sample=0", "model.depth=2"]
    few += ["training.evaluate_samples=8", "training.batch_size=4", "data.validation=0.002"]
    config = training.load_config(ROOT / f"configs/{name}.yaml", [*few, override])
    run = training.train(config, runs=tmp_path)
    training.export_run(run.path, tmp_path / "out")
    ours = ide.load_pretrained(tmp_path / "out", dtype="float32")
    reader = getattr(transformers, kind)
    theirs = reader.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    inputs = next(iter(training.build_task(config).held_out(4))).inputs
    if name == "digits_vit":
        pixels = torch.tensor(np.moveaxis(inputs, -1, 1).copy())
        found = theirs(pixel_values=pixels).logits
    else:
        found = theirs(torch.tensor(inputs).long()).logits
        text = TEXT[:200] + "  \nTo be,\n\n  or not"
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
        tokens = tokenizer(text)["input_ids"]
        assert tokens == run.load_tokenizer().encode(text).tolist()
        assert tokenizer.decode(tokens) == text
    logits, trained = found.detach().numpy(), ide.load_run(run.path)[0]
    assert 0.1 < np.abs(logits).max() < 10
    assert largest(logits, eqx.filter_jit(ours)(inputs)) < 1e-5
    assert largest(logits, eqx.filter_jit(trained)(inputs)) < 1e-5
