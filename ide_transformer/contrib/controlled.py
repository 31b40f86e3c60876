"""Trained models as controlled systems: costates, the least push that changes an output, and
training by Pontryagin's principle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer import dynamics
from ide_transformer.arguments import (
    PositiveFloat,
    PositiveInt,
    above,
    below,
    checked,
    is_known,
)
from ide_transformer.contrib.depth_problem import make_problem
from ide_transformer.dynamics import March, scan_intervals
from ide_transformer.equation import AbstractSourcedOperator, Equation, map_parts, with_fields
from ide_transformer.errors import InputError
from ide_transformer.models import AbstractClassifier, LanguageModel, Model
from ide_transformer.reporting import Row, write_json
from ide_transformer.training import LoadedModel


# Maps outputs to a loss of the batch, or to a number for each sample.
OutputFunction = Callable[[PyTree[Array]], Float[Array, "..."]]
# The fractions of a step that a line search tries; the last is the correction alone.
_FRACTIONS = (*(0.5**k for k in range(8)), 0.0)
# The most energy of pushes, in energies of the states.
_MOST_ENERGY = 100
# Log-odds that differ less from the level have reached it.
_NEAR = 0.02


class Costates(NamedTuple):
    """Sensitivities of a loss J of the outputs to the states u(t_l) and the weights θ(t) at the
    interval boundaries `t_0 = 0, …, t_L = T`.

    - `states`: u(t_l), `[L + 1, *batch, tokens, features]`.
    - `costates`: `p_l = ∂J / ∂u(t_l)` of the discrete march, `[L + 1, *batch, tokens,
      features]`.
    - `hamiltonian`: `⟨p_l, A_i(u_l; θ(t_l))⟩`, `[L, operators]`, tangential to the constraint.
      Its sum over operators is `-dJ/dh` for a layer of length h. For constant θ it is constant
      in depth in the limit of small steps.
    - `stationarity`: `|∂/∂θ_i ⟨p_l, A_i(u_l; θ(t_l))⟩|`, `[L, operators]`, zero for optimal
      weights of a layer. With a `space`, θ are the matrices, not the coefficients.

    `hamiltonian` and `stationarity` at t_0 use the state and costate after the projection of
    u_0 on the constraint. (`LayerNorm` and `RMSNorm` are not projections.)

    Reference: Pontryagin's principle, as in Li, Chen, Tai, E, arXiv 1710.09513.
    """

    states: Float[Array, "knots *batch tokens features"]
    costates: Float[Array, "knots *batch tokens features"]
    hamiltonian: Float[Array, "intervals operators"]
    stationarity: Float[Array, "intervals operators"]


@eqx.filter_jit
def costates(model: Model, inputs: PyTree[ArrayLike], loss: OutputFunction) -> Costates:
    """The costates of a batch; `loss` maps the outputs to J."""
    march = March.of("costates", model, inputs)

    def objective(pushes):
        states = march.states(pushes)
        return loss(model.outputs(states[-1], inputs)), states

    p, states = jax.grad(objective, has_aux=True)(march.no_pushes)
    weights = dynamics.stacked_intervals(march.equation.control)
    equation = Equation(weights, march.equation.constraint, march.equation.domain)

    def measure_interval(interval):
        index, weights, u, costate = interval

        def hamiltonians(weights):
            terms = equation.interval_terms(index, weights).terms
            start = index * equation.control.interval_length
            values = jnp.stack([jnp.sum(costate * term.vf(start, u, None)) for term in terms])
            # Each value depends on the weights of its operator alone.
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
    indices = jnp.arange(equation.control.layers, dtype=states.dtype)
    intervals = indices, equation.intervals(), us, ps
    return Costates(states, p, *lax.map(measure_interval, intervals))


class Steering(NamedTuple):
    """Pushes that steer the solve of each sample.

    - `pushes`: v, `[L, *batch, tokens, features]`, where `u_t = Σ_i A_i(u; θ(t)) + v_l` in
      interval l. The march adds `h v_l` after the steps of the interval.
    - `energy`: `Σ_l h |v_l|²`, `[*batch]`.
    - `reached`: the value of g with these pushes, `[*batch]`.
    """

    pushes: Float[Array, "intervals *batch tokens features"]
    energy: Float[Array, "*batch"]
    reached: Float[Array, "*batch"]


def steer(
    model: Model,
    inputs: PyTree[ArrayLike],
    judged: OutputFunction,
    level: float,
    *,
    intervals: Sequence[int] | None = None,
    iterations: PositiveInt = 40,
) -> Steering:
    """Finds the pushes v of least energy that bring a value g of the outputs to a level,

        min_v ½ Σ_l h |v_l|²,   g(outputs(v)) = level,

    by Gauss–Newton steps. The costates linearise g, `g(v) + Σ_l h ⟨p_l, δ_l⟩`, and the step of
    least energy is along them, `v_l = λ p_l`. A line search halves the step. It corrects each
    trial along the costates by the distance of g from the level, and takes the trial with the
    least `½ Σ_l h |v_l|² + 2 |λ| |g - level|`. In the first half of the iterations the level
    moves evenly from g(0) to its value, so that pushes stay small.

    Reference for the second-order correction: Fletcher, *Second order corrections for
    non-differentiable optimization*, 1982.

    **Arguments:**

    - `judged`: maps the outputs to g, `[*batch]`; best nearly linear, such as `log_odds`.
    - `level`: the value of g to reach. If no state has it, pushes stay below ten times the size
      of the states, and `reached` is another value.
    - `intervals`: the intervals in which v acts; default: all.
    - `iterations`: the number of Gauss–Newton steps.

    **Raises:** `InputError` for unknown intervals, adaptive steps, and a scheme that carries
    something from interval to interval.
    """
    active = list(range(model.layers) if intervals is None else intervals)
    if not active or not set(active) <= set(range(model.layers)):
        raise InputError(
            f"steer: intervals={active} must be at least one of 0 to {model.layers - 1}."
        )
    acts = jnp.zeros(model.layers).at[jnp.array(active)].set(1.0)
    return _steer(model, inputs, judged, jnp.asarray(level), acts, iterations)


@eqx.filter_jit
def _steer(model, inputs, judged, level, acts, iterations) -> Steering:
    march = March.of("steer", model, inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes
    acts = acts.astype(zeros.dtype).reshape(-1, *[1] * (zeros.ndim - 1))
    sizes = jnp.array(_FRACTIONS, zeros.dtype)

    def evaluate(v):
        values = judged(model.outputs(march.states(zeros.at[1:].set(h * acts * v))[-1]))
        return jnp.sum(values), values

    def dot(v, w):
        return h * jnp.sum(v * w, axis=(0, -2, -1))

    native = evaluate(zeros[1:])[1]
    states = march.states(zeros)[1:]
    largest = _MOST_ENERGY * dot(states, states)

    def step(v, share):
        target = native + share * (level.astype(zeros.dtype) - native)
        slope, value = jax.grad(evaluate, has_aux=True)(v)
        costate = slope / h
        square = dot(costate, costate)
        square = jnp.where(square > 0, square, 1.0)
        multiplier = (target - value + dot(costate, v)) / square
        change = multiplier[None, ..., None, None] * costate - v

        def try_fraction(size):
            trial = v + size * change
            correction = (target - evaluate(trial)[1]) / square
            trial += correction[None, ..., None, None] * costate
            energy = dot(trial, trial)
            merit = 0.5 * energy + 2 * jnp.abs(multiplier * (evaluate(trial)[1] - target))
            return trial, jnp.where(energy < largest, merit, jnp.inf)

        trials, merits = lax.map(try_fraction, sizes)
        best = jnp.argmin(merits, axis=0)
        trial = jnp.take_along_axis(trials, best[None, None, ..., None, None], axis=0)[0]
        is_small = jnp.min(merits, axis=0) < jnp.inf
        return jnp.where(is_small[None, ..., None, None], trial, v), None

    shares = jnp.minimum(2 * jnp.arange(1, iterations + 1) / iterations, 1.0)
    v, _ = lax.scan(step, zeros[1:], shares.astype(zeros.dtype))
    return Steering(v, dot(v, v), evaluate(v)[1])


def log_odds(
    logits: Float[Array, "*batch classes"], target: ArrayLike
) -> Float[Array, "*batch"]:
    """`log p/(1 - p)` of a class or token, for example 2.197 for p = 0.9. `target` is the index
    for all samples, or one index for each."""
    classes = logits.shape[-1]
    if is_known(target) and not (np.min(target) >= 0 and np.max(target) < classes):
        raise InputError(
            f"log_odds: target={np.asarray(target).tolist()} must be 0 to {classes - 1}, since "
            f"there are {classes} classes."
        )
    is_target = jnp.broadcast_to(jax.nn.one_hot(target, classes, dtype=bool), logits.shape)
    on_target, off_target = (
        jax.nn.logsumexp(jnp.where(mask, logits, -jnp.inf), axis=-1)
        for mask in (is_target, ~is_target)
    )
    return on_target - off_target


class Approximations(NamedTuple):
    """The result of successive approximations.

    - `model`: the model with the last weights θ.
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
    """Minimises `J = loss(outputs) + Σ weight · cost` on one batch over the weights θ(t), by
    the extended method of successive approximations. A march forward gives the states u_l, and
    a march backward the costates `p_l = dJ/du_l`. With both fixed, θ then minimises the
    augmented Hamiltonian

        Σ_l ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ + running costs of (u, θ)
            + ρ/2h Σ_l (|Ψ_l(u_l; θ) - u_{l+1}|² + |∂_u ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ - q_l|²),

    where Ψ_l are the native steps in interval l, and q_l is the derivative at the old θ. It is
    a sum over layers, so ordinary layers minimise it separately. An approximation that does not
    lower J is dropped and multiplies ρ by 4; otherwise ρ is halved. For small problems.
    Inputs, constraint and read-out keep their weights. Reference: Li, Chen, Tai, E, arXiv
    1710.09513, where costates have the other sign and the Hamiltonian is maximised.

    **Arguments:**

    - `loss`: maps the outputs to a number.
    - `costs`: running costs, with their weights.
    - `iterations`: the number of approximations.
    - `steps`: steps of L-BFGS in each approximation.
    - `penalty`: the initial ρ.
    """
    import optax

    theta, static = eqx.partition(model.control, eqx.is_inexact_array)
    rule = optax.lbfgs()
    h = model.control.interval_length

    def with_weights(theta):
        return eqx.tree_at(lambda m: m.control, model, eqx.combine(theta, static))

    def march_of(theta):
        return March.of("successive_approximations", with_weights(theta), inputs)

    def running_costs(theta, states):
        path = dynamics.Path(with_weights(theta), inputs, states)
        return sum((cost.weight * cost(path) for cost in costs), jnp.zeros(()))

    def objective(pushes, theta):
        states = march_of(theta).states(pushes)
        end = loss(model.outputs(states[-1], inputs))
        return end + running_costs(theta, states), states

    def step_intervals(theta, states):
        """Maps the states where intervals begin to the states where they end."""
        march = march_of(theta)

        def visit(_, terms, start, u):
            return None, march.advance(terms, start, u)

        return scan_intervals(march.equation, visit, None, states, dtype=states.dtype)[1]

    zeros = march_of(theta).no_pushes

    def approximate(carry, _):
        theta, penalty = carry
        (value, states), p = jax.value_and_grad(objective, has_aux=True)(zeros, theta)

        def step_and_pull_back(theta):
            ends, pull = jax.vjp(lambda u: step_intervals(theta, u), states[:-1])
            return ends, pull(p[1:])[0]

        _, q = step_and_pull_back(theta)

        def augmented_hamiltonian(theta):
            ends, new_q = step_and_pull_back(theta)
            change = jnp.sum((ends - states[1:]) ** 2) + jnp.sum((new_q - q) ** 2)
            hamiltonian = jnp.sum(p[1:] * ends) + running_costs(theta, states)
            return hamiltonian + penalty / (2 * h) * change

        value_and_grad = optax.value_and_grad_from_state(augmented_hamiltonian)

        def step(carry, _):
            theta, state = carry
            value, slope = value_and_grad(theta, state=state)
            updates, state = rule.update(
                slope, state, theta, value=value, grad=slope, value_fn=augmented_hamiltonian
            )
            return (optax.apply_updates(theta, updates), state), None

        (new_theta, _), _ = lax.scan(step, (theta, rule.init(theta)), length=steps)
        new_value, _ = objective(zeros, new_theta)
        is_lower = new_value < value
        theta = jax.tree.map(lambda x, y: jnp.where(is_lower, x, y), new_theta, theta)
        penalty = jnp.where(is_lower, penalty / 2, 4 * penalty)
        return (theta, penalty), jnp.where(is_lower, new_value, value)

    first, _ = objective(zeros, theta)
    start = theta, jnp.asarray(penalty, zeros.dtype)
    (theta, _), later = lax.scan(approximate, start, length=iterations)
    return Approximations(with_weights(theta), jnp.concatenate([first[None], later]))


