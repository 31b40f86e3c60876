"""A model is written in the layout that holds it, and in no other."""

import json

import diffrax
import equinox as eqx
import jax
import ml_dtypes
import numpy as np
import pytest
from golden.copies import changed_copy, make_archive, options_of, tensors_of
from helpers import GOLDEN, largest
from models import examples as small

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


def test_the_dtype_in_the_options_is_that_of_the_tensors(tmp_path):
    def rounded(tensors):
        return {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}

    half = dict(dtype="bfloat16", torch_dtype="bfloat16")
    source = changed_copy(tmp_path / "source", "llama", rounded, **half)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    save_pretrained(load_pretrained(source), tmp_path / "saved", like=source)
    assert {x.dtype.name for x in tensors_of(tmp_path / "saved").values()} == {"float32"}
    written = json.loads((tmp_path / "saved/config.json").read_text())
    assert written == options_of("llama") | dict(dtype="float32", torch_dtype="float32")
    # The template by which a chat is written comes along.
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == "{{ messages }}"


def finer(model):
    # The same scheme, so the scheme alone would say nothing.
    return model.with_solver(model.discretization.solver, steps_per_interval=2)


def other_encoder(model):
    encoder = model.inputs.encoder.with_solver(diffrax.Heun())
    return eqx.tree_at(lambda m: m.inputs.encoder, model, encoder)


def trained(model):
    """Two weights that are one tensor differ after training."""
    gain = lambda m: m.control.blocks[0].normalization.gain  # noqa: E731
    return eqx.tree_at(gain, model, jax.device_put(2 * np.asarray(gain(model))))


REFUSED = [
    ("llama", finer, r"\n  model.discretization.steps_per_interval: 2 here, 1 there\n"),
    ("whisper", other_encoder, r"solver: Heun\(\) here, LieTrotter"),
    ("gptj", trained, r"h\.0\.ln_1\.weight is one tensor"),
]


@pytest.mark.parametrize(("family", "change", "message"), REFUSED)
def test_what_the_layout_cannot_hold_is_not_written(family, change, message, tmp_path):
    other = change(load_pretrained(GOLDEN / family))
    with pytest.raises(ide.InputError, match=message):
        save_pretrained(other, tmp_path / "new", like=GOLDEN / family)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_full(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    (tmp_path / "file").touch()
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(model, tmp_path, like=GOLDEN / "llama")


def test_the_tokenizer_of_an_archive_comes_along(tmp_path):
    make_archive(tmp_path / "one.npz", vocabulary=11)
    (tmp_path / "one.tokenizer.json").write_text("{}")
    model = load_pretrained(tmp_path / "one.npz")
    save_pretrained(model, tmp_path / "two.npz", like=tmp_path / "one.npz")
    assert (tmp_path / "two.tokenizer.json").read_text() == "{}"


def test_a_model_of_ones_own_is_written_in_the_layout_that_holds_it(tmp_path):
    norm = ide.LayerNorm(jax.device_put(np.ones(small.WIDTH)), eps=1e-6)
    shared = dict(normalization=norm, bias=False)

    def feed_forward(key):
        return ide.FeedForward(small.WIDTH, 6, key=key, activation=ide.gelu_tanh, **shared)

    own = dict(tied=False, output_normalization=ide.LayerNorm(eps=1e-6))
    model = small.language_model((small.causal(**shared), feed_forward), dropout=0.5, own=own)
    save_pretrained(model.with_options(gradient=ide.Direct()), tmp_path / "new")
    again = load_pretrained(tmp_path / "new")
    options = json.loads((tmp_path / "new/config.json").read_text())
    assert options["model_type"] == "gpt2"
    assert largest(*(small.outputs_of(x, small.TOKENS) for x in (model, again))) < 1e-12
    with pytest.raises(ide.InputError, match=r"The nearest is that of gpt2[^:]*:?\n.*solver"):
        save_pretrained(model.with_solver(ide.Strang()), tmp_path / "other")
    assert not (tmp_path / "other").exists()
