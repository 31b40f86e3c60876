"""Tests whether outputs of a model depend on later tokens."""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ..arguments import is_known
from ..equation import AbstractConstraint, TokenDomain, parts
from ..errors import InputError
from ..integration import Mesh
from ..solvers import AbstractImplicitScheme
from .functions import Field, FunctionInputs
from .model import Model, once_for_each
from .parts import Text


# Tokens of the text, and how many of them are in turn the first changed one.
_TOKENS = 32
_CHANGES = 8
# A change below this fraction of the largest is rounding: devices may sum in any order.
_ROUNDING = 1e-5
# The size of weights that are all zero, when they are perturbed.
_NOISE = 0.02

# A model of texts: its inputs have a `vocabulary` and a `context`.
_Model: TypeAlias = Model[Any, Any]


def check_causal(where: str, model: Model) -> None:
    """Raises `InputError` if an output of a model depends on later tokens, or a `pointwise`
    operator on other tokens. The test changes later tokens and marks some as padding. It also
    perturbs all weights, since a zero hides what it multiplies. The error names suspects."""
    if (fault := _find_fault(model)) is not None:
        raise InputError(f"{where}: {fault}")


@once_for_each
def _find_fault(model: Model[Any, Any]) -> str | None:
    model = model.ordinary
    if model.exit is not None and model.exit.stops != "token":
        name = type(model.exit).__name__
        return (
            f"the exit {name}(…, stops={model.exit.stops!r}) sees later tokens; set "
            "stops='token'."
        )
    # Fixed explicit steps, since adaptive and implicit ones depend on all tokens.
    implicit = diffrax.AbstractImplicitSolver, AbstractImplicitScheme
    explicit = model.on(Mesh(steps=model.steps))
    if parts(model.solver, implicit):
        explicit = explicit.with_solver(diffrax.Euler())
    variants = (_perturb_weights(explicit, 1), _perturb_weights(explicit, -1), explicit)
    if isinstance(model.inputs, FunctionInputs):
        # Two functions that agree on the first half of the points.
        points = model.inputs.domain.num_tokens
        channels = () if model.inputs.channels is None else (model.inputs.channels,)
        values = np.random.default_rng(0).normal(size=(2, points, *channels)).astype("float32")
        stays = np.arange(points) < points // 2
        values[1, stays] = values[0, stays]
        before, after = (Field(x, TokenDomain.midpoint(points)) for x in values)
        leaks = any(_differ(_outputs(x, before), _outputs(x, after), stays) for x in variants)
        return _name_suspects(model) if leaks else None
    model.inputs.of_text(Text(np.zeros(1, int)))
    num_finite = 0
    # Only while a function is compiled; otherwise it would compile each operation alone.
    traced = not is_known(jnp.zeros(()))
    with jax.ensure_compile_time_eval() if traced else contextlib.nullcontext():
        for variant in variants:
            differences = []
            for text in _example_texts(variant):
                before = _outputs(variant, text)
                for changed, stays in _change_later_tokens(text, variant.inputs.vocabulary):
                    differences.append(_differ(before, _outputs(variant, changed), stays))
                if any(differences):
                    return _name_suspects(model)
                if (fault := _pointwise_fault(variant, text)) is not None:
                    return fault
            num_finite += None not in differences
            if num_finite == 2:
                break
    return None


@eqx.filter_jit
def _outputs(model: _Model, inputs: Any) -> PyTree[Array]:
    inputs = model.inputs.of_text(inputs) if isinstance(inputs, Text) else inputs
    return model.outputs(model.solve(inputs).u1)


def _differ(
    before: PyTree[Array], after: PyTree[Array], stays: Bool[np.ndarray, " tokens"]
) -> bool | None:
    """Whether two outputs differ at the tokens that stay; `None` if `before` is not finite."""
    before = [np.asarray(x) for x in jax.tree.leaves(before)]
    after = [np.asarray(x) for x in jax.tree.leaves(after)]
    if not all(np.isfinite(x).all() for x in before):
        return None
    pairs = zip(before, after, strict=True)
    changes = [np.abs(y - x).reshape(len(stays), -1).max(axis=1) for x, y in pairs]
    return any(not (x[stays] <= _ROUNDING * x.max()).all() for x in changes)