@checked
def study_dynamics(loaded: LoadedModel, folder: Path, *, samples: PositiveInt) -> Sequence[Row]:
    """Measures the `Costates` of a model for the mean loss on held-out samples, and writes
    `dynamics.json` into `folder`. Returns a row for each layer:

    - `costate`, `state`: root mean squares where the layer begins.
    - `stationarity, …`, `hamiltonian, …`: a column for each operator.
    """
    problem = make_problem(loaded, 1, samples)
    measured = costates(loaded.model, problem.held_out, lambda y: jnp.mean(problem.losses(y)))
    equation, _ = loaded.model.initial_value_problem(problem.held_out)
    kinds = [type(x.innermost).__name__ for x in equation.control(0.0)]
    names = [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]
    columns = {
        name: jnp.sqrt(jnp.mean(x**2, axis=range(1, x.ndim)))
        for name, x in (("costate", measured.costates), ("state", measured.states))
    }
    for i, name in enumerate(names):
        columns[f"stationarity, {name}"] = measured.stationarity[:, i]
        columns[f"hamiltonian, {name}"] = measured.hamiltonian[:, i]
    rows = [
        {"layer": n, **{name: float(column[n]) for name, column in columns.items()}}
        for n in range(len(measured.hamiltonian))
    ]
    record = {"path": str(loaded.path), "loss": problem.loss, "layers": rows}
    write_json(folder / "dynamics.json", record)
    return rows


