"""Wrong arguments, one at a time, for every public class and function: a clear error that
names the argument, or a right result."""

import functools as ft
import inspect
import re

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import ide_transformer as ide
from tests.helpers import fast_first
from tests.misuse.recipes import RECIPES
from tests.misuse.values import KEY


# Functions that run other things, whose errors speak of what they were given.
RUNNING = {"solve", "compiled", "single_step", "error_budget"}
RUNNING |= {"generate", "generate_greedy", "outputs_at"}
RUNNING |= {"load_pretrained", "save_pretrained", "load_run", "load_model"}

REFUSED = object()
NAMES = [name for name in RECIPES if RECIPES[name].arguments]

NUMBERS = [np.nan, np.inf, -np.inf, 1j, np.float32(0.5), np.int64(2)]
OBJECTS = [None, "text", "1", b"bytes", object(), [], [1.0, 2.0], (), (1, 2), {}, len]
THINGS = [
    *(diffrax.Heun, ide.LieTrotter, ide.Free, ide.Damping, ide.TokenDomain),
    *(diffrax.Heun(), ide.Free(), ide.Damping(1.0), ide.TokenDomain.uniform(2)),
    *(jax.random.key(1), jax.random.split(jax.random.key(1), 2)),
]
SHAPES = [(), (0,), (3,), (4,), (3, 4), (0, 3, 4), (2, 3), (1, 2, 3, 4)]
WRONG = st.one_of(
    st.sampled_from(OBJECTS + THINGS + NUMBERS),
    st.integers(-2, 3),
    # Few of them, since each is a program of its own where a scheme is compiled for it.
    st.sampled_from([-0.5, 0.0, 1e-300, 0.5, 1.5]),
    st.booleans(),
    st.builds(
        lambda shape, value, kind: kind.ones(shape) * value,
        st.sampled_from(SHAPES),
        st.sampled_from([1.0, -1.0, 0.0, np.nan, np.inf, 2, True, 1j]),
        st.sampled_from([jnp, np]),
    ),
)


def checks(call):
    try:
        call(not_an_argument=1)
    except ide.InputError as error:
        return "its arguments are" in str(error)
    except TypeError:
        return False
    return False


def test_every_public_callable_checks_its_arguments():
    """`tests/test_arguments.py` has the table of what a check takes and refuses. Tuples are
    checked where they are used."""
    tuples = {"Encoded", "Field", "SourceAndText", "Text"}
    unchecked = {name for name, recipe in RECIPES.items() if not checks(recipe.call)}
    assert unchecked == tuples | {"Solution.evaluate"}


KINDS = {
    "complex": lambda x: x.astype(complex),
    "bool": lambda x: x.astype(bool),
    "text": lambda x: x.astype(str),
    "objects": lambda x: x.astype(object),
}
# What they read is not used in their recipes; JAX refuses a rate for each of no samples.
UNUSED = {"Sourced", "TokenLogits", "Rated"}


def arrays_of(name):
    """The right arguments that are arrays of numbers, and two of each number."""
    for key, right in RECIPES[name].arguments.items():
        array = isinstance(right, jax.Array | np.ndarray) and right is not KEY
        x = np.asarray(right) if array else np.full(2, right) if type(right) is float else None
        if x is not None and x.dtype != bool:
            yield key, x


def takes(name, argument, value, used=False):
    """Whether a call takes this argument; a tuple checks it where it is used."""
    call, arguments, use = RECIPES[name]
    try:
        result = call(**{**arguments, argument: value})
        if used or isinstance(result, tuple):
            use(result)
    except ide.InputError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_kind_of_array_is_taken(kind, unchecked):
    assert not [
        (name, key)
        for name in NAMES
        for key, x in arrays_of(name)
        if eqx.filter_eval_shape(ft.partial(takes, name, key, KINDS[kind](x)))
    ]


def test_no_empty_array_is_used(unchecked):
    classes = [x for x in NAMES if inspect.isclass(RECIPES[x].call) and x not in UNUSED]
    assert not [
        (name, key)
        for name in classes
        for key, x in arrays_of(name)
        for empty in [np.zeros((len(x), 0))]
        if eqx.filter_eval_shape(ft.partial(takes, name, key, empty, used=True))
    ]


# Functions that run other things, and some of the others.
SOME = [*filter(RUNNING.__contains__, NAMES), *NAMES[::8]]


@pytest.mark.parametrize(
    "name", fast_first(0, dict.fromkeys([*SOME, *NAMES]), heavy=len({*SOME}))
)
def test_what_is_accepted_gives_a_right_result(
    name, unchecked, thorough, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # of what is saved
    wrong_arguments(name, 8 if thorough else 1, lambda wrong: check_outcome(name, wrong))


def wrong_arguments(name, examples, check):
    """Checks the call with wrong values of one argument at a time, `examples` for each."""
    arguments = sorted(RECIPES[name].arguments)

    @settings(
        max_examples=examples * len(arguments),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(arguments), WRONG)
    def check_one(argument, value):
        # Whether a function is the right one shows when it is called.
        function = callable(RECIPES[name].arguments[argument]) or argument == "policy"
        if not (function and callable(value)):
            check({argument: value})

    check_one()


def called(name: str, wrong: dict):
    """The result of a call, or `REFUSED` where a clear error says so."""
    call, arguments, _ = RECIPES[name]
    try:
        return call(**{**arguments, **wrong})
    except ide.InputError as error:
        named = any(argument in str(error) for argument in wrong)
        assert named or name in RUNNING, str(error)
        return REFUSED


def check_outcome(name: str, wrong: dict):
    """Anything but a clear error or a finite result raises."""
    result = called(name, wrong)
    if result is REFUSED:
        return
    try:
        used = RECIPES[name].use(result)
    except ide.InputError:
        return
    except RuntimeError as error:
        # A tolerance, say, that cannot be met.
        assert re.search("solve failed between depths|tolerance", str(error))
        return
    numbers = [x for x in jax.tree.leaves(used) if eqx.is_inexact_array(x)]
    assert all(np.isfinite(x).all() for x in numbers), "not finite"