def _name_suspects(model: _Model) -> str:
    """A message with the parts whose flags allow them to see later tokens."""
    suspects = [
        f"operator {i}, {type(x.innermost).__name__}"
        for i, x in enumerate(eqx.filter_eval_shape(model.control, 0.0))
        if not (x.pointwise or getattr(x.innermost, "causal", False))
    ]
    if not suspects:
        constraints = parts(eqx.filter_eval_shape(model.constraint, 0.0), AbstractConstraint)
        unflagged = (model.inputs, *constraints, model.solver, model.read_out)
        suspects = [type(x).__name__ for x in unflagged]
    return (
        f"{' or '.join(suspects)}, sees later tokens. In a causal model a token sees only "
        "itself and earlier ones; use causal=True in attention (data.options.causal=true for "
        "arrays) and TokenDomain.integral_up_to."
    )


def _perturb_weights(model: _Model, direction: int) -> _Model:
    """The model with all weights changed by 1.5 times their size, in NumPy."""
    random = np.random.default_rng(0)

    def perturb(weight: Any) -> Any:
        if not eqx.is_inexact_array(weight):
            return weight
        shape = weight.shape
        values = np.asarray(weight) if is_known(weight) else np.zeros(shape, weight.dtype)
        size = max(np.sqrt(np.mean(values.astype(np.float32) ** 2)), _NOISE)
        signs = direction * (2 * random.integers(0, 2, shape, np.int8) - 1)
        return jax.device_put((values + 1.5 * size * signs).astype(values.dtype))

    return jax.tree.map(perturb, model)


def _example_texts(model: _Model) -> Iterator[Text]:
    """Yields a text, and one with a mask if the model accepts masks."""

    def accepts(text: Text) -> bool:
        try:
            _outputs(model, text)
        except Exception:
            return False
        return True

    context = model.inputs.context
    # An operator may need the full number of tokens.
    for length in (min(_TOKENS, context), context):
        text = Text(np.random.default_rng(0).integers(0, model.inputs.vocabulary, length))
        if accepts(text):
            break
    yield text
    padded = text._replace(mask=np.ones(len(text.tokens), bool))
    if accepts(padded):
        yield padded


def _change_later_tokens(
    text: Text, vocabulary: int
) -> Iterator[tuple[Text, Bool[np.ndarray, " tokens"]]]:
    """Yields texts whose tokens differ from some position on, and which tokens stay. If the
    text has a mask, every second later token becomes padding."""
    length = len(text.tokens)
    positions = np.arange(length)
    for first in np.unique(np.linspace(min(1, length), length - 1, _CHANGES).astype(int)):
        stays = positions < first
        tokens = np.where(stays, text.tokens, (text.tokens + 1) % vocabulary)
        mask = None if text.mask is None else stays | (positions % 2 == 0)
        yield Text(tokens, mask), stays


@eqx.filter_jit
def _pointwise_rates(model: _Model, text: Text) -> dict[int, list[Array]]:
    """For each pointwise operator its rates at depth 0: of the embedded text, and with its
    first or its last token changed."""
    equation, u0 = model.initial_value_problem(model.inputs.of_text(text))
    # A normalisation would remove a change that all features share.
    change = jnp.linspace(-1, 2, u0.shape[-1], dtype=u0.dtype)
    states = (u0, u0.at[..., 0, :].add(change), u0.at[..., -1, :].add(change))
    return {
        i: [operator.at(0.0, None)(u, equation.domain) for u in states]
        for i, operator in enumerate(equation.control(0.0))
        if operator.pointwise
    }


def _pointwise_fault(model: _Model, text: Text) -> str | None:
    """The message if an operator has a wrong `pointwise`; `None` if all are right."""
    positions = np.arange(len(text.tokens))
    for i, (rate, *changed) in _pointwise_rates(model, text).items():
        stays = (positions != 0, positions != positions[-1])
        if any(_differ(rate, x, y) for x, y in zip(changed, stays, strict=True)):
            operator = eqx.filter_eval_shape(model.control, 0.0)[i]
            name = type(operator.innermost).__name__
            return f"operator {i}, {name}, has pointwise=True but sees other tokens; drop it."
    return None
