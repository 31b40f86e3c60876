"""A model is written in the layout that holds it, and in no other."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden.copies import changed_copy, make_archive, tensors_of
from helpers import GOLDEN, largest
from models import examples

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained
from ide_transformer.pretrained.family import block


def test_the_dtype_in_the_options_is_that_of_the_tensors(tmp_path):
    def rounded(tensors):
        return {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}

    source = changed_copy(
        tmp_path / "source", "llama", rounded, dtype="bfloat16", torch_dtype="bfloat16"
    )
    (source / "chat_template.jinja").write_text("{{ messages }}")
    save_pretrained(load_pretrained(source), tmp_path / "saved", like=source)
    assert {x.dtype.name for x in tensors_of(tmp_path / "saved").values()} == {"float32"}
    before, written = (
        json.loads((folder / "config.json").read_text())
        for folder in (source, tmp_path / "saved")
    )
    assert written == before | dict(dtype="float32", torch_dtype="float32")
    # The template by which a chat is written comes along.
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == "{{ messages }}"


def replaced(where, new):
    return lambda model: eqx.tree_at(where, model, new(model))


def finer(model):
    # The same scheme, so the scheme alone would say nothing.
    return model.with_solver(model.discretization.solver, steps_per_interval=2)


def on_a_sphere(model):
    first, second = block(model.constraint)
    other = ide.Sphere(jax.device_put(abs(np.asarray(second.gain))), second.bias)
    return eqx.tree_at(lambda m: block(m.constraint), model, (first, other))


REFUSED = [
    ("llama", finer, r"\n  model.discretization.steps_per_interval: 2 here, 1 there\n"),
    (
        "whisper",
        replaced(
            lambda m: m.inputs.encoder, lambda m: m.inputs.encoder.with_solver(diffrax.Heun())
        ),
        r"solver: Heun\(\) here, LieTrotter",
    ),
    # Two weights that are one tensor differ after training.
    (
        "gptj",
        replaced(
            lambda m: m.control.blocks[0].normalization.gain,
            lambda m: jax.device_put(2 * np.asarray(m.control.blocks[0].normalization.gain)),
        ),
        r"h\.0\.ln_1\.weight is one tensor",
    ),
    ("vit", lambda m: m.on(ide.Mesh(tokens=(4, 4))), r"inputs\.image_shape.* here, .* there"),
    ("albert", on_a_sphere, r"constraint\.block.*\[1\]: Sphere.* here, LayerNorm"),
]


@pytest.mark.parametrize(("family", "change", "message"), REFUSED)
def test_what_the_layout_cannot_hold_is_not_written(family, change, message, tmp_path):
    other = change(load_pretrained(GOLDEN / family))
    with pytest.raises(ide.InputError, match=message):
        save_pretrained(other, tmp_path / "new", like=GOLDEN / family)
    assert not (tmp_path / "new").exists()


def test_a_model_of_another_family_and_a_folder_that_is_full(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    with pytest.raises(ide.InputError, match=r"model.read_out: TokenLogits.* here, States"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "bert")
    with pytest.raises(ide.InputError, match=r"query_normalization: Free\(\) here, RMSNorm"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "qwen3")
    (tmp_path / "file").touch()
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(model, tmp_path, like=GOLDEN / "llama")


def test_the_tokenizer_of_an_archive_comes_along(tmp_path):
    make_archive(tmp_path / "one.npz", vocabulary=11)
    (tmp_path / "one.tokenizer.json").write_text("{}")
    model = load_pretrained(tmp_path / "one.npz")
    save_pretrained(model, tmp_path / "two.npz", like=tmp_path / "one.npz")
    assert (tmp_path / "two.tokenizer.json").read_text() == "{}"


ONES = jax.device_put(np.ones(examples.WIDTH))
NORM, RMS = ide.LayerNorm(ONES, eps=1e-6), ide.RMSNorm(ONES, eps=1e-5)


def feed_forward(kind=ide.FeedForward, **options):
    return lambda key: kind(examples.WIDTH, 6, key=key, std=0.3, **options)


def like_gpt2():
    attention = examples.causal(normalization=NORM, bias=False)
    options = dict(normalization=NORM, bias=False, activation=ide.gelu_tanh)
    own = dict(tied=False, output_normalization=ide.LayerNorm(eps=1e-6))
    operators = attention, feed_forward(**options)
    return examples.language_model(operators, dropout=0.5, own=own)


def like_llama():
    turned = dict(positions=ide.Rotary(500.0), key_value_heads=1)
    gated = feed_forward(ide.GatedFeedForward, normalization=RMS, bias=True)
    own = dict(learned_positions=False, output_normalization=RMS)
    return examples.language_model(
        (examples.causal(normalization=RMS, **turned), gated), own=own
    )


def like_vit():
    operators = (examples.attention, feed_forward(normalization=examples.NORM))
    model = examples.image_classifier(operators=operators)
    return model.with_read_out(ide.PrefixHead(model.read_out.classifiers, examples.NORM))


OWN = {"gpt2": like_gpt2, "llama": like_llama, "vit": like_vit}


@pytest.mark.parametrize("name", OWN)
def test_a_model_of_ones_own_is_written_in_the_layout_that_holds_it(name, tmp_path):
    model = examples.filled(OWN[name])
    save_pretrained(model.with_options(gradient=ide.Direct()), tmp_path / "new")
    again = load_pretrained(tmp_path / "new")
    options = json.loads((tmp_path / "new/config.json").read_text())
    assert options["model_type"] == name
    inputs = examples.normal(2, 4, 6, 1) if name == "vit" else examples.TOKENS
    assert largest(eqx.filter_jit(model)(inputs), eqx.filter_jit(again)(inputs)) < 1e-12
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(again, tmp_path / "new")


def test_a_refusal_names_the_nearest_layout_and_all_that_differs(tmp_path):
    operators = examples.causal(normalization=RMS), feed_forward(activation=jnp.tanh)
    own = dict(input_normalization=ide.Sphere(), output_normalization=examples.NORM)
    scheme = dict(solver=ide.Strang(diffrax.Heun()), steps_per_interval=2)
    options = dict(control=ide.PiecewiseLinear, constraint=ide.Sphere(), own=own) | scheme
    other = examples.filled(lambda: examples.language_model(operators, **options))
    with pytest.raises(ide.InputError) as refused:
        save_pretrained(other, tmp_path / "new")
    first, *lines = str(refused.value).splitlines()
    assert "The nearest is that of gpt2" in first
    assert [line.partition(":")[0].removeprefix("  model.") for line in lines] == [
        *("inputs.normalization", "control", "control(0)[0].normalization"),
        *("control(0)[1].normalization", "control(0)[1].activation", "constraint.block"),
        *("discretization.solver", "discretization.steps_per_interval"),
    ]
    assert "solver: Strang(Heun()) here, LieTrotter(Euler()) there" in str(refused.value)
    with pytest.raises(ide.InputError, match="holds a model of FunctionInputs and FunctionV"):
        save_pretrained(examples.filled(examples.operator_model), tmp_path / "new")
    assert not (tmp_path / "new").exists()
