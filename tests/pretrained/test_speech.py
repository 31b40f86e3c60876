"""Checkpoints of Whisper: against stored outputs, and, heavy, against transformers itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDEN, fast_first, largest
from safetensors.numpy import load_file

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


GOLDEN = GOLDEN / "whisper"
NAMES = [
    "vocab_size",
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_source_positions",
    "max_target_positions",
    "activation_function",
]
SHAPES = {
    "uneven": (61, 7, 24, 3, 2, 4, 3, 40, 28, 15, 20, "gelu_new"),
    "one_layer": (17, 4, 16, 1, 1, 1, 2, 16, 16, 3, 16, "relu"),
    "deep": (130, 80, 32, 6, 6, 8, 8, 64, 64, 50, 24, "gelu"),
}


def options_of(name):
    return dict(zip(NAMES, SHAPES[name], strict=True))


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(GOLDEN / "outputs.npz"))


@pytest.fixture(scope="module")
def model():
    return load_pretrained(GOLDEN, dtype=np.float64)


@eqx.filter_jit
def outputs_of(model, features, tokens):
    """The states of the encoder, and the logits."""
    encoded = ide.Encoded(model.inputs.encoder(features))
    return encoded.states, model(ide.SourceAndText(encoded, tokens))


def test_stored_outputs(model, stored):
    states, logits = outputs_of(model, stored["features"], stored["tokens"])
    assert largest(states, stored["states"]) < 1e-12
    assert largest(logits, stored["logits"]) < 1e-12
    assert model.inputs.context == 12


def test_the_golden_transcript(model, stored):
    expected, end = stored["greedy"], int(stored["end"])
    prompt = stored["tokens"][:, :2]
    length = expected.shape[1] - 2
    ends = np.argmax(expected[:, 2:] == end, axis=1)
    assert len(set(ends)) == 3, "one text goes on, the others end at different places"
    texts = ide.generate_greedy(model, stored["features"], prompt, length, end=end)
    assert texts.tolist() == expected.tolist()


@pytest.mark.heavy
@pytest.mark.parametrize("name", fast_first(0, SHAPES, heavy=1))
def test_parity(name, tmp_path):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    from golden import make_speech as reference

    theirs = reference.reference(seed=2, **options_of(name))
    theirs.save_pretrained(tmp_path / "theirs")
    features, tokens = reference.sample(theirs, seed=3, batch=2, tokens=9)
    states, logits = reference.outputs(theirs, features, tokens)
    ours = load_pretrained(tmp_path / "theirs")
    assert ours.inputs.embedding.dtype == jnp.float64
    found, found_logits = outputs_of(ours, features, tokens)
    assert largest(found, states) < 1e-9 * np.abs(states).max()
    assert largest(found_logits, logits) < 1e-9 * np.abs(logits).max()

    single = load_pretrained(tmp_path / "theirs", dtype=np.float32)
    found, found_logits = outputs_of(single, features, tokens)
    assert found_logits.dtype == jnp.float32
    assert largest(found, states) < 1e-4
    assert largest(found_logits, logits) < 1e-4

    save_pretrained(ours, tmp_path / "saved", like=tmp_path / "theirs")
    again = transformers.WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "saved", dtype=torch.float64
    ).eval()
    states_again, logits_again = reference.outputs(again, features, tokens)
    assert largest(states_again, states) < 1e-12
    assert largest(logits_again, logits) < 1e-12
    files = [tmp_path / folder / "model.safetensors" for folder in ("saved", "theirs")]
    written, read = map(load_file, files)
    assert written.keys() == read.keys()
    assert all(np.array_equal(written[key], read[key]) for key in read)

    prompt = tokens[:, :2]
    greedy = reference.greedy(theirs, features, prompt, 10)
    texts = ide.generate_greedy(ours, features, prompt, 10, end=reference.END)
    assert texts.tolist() == greedy.tolist()


@pytest.mark.heavy
def test_parity_without_a_read_out(tmp_path):
    """`WhisperModel`, whose tensors have no prefix."""
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    from golden import make_speech as reference

    theirs = reference.reference(seed=4, **options_of("uneven"))
    theirs.model.save_pretrained(tmp_path / "theirs")
    features, tokens = reference.sample(theirs, seed=5, batch=2, tokens=9)
    ours = load_pretrained(tmp_path / "theirs")
    logits = reference.outputs(theirs, features, tokens)[1]
    error = largest(outputs_of(ours, features, tokens)[1], logits)
    assert error < 1e-9 * np.abs(logits).max()

    save_pretrained(ours, tmp_path / "saved", like=tmp_path / "theirs")
    again = transformers.WhisperModel.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, theirs.model.get_parameter(name))
