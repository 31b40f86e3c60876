"""Checkpoints of texts: against stored outputs, and, heavy, against transformers itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from golden.cases import CASES, IN_FLOAT32, inputs, make_reference, outputs_of
from helpers import GOLDEN

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


FAMILIES = [name for name in CASES if "," not in name]


@eqx.filter_jit
def own_outputs(model, tokens, mask, segments=None):
    """The arrays of `outputs_of`, computed by the model here."""
    text = ide.Text(tokens, mask, segments)
    if isinstance(model.read_out, ide.TokenLogits):
        u1, normalization = model.solve(text).u1, model.read_out.normalization
        return {"states": normalization.project(u1), "logits": model.outputs(u1)}
    states = model(text)
    found = {"states": states}
    if model.read_out.head is not None:
        found["logits"] = model.read_out.logits(states, model.inputs)
    if model.read_out.pooler is not None:
        found["pooled"] = model.read_out.pooled(states)
    return found


def largest_difference(ours, theirs, mask):
    """Over the tokens that are no padding; relative to the largest number, and absolute."""
    relative, absolute = [], []
    assert set(theirs) <= set(ours)
    for name, expected in theirs.items():
        found = np.asarray(ours[name], np.float64)
        kept = ... if name == "pooled" else mask
        difference = np.abs(found - expected)[kept].max()
        absolute.append(difference)
        relative.append(difference / np.abs(expected[kept]).max())
    return max(relative), max(absolute)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_golden_checkpoint_of_each_family_gives_its_stored_outputs(family):
    stored = dict(np.load(GOLDEN / family / "outputs.npz"))
    tokens, mask = stored.pop("tokens"), stored.pop("mask")
    model = load_pretrained(GOLDEN / family, dtype=jnp.float64)
    relative, _ = largest_difference(own_outputs(model, tokens, mask), stored, mask)
    assert relative < (1e-5 if family in IN_FLOAT32 else 1e-9)


@pytest.mark.heavy
def test_a_checkpoint_is_an_ordinary_model():
    """Solved by another scheme, and refined until the scheme no longer matters."""
    model = load_pretrained(GOLDEN / "llama", dtype=jnp.float64)
    tokens, _ = inputs()

    def logits(solver, n):
        other = model.with_solver(solver, steps_per_interval=n)
        return np.asarray(eqx.filter_jit(other)(tokens[0]))

    exact = logits(ide.RK4(), 32)
    errors = [np.abs(logits(ide.Strang(), n) - exact).max() for n in (16, 32)]
    assert errors[1] < 0.6 * errors[0]
    assert np.abs(logits(model.solver, 1) - exact).max() > 2 * errors[0]


@pytest.mark.heavy
@pytest.mark.parametrize("name", CASES)
def test_checkpoints_agree_with_transformers_and_go_back(name, tmp_path):
    import torch
    import transformers

    tokens, mask = inputs()
    reference = make_reference(name, tmp_path / "double", "float64")
    expected = outputs_of(reference, tokens, mask)
    model = load_pretrained(tmp_path / "double")
    relative, _ = largest_difference(own_outputs(model, tokens, mask), expected, mask)
    in_float32 = name.split(",")[0] in IN_FLOAT32
    assert relative < (1e-5 if in_float32 else 1e-9)

    save_pretrained(model, tmp_path / "back", like=tmp_path / "double")
    kind = getattr(transformers, CASES[name].model)
    back = kind.from_pretrained(tmp_path / "back", dtype=torch.float64)
    relative, _ = largest_difference(outputs_of(back, tokens, mask), expected, mask)
    assert relative < (1e-6 if in_float32 else 1e-14)

    single = load_pretrained(tmp_path / "double", dtype=jnp.float32)
    _, absolute = largest_difference(own_outputs(single, tokens, mask), expected, mask)
    assert absolute < 1e-4
