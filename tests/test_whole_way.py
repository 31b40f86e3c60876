"""From a text to a model that is used, by the command of the wheel in an empty folder."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from helpers import ROOT, programs_compiled
from running import run_apart

import ide_transformer as ide


WORDS = "the sea ship wind old king rides over a grey hill and never returns to me"
CONFIG = {
    "name": "mine",
    "data": {"name": "text", "path": "text.txt", "tokenizer": "bpe", "vocabulary": 320},
    "model": {"width": 16, "heads": 2, "depth": 2, "context": 64},
    "optimizer": {"schedule": "constant", "warmup": 5},
    "training": {
        **{"steps": 400, "batch_size": 8, "checkpoint_every": 20, "keep": 3, "sample": 20},
        **{"evaluate_every": 200, "evaluate_samples": 64},
    },
}


@pytest.mark.heavy
def test_a_text_becomes_a_model_that_is_used(tmp_path):
    """A rate is found; a run is killed, goes on, is made longer, exported, and writes texts."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    home, wheel = tmp_path / "home", tmp_path / "wheel"
    home.mkdir()
    pip = sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"
    run_apart([*pip, "wheel", "--no-deps", "--wheel-dir", wheel, ROOT])
    site = tmp_path / "site"
    run_apart([*pip, "install", "--no-deps", "--target", site, *wheel.glob("*.whl")])
    options = dict(cwd=home, env={**os.environ, "HOME": str(home), "PYTHONPATH": str(site)})
    command = sys.executable, site / "bin/ide-transformer"

    def call(*arguments):
        return run_apart([*command, *arguments], **options).stdout

    lines = np.random.default_rng(0).choice(WORDS.split(), (27_000, 8))
    text = "\n".join(" ".join(line) for line in lines)
    assert 1e6 < len(text) < 1.2e6
    (home / "text.txt").write_text(text)
    (home / "mine.yaml").write_text(yaml.safe_dump(CONFIG))

    call("train", "mine.yaml", "--find-learning-rate")
    (found,) = home.glob("learning-rates/mine/*.json")
    rate = f"optimizer.learning_rate={json.loads(found.read_text())['suggestion']}"
    process = subprocess.Popen(
        [*command, "train", "mine.yaml", rate], stdout=subprocess.DEVNULL, **options
    )
    run = home / "runs/mine"
    while not [*run.glob("checkpoints/[1-9]*")] and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0, "it ended before it could be killed"
    assert not (run / "summary.json").exists()
    call("train", "mine", "--resume")
    assert json.loads((run / "summary.json").read_text())["steps"] == 400
    call("train", "mine", "--resume", "training.steps=440")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 440 and summary["validation_bits_per_byte"] < 2
    call("convert", "runs/mine", "exported")

    loaded = ide.load_model(run)
    model, tokenizer = loaded.model, loaded.tokenizer
    tokens = np.asarray(tokenizer.encode(text[:150]))
    read = transformers.AutoTokenizer.from_pretrained(home / "exported")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(home / "exported").eval()
    assert read(text[:150])["input_ids"] == tokens.tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens.tolist()])).logits[0].numpy()
    np.testing.assert_allclose(ide.compiled(model)(tokens), expected, atol=1e-5)
    prompts = [text[:length] for length in range(5, 105, 10)]
    with programs_compiled() as names:
        texts = [
            ide.generate(model, x, 10, temperature=0.0, tokenizer=tokenizer) for x in prompts
        ]
    assert names.count("jit(_written)") == 1
    assert all(map(str.startswith, texts, prompts))
