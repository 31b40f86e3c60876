"""From a text to a model that is used, by the scripts in an empty folder."""

import functools as ft
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import SCRIPTS
from running import run_here

import ide_transformer as ide


WORDS = "the sea ship wind old king rides over a grey hill and never returns to me"
CONFIG = {
    "name": "mine",
    "data": {"name": "text", "path": "text.txt", "tokenizer": "bpe", "vocabulary": 320},
    "model": {"width": 16, "heads": 2, "depth": 2, "context": 64},
    "optimizer": {"schedule": "constant", "warmup": 5},
    "training": {
        **{"steps": 200, "batch_size": 8, "checkpoint_every": 20, "keep": 3, "sample": 20},
        **{"evaluate_every": 100, "evaluate_samples": 64},
    },
}


@pytest.mark.long
@pytest.mark.heavy
def test_a_text_becomes_a_model_that_is_used(tmp_path, capsys, monkeypatch):
    """A rate is found; a run is killed, goes on, is exported, and writes texts."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    lines = np.random.default_rng(0).choice(WORDS.split(), (5000, 8))
    text = "\n".join(" ".join(line) for line in lines)
    Path("text.txt").write_text(text)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))

    train = ft.partial(run_here, capsys, "train.py")
    train("mine.yaml", "--find-learning-rate")
    (found,) = Path().glob("learning-rates/mine/*.json")
    rate = f"optimizer.learning_rate={json.loads(found.read_text())['suggestion']}"
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / "train.py", "mine.yaml", rate],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JAX_ENABLE_X64": "1"},
    )
    run = Path("runs/mine")
    while not [*run.glob("checkpoints/[1-9]*")] and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0, "it ended before it could be killed"
    assert not (run / "summary.json").exists()
    train("mine", "--resume")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 200 and summary["validation_bits_per_byte"] < 2
    run_here(capsys, "convert.py", run, "exported")

    loaded = ide.load_model(run)
    model, tokenizer = loaded.model, loaded.tokenizer
    spaced = text[:150] + "  \nold sea,\n\n  or not"
    tokens = np.asarray(tokenizer.encode(spaced))[:64]
    read = transformers.AutoTokenizer.from_pretrained("exported")
    theirs = transformers.AutoModelForCausalLM.from_pretrained("exported").eval()
    assert read(spaced)["input_ids"][:64] == tokens.tolist()
    assert read.decode(read(spaced)["input_ids"]) == spaced
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens.tolist()])).logits[0].numpy()
    np.testing.assert_allclose(ide.compiled(model)(tokens), expected, atol=1e-5)
    prompts = [text[:5], text[:100]]
    texts = [ide.generate(model, x, 10, temperature=0.0, tokenizer=tokenizer) for x in prompts]
    assert all(map(str.startswith, texts, prompts))
