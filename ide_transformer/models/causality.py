"""The dependence of outputs on later tokens, measured."""

import contextlib
import functools as ft
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..arguments import is_known
from ..equation import AbstractConstraint, AbstractOperator, TokenDomain, parts
from ..errors import InputError
from ..integration import Progress
from ..solvers import AbstractImplicitScheme
from .model import Model
from .text import Text


# The tokens of the text on which it is measured, and how many changes of it are tried.
_TOKENS, _CHANGES = 32, 8
# Of the largest change. Without a leak nothing changes to the last bit, but on devices that
# add in another order each time.
_ROUNDING = 1e-5
# The size of the noise on weights that are zero.
_NOISE = 0.02

# One of texts, with a `vocabulary` and a `context`.
_Model: TypeAlias = Model[Any, Any]
# A part of a model as a function of a text, with an axis of tokens in front.
_Part = Callable[[Text], PyTree[Float[Array, "tokens *outputs"]]]


class _Change(NamedTuple):
    """A text, the same with other tokens or with padding in some places, and the tokens whose
    outputs have to stay as they are."""

    text: Text
    other: Text
    stays: Bool[np.ndarray, " tokens"]

    def moves(self, part: _Part) -> bool | None:
        """Whether an output moves that has to stay; `None` where outputs are not finite."""
        before, after = (
            [np.asarray(x) for x in jax.tree.leaves(part(text))]
            for text in (self.text, self.other)
        )
        if not all(np.isfinite(x).all() for x in before):
            return None
        pairs = zip(before, after, strict=True)
        changes = [np.abs(b - a).reshape(len(self.stays), -1).max(axis=1) for b, a in pairs]
        return any(not (x[self.stays] <= _ROUNDING * x.max()).all() for x in changes)


def check_causal(where: str, model: Model) -> None:
    """Checks by trying that no output of a model depends on later tokens: those of a text are
    changed, and some marked as padding. Weights are moved first, in both directions, so that
    nothing hides behind one that starts at zero, or with this sign. Steps do not follow the
    state, since those that do see all tokens, within their tolerance.

    **Arguments:**

    - `where`: what asks, for the error.
    - `model`: one of texts, see `AbstractInputs.of_text`. Weights that are traced are drawn.

    **Raises:** `InputError` that names what sees later tokens, and for an operator that says it
    is `pointwise` and sees others.
    """
    solved = _by_fixed_steps(model.ordinary)
    solved.inputs.of_text(Text(np.zeros(1, int)))
    finite = 0
    # Inside a compiled function operations on known numbers would be traced; elsewhere this
    # would only compile them one by one.
    traced = not is_known(jnp.zeros(()))
    with jax.ensure_compile_time_eval() if traced else contextlib.nullcontext():
        for tried in (_moved(solved, 1), _moved(solved, -1), solved):
            seen, moves = ft.partial(_seen, tried), []
            for text in _texts(tried, seen):
                for change in _later_changes(text, tried.inputs.vocabulary):
                    moves.append(change.moves(lambda text, seen=seen: seen(text)[:2]))
                    if moves[-1]:
                        raise InputError(f"{where}: {_reason(tried, change)}")
                _check_pointwise(where, tried, text, seen)
            finite += None not in moves
            if finite == 2:
                return


def _by_fixed_steps(model: _Model) -> _Model:
    """The model solved by the same steps whatever the state is: one in each interval where they
    are adaptive, of Euler's method where they are implicit."""
    given = model.discretization
    kinds = diffrax.AbstractImplicitSolver, AbstractImplicitScheme
    solver = diffrax.Euler() if parts(given.solver, kinds) else given.solver
    return model.with_solver(
        solver, steps_per_interval=given.steps_per_interval, exit=given.exit
    )


def _moved(model: _Model, direction: int) -> _Model:
    """The model with more than their size added to all weights or taken from them, without
    order; of traced ones nothing else is left. In NumPy, which compiles nothing."""

    def noisy(w: Array, number: int) -> Array:
        known = np.asarray(w) if is_known(w) else np.zeros(w.shape, w.dtype)
        size = max(np.sqrt(np.mean(known.astype(np.float32) ** 2)), _NOISE)
        bits = (np.arange(known.size, dtype=np.uint32) + number) * np.uint32(2654435761)
        signs = np.where(bits.reshape(known.shape) >> 31, direction, -direction)
        return jnp.asarray((known + 1.5 * size * signs).astype(known.dtype))

    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(weights)
    moved = [noisy(w, number) for number, w in enumerate(leaves)]
    return eqx.combine(jax.tree.unflatten(structure, moved), rest)


def _texts(model: _Model, seen: _Part) -> Iterator[Text]:
    """Texts that the model takes: one, and one that may have padding."""
    number = min(_TOKENS, model.inputs.context)
    # An operator may know the number of tokens.
    if not _takes(seen, _text(model, number)):
        number = model.inputs.context
    text = _text(model, number)
    yield text
    padded = text._replace(mask=np.ones(number, bool))
    if _takes(seen, padded):
        yield padded


