"""A trained model as a controlled system: its costates, the least push that changes an output,
and training by Pontryagin's principle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer import dynamics
from ide_transformer.arguments import PositiveFloat, PositiveInt, checked, is_known
from ide_transformer.contrib.depth_problem import make_problem
from ide_transformer.dynamics import March, scan_intervals
from ide_transformer.equation import AbstractSourcedOperator, Equation, map_parts, with_fields
from ide_transformer.errors import InputError
from ide_transformer.models import AbstractClassifier, LanguageModel, Model
from ide_transformer.reporting import Row, write_json
from ide_transformer.training import load_model


# From outputs to a loss of the batch, or a number for each sample.
Judged = Callable[[PyTree[Array]], Float[Array, "..."]]
# The fractions of a step that are tried; the last is the correction alone.
_FRACTIONS = (*(0.5**k for k in range(8)), 0.0)
# The most energy of pushes, in energies of the states.
_MOST_ENERGY = 100
# How near the log-odds have to come.
_NEAR = 0.02


class Costates(NamedTuple):
    """Sensitivities of a loss J of the outputs to the states u(t_l) and the weights θ(t) at the
    interval boundaries `t_0 = 0, …, t_L = T`.

    - `states`: u(t_l), `[L + 1, *batch, tokens, features]`.
    - `costates`: `p_l = ∂J / ∂u(t_l)` of the discrete march, in the same shape.
    - `hamiltonian`: `⟨p_l, A_i(u_l; θ(t_l))⟩`, `[L, operators]`, tangential to the constraint.
      Its sum over operators is `-dJ/dh` for a layer of length h. For constant θ it is constant
      in depth in the limit of small steps.
    - `stationarity`: `|∂/∂θ_i ⟨p_l, A_i(u_l; θ(t_l))⟩|`, `[L, operators]`, zero for optimal
      weights of a layer. With a `space`, θ are the matrices, not the coefficients.

    At t_0 the last two take the state and the costate at 0+, after the projection of u_0 on
    the constraint, except for `LayerNorm` and `RMSNorm`, which are not projections.

    Reference: Pontryagin's principle, as in Li, Chen, Tai, E, arXiv 1710.09513.
    """

    states: Float[Array, "knots *batch tokens features"]
    costates: Float[Array, "knots *batch tokens features"]
    hamiltonian: Float[Array, "intervals operators"]
    stationarity: Float[Array, "intervals operators"]


@eqx.filter_jit
def costates(model: Model, inputs: PyTree[ArrayLike], loss: Judged) -> Costates:
    """The costates of a batch of inputs; `loss` is a function of the outputs."""
    march = March.of("costates", model, inputs)

    def objective(pushes):
        states = march.states(pushes)
        return loss(model.outputs(states[-1], inputs)), states

    p, states = jax.grad(objective, has_aux=True)(march.no_pushes)
    weights = dynamics.stacked_intervals(march.equation.control)
    equation = Equation(weights, march.equation.constraint, march.equation.domain)

    def of_interval(interval):
        index, weights, u, costate = interval

        def hamiltonians(weights):
            terms = equation.interval_terms(index, weights).terms
            start = index * equation.control.interval_length
            values = jnp.stack([jnp.sum(costate * term.vf(start, u, None)) for term in terms])
            # Each depends only on the weights of its operator.
            return jnp.sum(values), values

        (slopes, _), values = eqx.filter_grad(hamiltonians, has_aux=True)(weights)
        # A source is not a weight.
        slopes = map_parts(
            slopes,
            AbstractSourcedOperator,
            lambda operator, _: with_fields(operator, source=None, source_domain=None),
        )
        return values, jnp.sqrt(jnp.stack([*map(dynamics.square, slopes)]))

    begin = march.on_constraint()
    first = march.equation.terms_of(0)
    _, pull = jax.vjp(lambda u: march.advance(first, 0.0, u).astype(u.dtype), begin)
    us = states[:-1].at[0].set(begin)
    ps = p[:-1].at[0].set(pull(p[1])[0])
    numbers = jnp.arange(equation.control.layers, dtype=states.dtype)
    intervals = numbers, equation.intervals(), us, ps
    return Costates(states, p, *lax.map(of_interval, intervals))


class Steering(NamedTuple):
    """Pushes that steer a solve, for each sample.

    - `pushes`: v, `[L, *batch, tokens, features]`: `u_t = Σ_i A_i(u; θ(t)) + v_l` in interval
      l, as `h v_l` after its steps.
    - `energy`: `Σ_l h |v_l|²`, `[*batch]`.
    - `reached`: the value g that is reached, `[*batch]`.
    """

    pushes: Float[Array, "intervals *batch tokens features"]
    energy: Float[Array, "*batch"]
    reached: Float[Array, "*batch"]


def steer(
    model: Model,
    inputs: PyTree[ArrayLike],
    judged: Judged,
    level: float,
    *,
    intervals: Sequence[int] | None = None,
    iterations: PositiveInt = 40,
) -> Steering:
    """The pushes v of least energy that bring a value g of the outputs to a level,

        min_v ½ Σ_l h |v_l|²,   g(outputs(v)) = level,

    by Gauss–Newton steps. The costates linearise g, `g(v) + Σ_l h ⟨p_l, δ_l⟩`, and the step of
    least energy is along them, `v_l = λ p_l`. Of halved steps, each corrected along the
    costates by the distance of its g from the level, the one with the least
    `½ Σ_l h |v_l|² + 2 |λ| |g - level|` is taken. In the first half of the steps the level
    moves evenly from g(0) to its value, so that pushes stay small.

    Reference for the second-order correction: Fletcher, *Second order corrections for
    non-differentiable optimization*, 1982.

    **Arguments:**

    - `judged`: from the outputs to g, `[*batch]`; best nearly linear, such as `log_odds`.
    - `level`: the value of g. If no state gives it, pushes stay below ten times the size of the
      states, and `reached` is another value.
    - `intervals`: the intervals in which v acts; default: all.

    **Raises:** `InputError` for unknown intervals, adaptive steps, and a scheme that carries
    something from interval to interval.
    """
    layers = range(model.layers)
    chosen = layers if intervals is None else intervals
    if not len(chosen) or not set(chosen) <= set(layers):
        raise InputError(
            f"steer: intervals={list(chosen)} must be some of 0 to {model.layers - 1}, one at "
            "least."
        )
    acts = jnp.zeros(model.layers).at[jnp.array(list(chosen))].set(1.0)
    return _steer(model, inputs, judged, jnp.asarray(level), acts, iterations)


@eqx.filter_jit
def _steer(model, inputs, judged, level, acts, iterations) -> Steering:
    march = March.of("steer", model, inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes
    acts = acts.astype(zeros.dtype).reshape(-1, *[1] * (zeros.ndim - 1))
    sizes = jnp.array(_FRACTIONS, zeros.dtype)

    def total(v):
        values = judged(model.outputs(march.states(zeros.at[1:].set(h * acts * v))[-1]))
        return jnp.sum(values), values

    def dot(v, w):
        return h * jnp.sum(v * w, axis=(0, -2, -1))

    native = total(zeros[1:])[1]
    states = march.states(zeros)[1:]
    largest = _MOST_ENERGY * dot(states, states)

    def step(v, share):
        wanted = native + share * (level.astype(zeros.dtype) - native)
        slope, value = jax.grad(total, has_aux=True)(v)
        costate = slope / h
        square = dot(costate, costate)
        square = jnp.where(square > 0, square, 1.0)
        multiplier = (wanted - value + dot(costate, v)) / square
        change = multiplier[None, ..., None, None] * costate - v

        def try_fraction(size):
            pushed = v + size * change
            correction = (wanted - total(pushed)[1]) / square
            pushed += correction[None, ..., None, None] * costate
            energy = dot(pushed, pushed)
            merit = 0.5 * energy + 2 * jnp.abs(multiplier * (total(pushed)[1] - wanted))
            return pushed, jnp.where(energy < largest, merit, jnp.inf)

        pushes, merits = lax.map(try_fraction, sizes)
        best = jnp.argmin(merits, axis=0)
        pushed = jnp.take_along_axis(pushes, best[None, None, ..., None, None], axis=0)[0]
        small = jnp.min(merits, axis=0) < jnp.inf
        return jnp.where(small[None, ..., None, None], pushed, v), None

    shares = jnp.minimum(2 * jnp.arange(1, iterations + 1) / iterations, 1.0)
    v, _ = lax.scan(step, zeros[1:], shares.astype(zeros.dtype))
    return Steering(v, dot(v, v), total(v)[1])


def log_odds(
    logits: Float[Array, "*batch classes"], target: ArrayLike
) -> Float[Array, "*batch"]:
    """`log p/(1 - p)` of a class or token, 2.197 for p = 0.9. `target`: one for all samples, or
    one for each."""
    classes = logits.shape[-1]
    if is_known(target) and not (np.min(target) >= 0 and np.max(target) < classes):
        raise InputError(
            f"log_odds: target={np.asarray(target).tolist()} must be 0 to {classes - 1}, since "
            f"there are {classes} classes."
        )
    chosen = jnp.broadcast_to(jax.nn.one_hot(target, classes, dtype=bool), logits.shape)
    one, others = (
        jax.nn.logsumexp(jnp.where(where, logits, -jnp.inf), axis=-1)
        for where in (chosen, ~chosen)
    )
    return one - others


class Approximations(NamedTuple):
    """The result of successive approximations.

    - `model`: with the last weights θ.
    - `objectives`: J before the first approximation and after each.
    """

    model: Model
    objectives: Float[Array, " iterations"]


@checked
@eqx.filter_jit
def successive_approximations(
    model: Model,
    inputs: PyTree[ArrayLike],
    loss: Callable[..., Float[Array, ""]],
    costs: Sequence[dynamics.AbstractCost] = (),
    *,
    iterations: PositiveInt = 100,
    steps: PositiveInt = 5,
    penalty: PositiveFloat = 1.0,
) -> Approximations:
    """The weights θ(t) that minimise `J = loss(outputs) + Σ weight · cost` on one batch, by
    the extended method of successive approximations. A march forward gives the states u_l, one
    backward the costates `p_l = dJ/du_l`, and then θ minimises, with both fixed,

        Σ_l ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ + running costs of (u, θ)
            + ρ/2h Σ_l (|Ψ_l(u_l; θ) - u_{l+1}|² + |∂_u ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ - q_l|²),

    Ψ_l the native steps in interval l and q_l this derivative before: the augmented
    Hamiltonian, which separate layers minimise separately. An approximation that does not lower
    J is dropped and multiplies ρ by 4; otherwise ρ is halved. For small problems; the weights
    of inputs, constraint and read-out stay. Reference: Li, Chen, Tai, E, arXiv 1710.09513,
    where costates have the other sign and the Hamiltonian is maximised.

    **Arguments:**

    - `loss`: from the outputs to a number.
    - `costs`: running costs, with their weights.
    - `iterations`, `steps`: approximations, and steps of L-BFGS in each.
    - `penalty`: the first ρ.
    """
    import optax

    theta, static = eqx.partition(model.control, eqx.is_inexact_array)
    rule = optax.lbfgs()
    h = model.control.interval_length

    def with_weights(theta):
        return eqx.tree_at(lambda m: m.control, model, eqx.combine(theta, static))

    def march_of(theta):
        return March.of("successive_approximations", with_weights(theta), inputs)

    def running(theta, states):
        path = dynamics.Path(with_weights(theta), inputs, states)
        return sum((cost.weight * cost(path) for cost in costs), jnp.zeros(()))

    def objective(pushes, theta):
        states = march_of(theta).states(pushes)
        end = loss(model.outputs(states[-1], inputs))
        return end + running(theta, states), states

    def stepped(theta, states):
        """The states at the ends of intervals, from the states where they begin."""
        march = march_of(theta)

        def visit(_, terms, start, u):
            return None, march.advance(terms, start, u)

        return scan_intervals(march.equation, visit, None, states, dtype=states.dtype)[1]

    zeros = march_of(theta).no_pushes

    def approximate(carry, _):
        theta, penalty = carry
        (value, states), p = jax.value_and_grad(objective, has_aux=True)(zeros, theta)

        def pulled(theta):
            ends, pull = jax.vjp(lambda u: stepped(theta, u), states[:-1])
            return ends, pull(p[1:])[0]

        _, q = pulled(theta)

        def augmented(theta):
            ends, new = pulled(theta)
            change = jnp.sum((ends - states[1:]) ** 2) + jnp.sum((new - q) ** 2)
            hamiltonian = jnp.sum(p[1:] * ends) + running(theta, states)
            return hamiltonian + penalty / (2 * h) * change

        value_and_grad = optax.value_and_grad_from_state(augmented)

        def step(carry, _):
            theta, state = carry
            value, slope = value_and_grad(theta, state=state)
            updates, state = rule.update(
                slope, state, theta, value=value, grad=slope, value_fn=augmented
            )
            return (optax.apply_updates(theta, updates), state), None

        (new, _), _ = lax.scan(step, (theta, rule.init(theta)), length=steps)
        after, _ = objective(zeros, new)
        lower = after < value
        theta = jax.tree.map(lambda x, y: jnp.where(lower, x, y), new, theta)
        penalty = jnp.where(lower, penalty / 2, 4 * penalty)
        return (theta, penalty), jnp.where(lower, after, value)

    first, _ = objective(zeros, theta)
    start = theta, jnp.asarray(penalty, zeros.dtype)
    (theta, _), later = lax.scan(approximate, start, length=iterations)
    return Approximations(with_weights(theta), jnp.concatenate([first[None], later]))


@checked
def study_dynamics(
    path: str, folder: Path, *, samples: PositiveInt, trust: bool = False
) -> Sequence[Row]:
    """Reads the run or checkpoint in `path` as a controlled system, on held-out samples, and
    writes `dynamics.json` into `folder`. A row for each layer:

    - `stationarity, …`, `hamiltonian, …`: the `Costates` of each operator, for the mean loss.
    - `costate`, `state`: root mean squares where the layer begins.
    """
    loaded = load_model(path, trust=trust)
    problem = make_problem(loaded, 1, samples)
    measured = costates(loaded.model, problem.held_out, lambda y: jnp.mean(problem.losses(y)))
    equation, _ = loaded.model.initial_value_problem(problem.held_out)
    kinds = [type(x.innermost).__name__ for x in equation.control(0.0)]
    names = [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]
    columns = {"costate": _size(measured.costates), "state": _size(measured.states)}
    for i, name in enumerate(names):
        columns[f"stationarity, {name}"] = measured.stationarity[:, i]
        columns[f"hamiltonian, {name}"] = measured.hamiltonian[:, i]
    rows = [
        {"layer": n, **{name: float(column[n]) for name, column in columns.items()}}
        for n in range(len(measured.hamiltonian))
    ]
    write_json(folder / "dynamics.json", {"path": path, "loss": problem.loss, "layers": rows})
    return rows


def _size(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x**2, axis=range(1, x.ndim)))


@checked
def study_steering(
    path: str,
    folder: Path,
    *,
    probability: float,
    samples: PositiveInt,
    tokens: PositiveInt | None = None,
    iterations: PositiveInt = 40,
    trust: bool = False,
) -> dict[str, Any]:
    """Steers held-out samples of the run or checkpoint in `path` to classes, or next tokens,
    that are drawn at random, at a probability, and writes `steering.json` into `folder`.

    `ratio` is the energy of the push in all layers over the energy of the best push in a single
    layer, by percentiles over the samples that both bring there; `best layer` counts these
    samples by that layer.

    **Arguments:** `tokens`, how many of a text; default 16.
    """
    if not 0 < probability < 1:
        raise InputError(f"probability={probability} must be between 0 and 1.")
    level = float(np.log(probability / (1 - probability)))
    loaded = load_model(path, trust=trust)
    model = loaded.model
    if not isinstance(model.read_out, AbstractClassifier):
        loaded.expected(LanguageModel, "; one is steered to a class or to the next token")
    inputs = make_problem(loaded, 1, samples).held_out
    if eqx.filter_eval_shape(model, inputs).ndim == 3:
        inputs = inputs[:, : tokens or 16]
    elif tokens is not None:
        raise InputError(f"tokens={tokens}: {path} classifies whole samples; drop it.")
    # Drawn among all that are not the most likely.
    order = np.argsort(-np.asarray(_last(model(inputs))), axis=1)
    ranks = np.random.default_rng(0).integers(1, order.shape[1], len(order))
    targets = order[np.arange(len(order)), ranks]

    def odds(outputs: Array) -> Array:
        return log_odds(_last(outputs), targets)

    def steer_to_targets(**options: Any) -> tuple[Steering, np.ndarray]:
        """The pushes, and their energies, infinite for samples that do not come there."""
        steering = steer(model, inputs, odds, level, iterations=iterations, **options)
        near = jnp.abs(steering.reached - level) < _NEAR
        return steering, np.asarray(jnp.where(near, steering.energy, jnp.inf))

    steering, energy = steer_to_targets()
    single = np.stack([steer_to_targets(intervals=[n])[1] for n in range(model.layers)])
    reached = np.isfinite(energy)
    both = reached & np.isfinite(single).any(axis=0)
    if not both.any():
        raise InputError(
            f"{path}: no sample reaches a probability of {probability} by pushes in all layers "
            "and by a push in one; pass more --iterations, or a lower probability."
        )
    ratios = energy[both] / single.min(axis=0)[both]
    best = single.argmin(axis=0)[both]
    density = np.sum(np.asarray(steering.pushes) ** 2, axis=(-2, -1))[:, reached]
    row = {
        "model": Path(path).name,
        "inputs": len(targets),
        "reached": int(reached.sum()),
        "layers": model.layers,
        **{f"ratio, {q} %": float(np.percentile(ratios, q)) for q in (5, 50, 95)},
        "at most a third": float(np.mean(ratios <= 1 / 3)),
        "best layer": np.bincount(best, minlength=model.layers).tolist(),
        "share of each layer": (density / density.sum(axis=0)).mean(axis=1).tolist(),
    }
    write_json(folder / "steering.json", row)
    return row


def _last(outputs: Array) -> Float[Array, "samples outputs"]:
    """The scores of a class, or of the token after the last."""
    return outputs[:, -1] if outputs.ndim == 3 else outputs