@checked
def study_steering(
    loaded: LoadedModel,
    folder: Path,
    *,
    probability: Annotated[float, above(0), below(1)],
    samples: PositiveInt,
    tokens: PositiveInt | None = None,
    iterations: PositiveInt = 40,
) -> dict[str, Any]:
    """Steers held-out samples of a model to a class or next token drawn at random, until it has
    this probability. Writes the returned row into `steering.json`.

    `ratio` is the energy of the push in all layers over the energy of the best push in a single
    layer, by percentiles over the samples that reach the probability both ways. `best layer`
    counts these samples by their best layer.

    **Arguments:**

    - `tokens`: the length of texts; default 16.
    - `iterations`: see `steer`.
    """
    level = float(np.log(probability / (1 - probability)))
    model = loaded.model
    if not isinstance(model.read_out, AbstractClassifier):
        loaded.require(LanguageModel)
    inputs = make_problem(loaded, 1, samples).held_out
    if eqx.filter_eval_shape(model, inputs).ndim == 3:
        inputs = inputs[:, : tokens or 16]
    elif tokens is not None:
        raise InputError(
            f"tokens={tokens}: {loaded.path} classifies whole samples; remove tokens."
        )
    # Targets are drawn among all but the most likely.
    order = np.argsort(-np.asarray(_last_logits(model(inputs))), axis=1)
    ranks = np.random.default_rng(0).integers(1, order.shape[1], len(order))
    targets = order[np.arange(len(order)), ranks]

    def odds(outputs: Array) -> Array:
        return log_odds(_last_logits(outputs), targets)

    def steer_to_targets(**options: Any) -> tuple[Steering, np.ndarray]:
        """The pushes, and their energies, infinite for samples that do not reach the level."""
        steering = steer(model, inputs, odds, level, iterations=iterations, **options)
        is_near = jnp.abs(steering.reached - level) < _NEAR
        return steering, np.asarray(jnp.where(is_near, steering.energy, jnp.inf))

    steering, energy = steer_to_targets()
    single = np.stack([steer_to_targets(intervals=[n])[1] for n in range(model.layers)])
    reached = np.isfinite(energy)
    comparable = reached & np.isfinite(single).any(axis=0)
    if not comparable.any():
        raise InputError(
            f"{loaded.path}: no sample reaches a probability of {probability} both by pushes "
            "in all layers and by a push in one; pass more --iterations, or a lower "
            "probability."
        )
    ratios = energy[comparable] / single.min(axis=0)[comparable]
    best = single.argmin(axis=0)[comparable]
    density = np.sum(np.asarray(steering.pushes) ** 2, axis=(-2, -1))[:, reached]
    row = {
        "model": loaded.path.name,
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


def _last_logits(outputs: Array) -> Float[Array, "samples outputs"]:
    """The logits of the classes, or of the next token."""
    return outputs[:, -1] if outputs.ndim == 3 else outputs
