"""Checkpoints written back, and what their layout cannot hold."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden.copies import changed_copy, make_archive, options_of, tensors_of
from helpers import GOLDEN

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained, save_pretrained
from ide_transformer.pretrained.family import block


FAMILIES = sorted(set(families()) - {"glassllm"})
# Queries are stored multiplied by a square root, gains without the 1.
ROUNDED = ("cvt", "gemma", "t5")


@pytest.mark.filterwarnings("ignore:.*not part of the model, so not read")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family, tmp_path):
    save_pretrained(load_pretrained(GOLDEN / family), tmp_path, like=GOLDEN / family)
    written, before = tensors_of(tmp_path), tensors_of(GOLDEN / family)
    assert written.keys() == before.keys()
    for name, x in written.items():
        assert np.abs(before[name] - x).max() <= (1e-6 if family in ROUNDED else 0)
    assert json.loads((tmp_path / "config.json").read_text()) == options_of(family)


@pytest.mark.parametrize("names", [("dtype",), ("torch_dtype",), ("dtype", "torch_dtype")])
def test_the_dtype_in_the_options_is_that_of_the_tensors(names, tmp_path):
    def rounded(tensors):
        return {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}

    options = dict(dtype=None) | dict.fromkeys(names, "bfloat16")
    source = changed_copy(tmp_path / "source", "llama", rounded, **options)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    save_pretrained(load_pretrained(source), tmp_path / "saved", like=source)
    assert {x.dtype.name for x in tensors_of(tmp_path / "saved").values()} == {"float32"}
    before, written = (
        json.loads((folder / "config.json").read_text())
        for folder in (source, tmp_path / "saved")
    )
    assert written == before | dict.fromkeys(names, "float32")
    # The template by which a chat is written comes along.
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_archives_of_glassllm_are_read_and_written(tmp_path):
    options, arrays = make_archive(tmp_path / "one.npz", vocabulary=11)
    model = load_pretrained(tmp_path / "one.npz")
    save_pretrained(model, tmp_path / "two.npz", like=tmp_path / "one.npz")
    written = dict(np.load(tmp_path / "two.npz"))
    assert json.loads(str(written.pop("__config__"))) == options
    assert written.keys() == arrays.keys()
    assert all((written[name] == x).all() for name, x in arrays.items())
    assert eqx.tree_equal(load_pretrained(tmp_path / "two.npz"), model)


def test_what_the_layout_cannot_hold_is_not_written(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    cases = {
        r"discretization.solver: Strang.* here, LieTrotter": model.with_solver(ide.Strang()),
        # The same scheme, so the scheme alone would say nothing.
        r"\n  model.discretization.steps_per_interval: 2 here, 1 there\n": model.with_solver(
            model.discretization.solver, steps_per_interval=2
        ),
        r"\n  model.control: PiecewiseLinear.* here, PiecewiseConstant": eqx.tree_at(
            lambda m: m.control, model, ide.PiecewiseLinear(model.control.blocks)
        ),
        r"\n  model.read_out.normalization.eps: 0.1 here, 1e-06 there\n": eqx.tree_at(
            lambda m: m.read_out.normalization, model, ide.RMSNorm(jnp.ones(16), eps=0.1)
        ),
        r"\n  model.control.blocks\[1\]: Dropout.* here, GatedFeedForward": eqx.tree_at(
            lambda m: m.control.blocks[1], model, ide.Dropout(model.control.blocks[1], 0.1)
        ),
    }
    for message, other in cases.items():
        with pytest.raises(ide.InputError, match=message):
            save_pretrained(other, tmp_path / "new", like=GOLDEN / "llama")
    with pytest.raises(ide.InputError, match=r"model.read_out: TokenLogits.* here, States"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "bert")
    with pytest.raises(ide.InputError, match=r"query_normalization: Free\(\) here, RMSNorm"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "qwen3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(model, tmp_path / "full", like=GOLDEN / "llama")
    assert not (tmp_path / "new").exists()


def test_each_model_inside_is_solved_by_its_own_scheme(tmp_path):
    model = load_pretrained(GOLDEN / "whisper")
    encoder = model.inputs.encoder.with_solver(diffrax.Heun())
    changed = eqx.tree_at(lambda m: m.inputs.encoder, model, encoder)
    for other in (model.with_solver(diffrax.Heun()), changed):
        with pytest.raises(ide.InputError, match=r"solver: Heun\(\) here, LieTrotter"):
            save_pretrained(other, tmp_path / "saved", like=GOLDEN / "whisper")


def test_weights_that_are_one_tensor_must_be_equal_to_be_written(tmp_path):
    model = load_pretrained(GOLDEN / "gptj")
    gain = model.control.blocks[0].normalization.gain
    trained = eqx.tree_at(lambda m: m.control.blocks[0].normalization.gain, model, 2 * gain)
    with pytest.raises(ide.InputError, match=r"h\.0\.ln_1\.weight is one tensor"):
        save_pretrained(trained, tmp_path / "new", like=GOLDEN / "gptj")


def test_heads_that_the_layout_cannot_hold_are_not_written(tmp_path):
    model = load_pretrained(GOLDEN / "vit")
    heads = ide.States(), ide.MeanHead(*model.read_out.classifiers)
    for other in (
        model.on(ide.Mesh(tokens=tuple(2 * n for n in model.inputs.grid))),
        *map(model.with_read_out, heads),
    ):
        with pytest.raises(
            ide.InputError, match=r"model\.(read_out|inputs\.image_shape).* here, .* there"
        ):
            save_pretrained(other, tmp_path / "new", like=GOLDEN / "vit")

    def without_head(tensors):
        return {name: x for name, x in tensors.items() if "classifier" not in name}

    bare = changed_copy(tmp_path / "bare", "vit", without_head)
    other = load_pretrained(bare).with_read_out(
        ide.PrefixAndMeanHead(*model.read_out.classifiers)
    )
    with pytest.raises(
        ide.InputError, match=r"model\.read_out: PrefixAndMeanHead.* here, States.* there"
    ):
        save_pretrained(other, tmp_path / "new", like=bare)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_constraint_of_another_kind_is_not_written(family, tmp_path):
    model = load_pretrained(GOLDEN / family)
    first, second = block(model.constraint)
    other = ide.Sphere(abs(second.gain), second.bias)
    exchanged = eqx.tree_at(lambda m: block(m.constraint), model, (first, other))
    with pytest.raises(
        ide.InputError, match=r"constraint\.block.*\[1\]: Sphere.* here, LayerNorm"
    ):
        save_pretrained(exchanged, tmp_path / "new", like=GOLDEN / family)
    assert not (tmp_path / "new").exists()


def test_the_gradient_mode_is_no_part_of_a_checkpoint(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    trained = model.with_solver(model.discretization.solver, gradient=ide.Direct())
    save_pretrained(trained, tmp_path / "new", like=GOLDEN / "llama")
    assert eqx.tree_equal(load_pretrained(tmp_path / "new"), model)


def _extra(family):
    """Tensors that a checkpoint of a family may hold beside those of the model: others, and
    the names of copies with the names of what they repeat."""
    head = "cls.seq_relationship"
    others = {
        "bert": {f"{head}.weight": (2, 16), f"{head}.bias": (2,)},
        "albert": {"sop_classifier.classifier.weight": (2, 16)},
        "t5": {"decoder.block.0.layer.1.EncDecAttention.k.weight": (16, 32)},
        "vit": {"vit.embeddings.mask_token": (1, 1, 8), "decoder.0.weight": (48, 8, 1, 1)},
        "deit": {"deit.embeddings.mask_token": (1, 1, 8)},
        "dinov2": {"dinov2.embeddings.mask_token": (1, 8)},
    }
    copies = {
        "bert": {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        "roberta": {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        "albert": {
            "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
            "predictions.decoder.bias": "predictions.bias",
        },
        "distilbert": {
            "vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"
        },
        "t5": dict.fromkeys(
            ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
            "shared.weight",
        ),
        "whisper": {"proj_out.weight": "model.decoder.embed_tokens.weight"},
    }
    return others.get(family, {}), copies.get(family, {})


ENCODERS = ["albert", "bert", "deit", "dinov2", "distilbert", "roberta", "t5", "vit", "whisper"]


@pytest.mark.filterwarnings("ignore:.*not part of the model, so not read")
@pytest.mark.parametrize("family", ENCODERS)
def test_no_tensor_of_the_checkpoint_is_lost(family, tmp_path):
    others, copies = _extra(family)
    random = np.random.default_rng(0)

    def more(tensors):
        drawn = {name: random.standard_normal(shape) for name, shape in others.items()}
        return tensors | drawn | {name: tensors[weight] for name, weight in copies.items()}

    source = changed_copy(tmp_path / "source", family, more)
    model = load_pretrained(source)
    # Training changes the weights that the file holds twice.
    trained = jax.tree.map(lambda x: 2 * x if eqx.is_inexact_array(x) else x, model)
    save_pretrained(trained, tmp_path / "saved", like=source)
    before, written = tensors_of(source), tensors_of(tmp_path / "saved")
    assert written.keys() == before.keys()
    for name in others:
        assert np.array_equal(written[name], before[name])
    for name in before.keys() - others.keys():
        assert np.allclose(written[name], 2 * before[name], atol=1e-6)
    assert eqx.tree_equal(load_pretrained(tmp_path / "saved"), trained)
