"""Tests whether outputs of a model depend on later tokens."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ..arguments import is_known
from ..equation import AbstractConstraint, TokenDomain, parts
from ..errors import InputError
from ..integration import Mesh, Progress
from ..solvers import AbstractImplicitScheme
from .functions import Field, FunctionInputs
from .model import Model, once_for_each
from .parts import Text


# The length of the test's text, and the number of changes.
_TOKENS = 32
_CHANGES = 8
# Relative to the largest change. It is above zero for devices that add in varying order.
_ROUNDING = 1e-5
# The size of the change of weights that are zero.
_NOISE = 0.02

_ADVICE = (
    "In a causal model each part reads only the tokens up to its own; use causal=True in "
    "attention and TokenDomain.integral_up_to."
)

# Its inputs have a `vocabulary` and a `context`.
_Model: TypeAlias = Model[Any, Any]


class _Part(NamedTuple):
    """What a part computes, the token axis first, and what to say if later tokens change it."""

    fault: str
    values: PyTree[Array]


class _Change(NamedTuple):
    """Two texts or functions, and the tokens whose outputs must be equal."""

    text: Any
    other: Any
    stays: Bool[np.ndarray, " tokens"]

    def moves(self, part: Callable[[Any], PyTree[Array]]) -> bool | None:
        """Whether an output differs that must not; `None` if outputs are not finite."""
        before = [np.asarray(x) for x in jax.tree.leaves(part(self.text))]
        after = [np.asarray(x) for x in jax.tree.leaves(part(self.other))]
        if not all(np.isfinite(x).all() for x in before):
            return None
        pairs = zip(before, after, strict=True)
        changes = [np.abs(b - a).reshape(len(self.stays), -1).max(axis=1) for b, a in pairs]
        return any(not (x[self.stays] <= _ROUNDING * x.max()).all() for x in changes)


def check_causal(where: str, model: Model) -> None:
    """Raises `InputError` if an output of a model depends on later tokens, or a `pointwise`
    operator on other tokens. The test changes later tokens, marks some as padding, and also
    changes all weights, since a zero could hide an effect."""
    if (fault := _find_fault(model)) is not None:
        raise InputError(f"{where}: {fault}")


@once_for_each
def _find_fault(model: Model[Any, Any]) -> str | None:
    model = model.ordinary
    inputs = model.inputs
    # Fixed explicit steps, which do not depend on other tokens.
    kinds = diffrax.AbstractImplicitSolver, AbstractImplicitScheme
    explicit = diffrax.Euler() if parts(model.mesh.scheme, kinds) else None
    solved = model.on(Mesh(steps=model.steps, solver=explicit))
    if isinstance(inputs, FunctionInputs):
        number = inputs.domain.num_tokens
        channels = () if inputs.channels is None else (inputs.channels,)
        random = np.random.default_rng(0)
        stays = np.arange(number) < number // 2
        domain = TokenDomain.midpoint(number)
        before, drawn = random.normal(size=(2, number, *channels)).astype(np.float32)
        after = np.where(stays.reshape(-1, *[1] * len(channels)), before, drawn)
        change = _Change(Field(before, domain), Field(after, domain), stays)
        tries = moved(solved, 1), moved(solved, -1), solved
        leaks = any(change.moves(eqx.filter_jit(tried)) for tried in tries)
        return f"its outputs depend on later tokens. {_ADVICE}" if leaks else None
    inputs.of_text(Text(np.zeros(1, int)))
    finite = 0
    # Needed only inside a compiled function; elsewhere it would compile each operation alone.
    traced = not is_known(jnp.zeros(()))
    with jax.ensure_compile_time_eval() if traced else contextlib.nullcontext():
        for tried in (moved(solved, 1), moved(solved, -1), solved):
            moves = []
            for text in _texts(tried):
                for change in _later_changes(text, tried.inputs.vocabulary):
                    moves.append(change.moves(_values(tried, -1)))
                    if moves[-1]:
                        return next(
                            part.fault
                            for i, part in enumerate(_parts(tried, text))
                            if change.moves(_values(tried, i))
                        )
                fault = _pointwise_fault(tried, text)
                if fault is not None:
                    return fault
            finite += None not in moves
            if finite == 2:
                return None
    return None


def moved(model: _Model, direction: int) -> _Model:
    """The model with all weights changed by more than their size, in NumPy."""
    random = np.random.default_rng(0)

    def changed(w: Any) -> Any:
        if not eqx.is_inexact_array(w):
            return w
        known = np.asarray(w) if is_known(w) else np.zeros(w.shape, w.dtype)
        size = max(np.sqrt(np.mean(known.astype(np.float32) ** 2)), _NOISE)
        signs = direction * (2 * random.integers(0, 2, w.shape, np.int8) - 1)
        return jax.device_put((known + 1.5 * size * signs).astype(known.dtype))

    return jax.tree.map(changed, model)


def _texts(model: _Model) -> Iterator[Text]:
    """A text for the model, and one with a mask if the model accepts masks."""

    def takes(text: Text) -> bool:
        try:
            _parts(model, text)
        except Exception:
            return False
        return True

    context = model.inputs.context
    # An operator may need the full number of tokens.
    for number in (min(_TOKENS, context), context):
        text = Text(np.random.default_rng(0).integers(0, model.inputs.vocabulary, number))
        if takes(text):
            break
    yield text
    padded = text._replace(mask=np.ones(len(text.tokens), bool))
    if takes(padded):
        yield padded


def _later_changes(text: Text, vocabulary: int) -> Iterator[_Change]:
    """Changes of all tokens from one on; with a mask, every other one becomes padding."""
    number = len(text.tokens)
    places = np.arange(number)
    for first in np.unique(np.linspace(min(1, number), number - 1, _CHANGES).astype(int)):
        stays = places < first
        other = np.where(stays, text.tokens, (text.tokens + 1) % vocabulary)
        mask = None if text.mask is None else stays | (places % 2 == 0)
        yield _Change(text, Text(other, mask), stays)


@eqx.filter_jit
def _parts(model: _Model, text: Text) -> list[_Part]:
    """The embedding, operators at depth 0, constraint, read-out, scheme, and exit, if any."""
    inputs = model.inputs.of_text(text)
    equation, u0 = model.initial_value_problem(inputs)
    domain = equation.domain
    found = [_Part(f"the embedding sees later tokens. {_ADVICE}", u0)]
    for i, operator in enumerate(equation.control(0.0)):
        name = type(operator.innermost).__name__
        mend = _ADVICE
        if not getattr(operator.innermost, "causal", True):
            mend = f"Write {name}(…, causal=True), or data.options.causal=true for arrays."
        rate = operator.at(0.0, None)(u0, domain)
        found.append(_Part(f"operator {i}, {name}, sees later tokens. {mend}", rate))
    for x in parts(model.constraint(0.0), AbstractConstraint):
        fault = f"the constraint {type(x).__name__} sees later tokens. {_ADVICE}"
        found.append(_Part(fault, x.project(u0)))
    found.append(_Part(f"the read-out sees later tokens. {_ADVICE}", model.outputs(u0)))
    scheme = type(model.mesh.scheme).__name__
    outputs = model.outputs(model.with_exit(None).solve(inputs).u1)
    found.append(_Part(f"the scheme {scheme} lets tokens see later ones. {_ADVICE}", outputs))
    if (exit := model.exit) is not None:
        u1 = model.solve(inputs).u1
        progress = Progress(u1, u1 - u0, u0, jnp.ones(()), model.outputs)
        weights = jnp.ones(domain.num_tokens) if domain.weights is None else domain.weights
        said = f"the exit {type(exit).__name__}(…, stops={exit.stops!r}) sees later tokens"
        measure = exit.each(progress, weights)
        found.append(_Part(f"{said}; give stops='token'.", (model.outputs(u1), measure)))
    return found


def _values(model: _Model, part: int) -> Callable[[Text], PyTree[Array]]:
    return lambda text: _parts(model, text)[part].values


def _pointwise_fault(model: _Model, text: Text) -> str | None:
    """Which operator is declared pointwise and is not."""
    places = np.arange(len(text.tokens))
    for changed in (places == 0, places == places[-1]):
        other = np.where(changed, (text.tokens + 1) % model.inputs.vocabulary, text.tokens)
        change = _Change(text, text._replace(tokens=other), ~changed)
        for i, operator in enumerate(eqx.filter_eval_shape(model.control, 0.0)):
            # The embedding comes before the operators.
            if operator.pointwise and change.moves(_values(model, 1 + i)):
                name = f"operator {i}, {type(operator.innermost).__name__}"
                return f"{name}, says that it is pointwise, and is not; drop `pointwise`."
    return None
