"""Terms of the objective, batches in parts, and the moving average of the weights."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import largest
from training import stub
from training.test_depth_of_runs import by_hand, cross_entropy

import ide_transformer as ide
from ide_transformer import dynamics, tasks, training
from ide_transformer.tasks import Batch, InstanceCrossEntropy
from ide_transformer.training import step


RANDOM = np.random.default_rng(0)
BATCH = Batch(RANDOM.integers(0, 5, (3, 4)), RANDOM.integers(0, 5, (3, 4)))
BOTH = tasks.Finer(refinement=2, consistency=0.5, defect=0.25)


@pytest.fixture(scope="module")
def model():
    """A model with operators of moderate size, in float64."""
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x, float)) if eqx.is_inexact_array(x) else x,
        stub.model_of(stub.config("model.operators=[feed_forward]"), scale=0.5),
    )


@eqx.filter_jit
def loss(model, finer=None, loss=tasks.CrossEntropy(), **terms):
    return loss(model, BATCH, finer=finer, **terms)


@eqx.filter_jit
def logits_and_states(model):
    return model(BATCH.inputs), model.solve(BATCH.inputs).u1


def probabilities(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_the_terms_are_those_of_two_solves(model):
    costs = {"transport": dynamics.Transport(0.1)}
    alone, found = loss(model, costs=costs), loss(model, BOTH, costs=costs)
    fine = model.with_solver(model.solver, steps_per_interval=2)
    both = (jax.device_get(logits_and_states(x)) for x in (model, fine))
    (p, u), (q, v) = ((probabilities(logits), states) for logits, states in both)
    consistency = np.mean(np.sum(q * np.log(q / p), -1))
    defect = float(np.sum((u - v) ** 2) / np.sum(v**2))
    assert consistency > 1e-4 and defect > 1e-4
    assert float(found.terms["consistency"]) == pytest.approx(consistency, rel=1e-9)
    assert float(found.terms["defect"]) == pytest.approx(defect, rel=1e-9)
    added = float(found.objective) - float(alone.objective)
    assert added == pytest.approx(0.5 * consistency + 0.25 * defect, rel=1e-9)
    assert (alone.field_evaluations, found.field_evaluations) == (2, 6)
    assert found.terms.keys() - alone.terms.keys() == {"consistency", "defect"}
    assert found.loss == alone.loss
    cost = float(alone.terms["costs.transport"])
    assert float(alone.objective) - float(alone.loss) == pytest.approx(0.1 * cost, rel=1e-9)


def test_the_gradient_of_the_terms_is_that_of_central_differences(model):
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    direction = jax.tree.map(
        lambda x: np.random.default_rng(x.size).normal(size=x.shape), weights
    )

    @jax.jit
    @jax.value_and_grad
    def added(h):
        moved = jax.tree.map(lambda x, d: x + h * d, weights, direction)
        result = tasks.CrossEntropy()(eqx.combine(moved, static), BATCH, finer=BOTH)
        return result.objective - result.loss

    h = 1e-6
    expected = float(added(h)[0] - added(-h)[0]) / (2 * h)
    assert abs(expected) > 1e-3
    assert float(added(0.0)[1]) == pytest.approx(expected, rel=1e-6)


def test_a_linear_equation_that_is_solved_exactly_has_no_gap(model):
    control = ide.Tied((ide.Damping(np.full(4, 0.7)),), num_intervals=2)
    for solver, zero in ((ide.ExponentialEuler(), True), (diffrax.Euler(), False)):
        damped = eqx.tree_at(lambda m: m.control, model, control).with_solver(solver)
        terms = loss(damped, BOTH).terms
        assert all((abs(float(x)) < 1e-12) == zero for x in terms.values())


def test_the_gap_of_instances_is_that_of_their_targets():
    outputs, finer = RANDOM.normal(size=(2, 3, 4, 5))
    targets = RANDOM.integers(0, 5, (3, 4))
    targets[:, 2:] = -1
    counted, found, relative = jax.jit(
        lambda x, y, targets: (
            tasks.CrossEntropy().gap(x[:, :2], y[:, :2], targets[:, :2]),
            tasks.InstanceCrossEntropy().gap(x, y, targets),
            tasks.RelativeError().gap(3 * x, 2 * x, targets),
        )
    )(outputs, finer, targets)
    assert float(found) == pytest.approx(float(counted), rel=1e-12)
    assert float(relative) == pytest.approx(0.25)


def test_the_objective_has_what_is_read_out_after_each_layer(model):
    settings = stub.config("training.exit_loss=0.5", "training.costs.transport=0").training
    result = eqx.filter_jit(step.objective(tasks.CrossEntropy(), settings))(model, BATCH)
    losses = [
        cross_entropy(by_hand(model, BATCH.inputs, range(n)), BATCH.targets) for n in (1, 2)
    ]
    assert float(result.loss) == pytest.approx(losses[1], rel=1e-9)
    assert float(result.objective) == pytest.approx(losses[1] + 0.5 * losses[0], rel=1e-9)
    # With one layer there is none before the last.
    one = loss(model.on(ide.Mesh(intervals=1)), exit_loss=0.5)
    assert np.isfinite(one.loss) and one.objective == one.loss


TOKENS = RANDOM.integers(0, 5, (32, 5)).astype(np.int32)
# A part whose targets are fewer has a smaller share.
TARGETS = np.where(np.arange(32)[:, None] % 4 == 1, -1, TOKENS[:, 1:]).astype(np.int32)
UNEVEN = Batch(TOKENS[:, :-1], np.where(TOKENS[:, :-1] > 3, -1, TARGETS))


def steps(number, accumulate):
    """The state, the metrics and the weights of some steps of a tiny model."""
    model = stub.model_of(stub.config("model.operators=[feed_forward]"))
    rule = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2))
    state, static = training.initial_state(model, rule, jax.random.key(0), average=0.9)
    take = training.make_train_step(
        rule, static, InstanceCrossEntropy(), accumulate=accumulate, average=0.9
    )
    seen, metrics = [], {}
    for _ in range(number):
        state, metrics = take(state, UNEVEN)
        seen.append(jax.tree.map(np.array, state.weights))
    return state, metrics, seen


def test_parts_of_a_batch_make_the_step_of_the_whole_and_steps_an_average():
    (whole, metrics, seen), (parts, in_parts, _) = steps(3, 1), steps(3, 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert a.dtype == b.dtype and np.allclose(a, b, rtol=0, atol=1e-6)
    for name, value in metrics.items():
        assert float(in_parts[name]) == pytest.approx(float(value), abs=1e-6), name
    factors = 0.9 ** np.arange(2, -1, -1)
    factors = factors / factors.sum()
    mean = jax.tree.map(lambda *x: sum(f * y for f, y in zip(factors, x, strict=True)), *seen)
    found = step.weights_of(whole, "average", 0.9)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(mean), strict=True):
        assert largest(a, b) < 1e-12


# The logarithm of no weight in float64, cut off in float32.
@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_functions_at_points_of_their_own_are_parted_by_samples():
    """The points are those of all samples."""
    task = tasks.BurgersInterval(8, points="random")
    section = {"kind": "operator_model", "width": 8, "depth": 1, "options": {"modes": 2}}
    config = stub.config("model.context=8", data={"name": "burgers_interval"}, model=section)
    model = stub.model_of(config, **task.sizes)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    batch = jax.tree.map(jnp.asarray, task.batch(0, 6, 0))

    def loss(weights, batch, key):
        return task.loss(eqx.combine(weights, static), batch, key)

    parts = (jax.jit(step.gradient_in_parts(loss, n)) for n in (1, 3))
    found = [gradient(weights, batch, None) for gradient in parts]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_tells_the_terms_of_its_objective(model):
    costs = {"energy": {"kind": "control_energy", "weight": 0}, "training.mine:Length": 0.1}
    terms = {"finer": {"consistency": 0.1}, "costs": costs}
    settings = stub.config(training=terms).training
    rule = optax.sgd(0.1)
    state, static = training.initial_state(model, rule, jax.random.key(0))
    finer = step.objective(tasks.CrossEntropy(), settings)
    _, metrics = jax.eval_shape(training.make_train_step(rule, static, finer), state, BATCH)
    assert {"consistency", "defect", "loss", "update_norm"} <= metrics.keys()
    assert {"costs.energy", "costs.training.mine:Length"} <= metrics.keys()


def test_layers_left_out_are_drawn_from_step_to_step():
    config = stub.config("model.layer_drop=0.5")
    model = stub.model_of(config)
    assert model.random
    keyed = eqx.filter_jit(lambda key: tasks.CrossEntropy()(model, BATCH, key).loss)
    assert len({float(keyed(jax.random.key(n))) for n in range(8)}) > 1
