"""Arguments are checked by their annotations: what is taken, and what is said of the rest."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Real

import ide_transformer as ide
from ide_transformer.arguments import Fraction, OddWidth, PositiveInt, at_least, checked
from tests.helpers import public_names


Texts = TypeVar("Texts", str, list[str])
Above = Annotated[Real[np.ndarray, "..."], at_least(0)]
Two = tuple[int, int]


def taking(kind):
    def f(x):
        return x

    f.__annotations__["x"] = kind
    return checked(f)


RIGHT = [
    *((bool, True), (int, np.int64(3)), (float, 2), (float | None, None), (Any, object())),
    *((tuple[float, ...], (1, np.float32(2))), (Two, (1, 2)), (list[str], []), (Texts, ["a"])),
    *((Sequence[str], ("a",)), (Mapping[str, int], {"a": 1}), (Callable, len), (type, int)),
    *((Literal[1, 3], 3), (Float[Array, "n"], np.ones(2)), (Fraction, 0), (Path, Path())),
]
WRONG = [
    (bool, 1, "a valid boolean"),
    (int, True, "a valid integer"),
    (int, 1.0, "a valid integer"),
    (float, True, "a valid number"),
    (float, np.nan, "a finite number"),
    (float, jnp.ones(()), "a number of Python (not an array)"),
    (str | None, 1, "a valid string"),
    (Two, (1,), "a tuple of 2"),
    (tuple[int, ...], (1, 2.0), "a valid integer"),
    (list[str], ["a", 1], "a valid string"),
    (Texts, 1, "a valid string or a valid list"),
    (Sequence[str], "ab", "a list or a tuple"),
    (Mapping[str, int], {"a": "b"}, "a valid integer"),
    (Callable, 1, "callable"),
    (Path, "a", "a file or a folder, or . for the current folder"),
    (Literal["a", "b", "c"], "d", "'a', 'b' or 'c'"),
    (int | Literal["x"], "y", "a valid integer or 'x'"),
    (PositiveInt, 0, "greater than 0"),
    (Fraction, 1, "less than 1"),
    (OddWidth, 2, "odd"),
    (Above, np.array([1, -1]), "greater than or equal to 0"),
    (Float[Array, "n"], np.ones((2, 2)), "an array of floats [n]"),
    (Float[Array, "n"], np.array([1, np.inf]), "finite; 1 are not, the first at [1]"),
    (Float[Array, "n"], np.ones(2, complex), "an array of floats [n]"),
    (Float[Array, "n"], np.array(["a"]), "an array of floats [n]"),
    (Float[Array, "n"], np.array([None]), "an array of floats [n]"),
]


@pytest.mark.parametrize("kind, value", RIGHT)
def test_what_fits_is_taken(kind, value):
    checked_value = taking(kind)(value)
    assert checked_value is value or np.array_equal(checked_value, value)


@pytest.mark.parametrize("kind, value, expected", WRONG)
def test_what_does_not_fit_is_refused(kind, value, expected):
    with pytest.raises(ide.InputError) as refused:
        taking(kind)(value)
    assert str(refused.value).endswith(f": x should be {expected}.")


def test_a_traced_number_is_told_from_a_wrong_one():
    with pytest.raises(ide.InputError, match="JAX traces"):
        jax.jit(taking(float))(1.0)


# Tuples are checked where they are used: by a task, a solve, an exit, a scheme or a model.
ELSEWHERE = {"Batch", "Embedded", "Encoded", "Field", "InputError", "Progress", "SolvePlan"}
ELSEWHERE |= {"Step", "Step.between", "Text", "Timed", "fed_back"}


def public_calls():
    """The public names that can be called, and the ways to build a class."""
    for name, value in public_names().items():
        abstract = inspect.isclass(value) and (inspect.isabstract(value) or "Abstract" in name)
        if get_origin(value) is None and not abstract:
            yield name, value
            ways = {x: y for x, y in vars(value).items() if isinstance(y, classmethod)}
            yield from ((f"{name}.{x}", getattr(value, x)) for x in ways if x[0] != "_")


CALLS = dict(public_calls())


def checks(call):
    try:
        call(not_an_argument=1)
    except ide.InputError as error:
        return "its arguments are" in str(error)
    except TypeError:
        return False
    return False


def test_every_public_callable_checks_its_arguments():
    assert len(CALLS) > 150
    assert {name for name, call in CALLS.items() if not checks(call)} == ELSEWHERE


def test_a_call_with_too_many_arguments_says_which_there_are():
    with pytest.raises(ide.InputError, match=r"solve: .* \(equation, u0, \*, solver"):
        ide.solve(1, 2, ide.LieTrotter(), 0.0, 1.0)


def unclear(annotation):
    """Whether it says nothing, or of an array not which numbers it holds."""
    if get_origin(annotation) is Callable:
        return False
    parts = get_args(annotation)
    return annotation in (inspect.Parameter.empty, jax.Array) or any(map(unclear, parts))


def test_every_argument_says_what_it_takes():
    for name in CALLS.keys() - ELSEWHERE:
        parameters = inspect.signature(CALLS[name], eval_str=True).parameters
        assert not [x for x, y in parameters.items() if unclear(y.annotation)], name