def _text(model: _Model, number: int) -> Text:
    return Text(np.random.default_rng(0).integers(0, model.inputs.vocabulary, number))


def _takes(seen: _Part, text: Text) -> bool:
    try:
        seen(text)
    except Exception:
        return False
    return True


def _later_changes(text: Text, vocabulary: int) -> Iterator[_Change]:
    """Changes of all tokens from one on; of a text that may have padding, every other of them
    becomes such."""
    number = len(text.tokens)
    places = np.arange(number)
    for first in np.unique(np.linspace(min(1, number), number - 1, _CHANGES).astype(int)):
        stays = places < first
        other = np.where(stays, text.tokens, (text.tokens + 1) % vocabulary)
        mask = None if text.mask is None else stays | (places % 2 == 0)
        yield _Change(text, Text(other, mask), stays)


@eqx.filter_jit
def _seen(model: _Model, text: Text) -> tuple[Array, Array | None, list[Array]]:
    """Outputs and what an exit measures, which must not depend on later tokens, and the rates
    of pointwise operators, which depend on their own token alone."""
    inputs = model.inputs.of_text(text)
    u0, domain = model.embed(inputs)
    u1 = model.solve(inputs).u1
    pointwise = [operator.pointwise for operator in _block(model)]
    return (
        model.outputs(u1),
        _measure(model, u0, u1, domain),
        list(itertools.compress(_rates(model, text), pointwise)),
    )


def _measure(model: _Model, u0: Array, u1: Array, domain: TokenDomain) -> Array | None:
    exit = model.discretization.exit
    if exit is None:
        return None
    progress = Progress(u1, u1 - u0, u0, jnp.ones(()), model.outputs)
    weights = jnp.ones(domain.num_tokens) if domain.weights is None else domain.weights
    return exit.each(progress, weights)


def _reason(model: _Model, change: _Change) -> str:
    """Name the part of a model that sees later tokens, and what to write instead."""
    advice = (
        "In a causal model each part reads the tokens up to its own alone, as attention with "
        "causal=True and TokenDomain.integral_up_to do."
    )

    def sees(part: _Part) -> bool:
        return bool(change.moves(eqx.filter_jit(part)))

    def embedded(text: Text) -> Array:
        return model.embed(model.inputs.of_text(text))[0]

    if sees(embedded):
        return f"the embedding sees later tokens. {advice}"
    for i, operator in enumerate(_block(model)):
        if sees(lambda text, i=i: _rates(model, text)[i]):
            name, own = type(operator.innermost).__name__, operator.innermost
            if not getattr(own, "causal", True):
                advice = f"Make it causal, {name}(…, causal=True)."
            return f"operator {i}, {name}, sees later tokens. {advice}"
    constraints = jax.tree.leaves(
        model.constraint(0.0), is_leaf=lambda x: isinstance(x, AbstractConstraint)
    )
    for constraint in constraints:
        if sees(lambda text, c=constraint: c.project(embedded(text))):
            name = type(constraint).__name__
            return f"the constraint {name} sees later tokens. {advice}"
    if sees(lambda text: model.outputs(embedded(text))):
        return f"the read-out sees later tokens. {advice}"
    exit = model.discretization.exit
    if exit is not None and not change.moves(lambda text: _seen(model.with_exit(None), text)):
        return (
            f"the exit {type(exit).__name__}(…, stops={exit.stops!r}) sees later tokens; give "
            "stops='token', or solve to the end, model.with_exit(None)."
        )
    name = type(model.discretization.solver).__name__
    return f"the scheme {name} lets tokens see later ones. {advice}"


def _check_pointwise(where: str, model: _Model, text: Text, seen: _Part) -> None:
    """Refuses an operator that says that it acts token by token and does not: in generation
    its tokens would be marched one after the other."""
    own = [(i, operator) for i, operator in enumerate(_block(model)) if operator.pointwise]
    tokens, places = text.tokens, np.arange(len(text.tokens))
    for changed in (places == 0, places == places[-1]):
        other = np.where(changed, (tokens + 1) % model.inputs.vocabulary, tokens)
        change = _Change(text, text._replace(tokens=other), ~changed)
        for number, (i, operator) in enumerate(own):
            if change.moves(lambda text, number=number: seen(text)[2][number]):
                name = type(operator.innermost).__name__
                raise InputError(
                    f"{where}: operator {i}, {name}, says that it is pointwise, but its rate "
                    "at a token depends on others; drop `pointwise` from its class."
                )


def _block(model: _Model) -> tuple[AbstractOperator, ...]:
    block: Any = eqx.filter_eval_shape(model.control, 0.0)
    return block


@eqx.filter_jit
def _rates(model: _Model, text: Text) -> list[Float[Array, "tokens features"]]:
    """The rate of each operator at the beginning."""
    equation, u0 = model.initial_value_problem(model.inputs.of_text(text))
    block = equation.control(0.0)
    return [operator.at(0.0, None)(u0, equation.domain) for operator in block]
