"""Each architecture of configs/schemes/ against its published block, written out in NumPy:
the model of the configuration, narrower, in float64, over its whole depth."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import block_at, made
from helpers import ROOT, drawn, fast_first, largest
from published.architectures import PUBLISHED
from published.numpy_blocks import attention, block_residual, layer_norm, linear
from running import run_here

import ide_transformer as ide
from ide_transformer import solvers, training
from ide_transformer.equation import with_source


SCHEMES = ROOT / "configs/schemes"
TOKENS, WIDTH = 5, 16
NARROW = [f"model.width={WIDTH}", "model.heads=2"]


def test_every_architecture_is_here():
    assert {path.stem for path in SCHEMES.glob("*.yaml")} == set(PUBLISHED)


def with_random_vectors(model):
    """Gains, biases and coefficients away from the values at which errors would not show."""
    if isinstance(model.solver, solvers.SteadyState):
        return model  # its fixed point has to stay one that iteration finds

    def moved(x):
        if not eqx.is_inexact_array(x):
            return x
        random, x = np.random.default_rng(x.size), np.asarray(x)
        x = x + 0.1 * x.std() * random.standard_normal(x.shape)
        small = x.ndim < 3 or not x.any()
        return jnp.asarray(x + 0.1 * random.standard_normal(x.shape) if small else x)

    def parts(m):
        return m.control, m.constraint, m.discretization.solver

    return eqx.tree_at(parts, model, jax.tree.map(moved, parts(model)))


def build(name):
    """The model of a configuration, and a random input of it."""
    config = training.load_config(SCHEMES / f"{name}.yaml", [*NARROW, "model.std=0.1"])
    random = np.random.default_rng(0)
    if config.data.name == "digits":
        sizes = {"image_shape": (8, 8, 1), "classes": 10}
        inputs = random.standard_normal((8, 8, 1))
    else:
        sizes, inputs = {"vocabulary": 20}, random.integers(0, 20, TOKENS)
    model = with_random_vectors(training.build_model_of_size(config, sizes, jax.random.key(3)))
    if isinstance(model.solver, solvers.SteadyState):
        model = model.with_solver(solvers.SteadyState(model.solver.solver, 1e-13))
    # Also where the steps of the configuration are adaptive: here they are of length one.
    return model.with_solver(model.solver), inputs


@pytest.mark.parametrize("name", fast_first(4, PUBLISHED, heavy=6))
def test_published_block(name):
    model, inputs = build(name)
    u0, domain = made(model.embed, inputs)
    assert u0.dtype == jnp.float64
    equation = ide.Equation(with_source(model.control, u0), model.constraint, domain)
    velocity = model.inputs.embed(inputs).velocity
    solve = eqx.filter_jit(ide.solve)
    u1 = solve(equation, u0, solver=model.solver, args=velocity).u1
    blocks = [block_at(model.control, n) for n in range(model.control.num_intervals)]
    if model.control.interval_length != 1:
        blocks = [block_at(model.control, 0)] * model.control.num_intervals
    own = () if velocity is None else (inputs,)
    expected = PUBLISHED[name](blocks, np.asarray(u0), model, *own)
    assert np.abs(np.asarray(u1) - np.asarray(u0)).max() > 1e-2
    assert np.abs(np.asarray(u1) - expected).max() < 1e-12 * max(1, np.abs(expected).max())


def test_the_published_cell_of_the_deep_equilibrium_transformer():
    """Post-norm, without affine parameters, the input injected into queries, keys and
    values: one step of the scheme is the cell."""
    keys = jax.random.split(jax.random.key(0), 3)
    a = ide.SourcedAttention(
        ide.Attention(WIDTH, 4, key=keys[0], std=0.2), key=keys[1], std=0.2
    )
    f = ide.FeedForward(WIDTH, key=keys[2], activation=ide.relu, std=0.2)
    u0, z = drawn((TOKENS, WIDTH), seed=1), drawn((TOKENS, WIDTH), seed=2)
    control = ide.Sourced(ide.Tied((a, f), 1), u0)
    equation = ide.Equation(control, ide.Sphere(eps=1e-5), ide.TokenDomain.uniform(TOKENS))
    cell = ide.LieTrotter(ide.Projected(diffrax.Euler()))
    u1 = ide.solve(equation, z, solver=cell).u1
    shift = np.asarray(u0) @ np.asarray(a.source_map.weight)
    z = np.asarray(z)
    h = layer_norm(z + attention(a.attention, z, causal=False, shift=shift))
    expected = layer_norm(h + linear(f.outer, np.maximum(linear(f.inner, h), 0)))
    assert largest(u1, expected) < 1e-12


def test_a_leapfrog_is_reversible():
    model, _ = build("reversible_leapfrog")
    u0 = drawn((TOKENS, WIDTH), seed=0)
    equation = ide.Equation(model.control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
    saveat = diffrax.SaveAt(ts=jnp.asarray(equation.knots))
    us = ide.solve(equation, u0, solver=model.solver, saveat=saveat).us
    block = block_at(model.control, 2)
    back = np.asarray(us[3]) - 2 * block_residual(block, np.asarray(us[2]))
    assert largest(np.asarray(us)[1], back) < 1e-12


@pytest.mark.parametrize("name", fast_first(0, PUBLISHED, heavy=2))
@pytest.mark.heavy
def test_the_configuration_trains(name, tmp_path, capsys, unchecked):
    """Two steps through the script, as a user would."""
    overrides = []
    if "name: shakespeare" in (SCHEMES / f"{name}.yaml").read_text():
        # Few samples: a run ends with the loss of all that are held out.
        text = tmp_path / "text.txt"
        text.write_text("To be, or not to be, that is the question. " * 40)
        overrides = ["data.name=text", f"data.path={text}"]
    run_here(
        capsys,
        *("train.py", SCHEMES / f"{name}.yaml", "--runs", tmp_path),
        *("training.steps=2", "optimizer.warmup=1", "training.log_every=1"),
        *("training.batch_size=4", "training.evaluate_samples=4", "training.sample=0"),
        *("model.context=16", *NARROW, *overrides),
    )
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "gradient_norm" in line]
    assert len(losses) == 2 and all(np.isfinite(losses))
