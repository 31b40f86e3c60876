"""Small problems that several tests share."""

import collections
import contextlib
import functools as ft
import importlib
import inspect
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide


ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
GOLDEN = ROOT / "tests/golden"

WIDTH, HEADS, TOKENS = 16, 4, 6


def make_block(key, *, normalization=ide.LayerNorm(eps=1e-5)):
    """An attention and a feed-forward of moderate size, pre-normalised by default."""
    options = dict(key=key, normalization=normalization)
    attention = ide.Attention(WIDTH, HEADS, causal=True, **options)
    return attention, ide.FeedForward(WIDTH, 2 * WIDTH, **options)


def make_equation(intervals=3, constraint=ide.Free(), std=0.2, **options):
    """The equation of `make_block` with random weights, also in the biases."""
    theta = built_control(lambda key: make_block(key, **options), intervals, std=std)
    return ide.Equation(theta, constraint, ide.TokenDomain.uniform(TOKENS))


def built_control(make_block, intervals, control=ide.PiecewiseConstant, std=0.2):
    """A control with random weights, which costs no program."""
    return built(ft.partial(control.build, make_block, intervals, key=jax.random.key(1)), std)


def built(make, std=0.4, seed=1):
    """What a function makes, with normal numbers as weights."""
    return filled(eqx.filter_eval_shape(make), std, seed)


def drawn(shape, seed, std=1.0):
    """Normal numbers. NumPy draws them, which compiles nothing."""
    return jax.device_put(np.random.default_rng(seed).normal(scale=std, size=shape))


def filled(shapes, std, seed):
    """A tree with normal numbers instead of shapes, integers zero. NumPy draws them, which
    compiles nothing."""
    normal = np.random.default_rng(seed).normal

    def drawn_like(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return jax.device_put((normal(scale=std, size=x.shape) * inexact).astype(x.dtype))

    return jax.tree.map(drawn_like, shapes)


@contextlib.contextmanager
def programs_compiled():
    """The names of the programs that are compiled inside, or read from the cache of compiled
    ones."""
    names = []

    def listen(event, seconds, **details):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            names.append(details["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def random_state(*batch, tokens=TOKENS, width=WIDTH, seed=2):
    return drawn((*batch, tokens, width), seed)


def observed_order(error_of, steps):
    """The slope of log error over log h, fitted to the given numbers of steps."""
    errors = np.array([float(error_of(n)) for n in steps])
    assert (errors > 1e-13).all(), f"rounding ends the range: {errors}"
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def fast_first(fast, cases, heavy=None):
    """The cases of a test: the first `fast` ones, then `heavy` ones that are marked so (by
    default all), then cases for `--thorough` alone."""
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    last = len(cases) if heavy is None else fast + heavy

    def marks(index):
        if index < fast:
            return []
        return [pytest.mark.heavy, *([pytest.mark.thorough] if index >= last else [])]

    return [pytest.param(*case, marks=marks(index)) for index, case in enumerate(cases)]


@ft.cache
def public_names():
    """What a model is made of, solved and trained with, by its name: the public names of the
    package, of four of its folders, and of the parts of models in contrib."""
    faces = ide, *(x.public for x in (ide.equation, ide.integration, ide.models, ide.solvers))
    names = {name: getattr(face, name) for face in faces for name in dir(face)}
    files = "bidirectional connections gated layer_norm_scaling momentum"
    homes = {f"ide_transformer.contrib.{name}" for name in files.split()}
    contrib_names = vars(importlib.import_module("ide_transformer.contrib.public")).items()
    names |= {name: x for name, x in contrib_names if getattr(x, "__module__", None) in homes}
    names = {x: y for x, y in names.items() if x[0] != "_" and not inspect.ismodule(y)}
    return dict(sorted(names.items()))


def classes_of(kind, *faces):
    """The public classes of a kind by their names, without those that are abstract."""
    names = collections.ChainMap(*map(vars, faces)) if faces else public_names()
    classes = {name: x for name, x in names.items() if inspect.isclass(x)}
    concrete = {name: x for name, x in classes.items() if not inspect.isabstract(x)}
    return {name: x for name, x in concrete.items() if issubclass(x, kind)}


def largest(x, y):
    return float(np.max(np.abs(np.asarray(x) - np.asarray(y))))
