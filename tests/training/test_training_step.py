"""The compiled training step: the terms of its objective, batches in parts and made ahead, the
moving average of the weights, low precision, and what it needs of memory."""

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import largest
from training import stub
from training.test_depth_of_runs import by_hand, cross_entropy

from ide_transformer import dynamics, tasks, training
from ide_transformer.tasks import Batch, CrossEntropy, InstanceCrossEntropy
from ide_transformer.training import run, step


RANDOM = np.random.default_rng(0)
BATCH = Batch(RANDOM.integers(0, 5, (3, 4)), RANDOM.integers(0, 5, (3, 4)))
BOTH = tasks.Finer(refinement=2, consistency=0.5, defect=0.25)


def model_of(dtype, *overrides):
    """A model with operators of moderate size."""
    config = stub.config("model.operators=[feed_forward]", *overrides)
    weights, static = eqx.partition(stub.model_of(config, 0.5), eqx.is_inexact_array)
    weights = jax.device_put(jax.tree.map(lambda x: np.asarray(x, dtype), weights))
    return training.with_training(eqx.combine(weights, static), config.training)


@pytest.fixture(scope="module")
def model():
    return model_of(np.float64)


@eqx.filter_jit
def solved(model):
    """The loss alone and with both terms, and the logits and states of two solves."""
    costs = {"transport": dynamics.Transport(0.1)}
    found = [CrossEntropy()(model, BATCH, costs=costs, finer=x) for x in (None, BOTH)]
    fine = model.with_solver(model.solver, steps_per_interval=2)
    return *found, *((x(BATCH.inputs), x.solve(BATCH.inputs).u1) for x in (model, fine))


def test_the_terms_are_those_of_two_solves(model):
    alone, found, *both = jax.device_get(solved(model))
    (p, u), (q, v) = ((np.exp(logits), states) for logits, states in both)
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    consistency = np.mean(np.sum(q * np.log(q / p), -1))
    defect = np.sum((u - v) ** 2) / np.sum(v**2)
    assert consistency > 1e-4 and defect > 1e-4
    assert found.terms["consistency"] == pytest.approx(consistency, rel=1e-9)
    assert found.terms["defect"] == pytest.approx(defect, rel=1e-9)
    added = found.objective - alone.objective
    assert added == pytest.approx(0.5 * consistency + 0.25 * defect, rel=1e-9)
    assert (alone.field_evaluations, found.field_evaluations) == (2, 6)
    assert found.loss == alone.loss
    cost = alone.terms["costs.transport"]
    assert alone.objective - alone.loss == pytest.approx(0.1 * cost, rel=1e-9)


def test_the_gradient_of_the_terms_is_that_of_central_differences(model):
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    direction = jax.tree.map(lambda x: RANDOM.normal(size=x.shape), weights)

    @jax.jit
    @jax.value_and_grad
    def added(h):
        moved = jax.tree.map(lambda x, d: x + h * d, weights, direction)
        result = CrossEntropy()(eqx.combine(moved, static), BATCH, finer=BOTH)
        return result.objective - result.loss

    h = 1e-6
    expected = float(added(h)[0] - added(-h)[0]) / (2 * h)
    assert abs(expected) > 1e-3
    assert float(added(0.0)[1]) == pytest.approx(expected, rel=1e-6)


def test_the_gap_of_instances_is_that_of_their_targets():
    outputs, finer = RANDOM.normal(size=(2, 3, 4, 5))
    targets = RANDOM.integers(0, 5, (3, 4))
    targets[:, 2:] = -1
    counted = CrossEntropy().gap(outputs[:, :2], finer[:, :2], targets[:, :2])
    found = InstanceCrossEntropy().gap(outputs, finer, targets)
    assert float(found) == pytest.approx(float(counted), rel=1e-12)
    relative = tasks.RelativeError().gap(3 * outputs, 2 * outputs, targets)
    assert float(relative) == pytest.approx(0.25)


def test_the_objective_has_what_is_read_out_after_each_layer(model):
    settings = stub.config("training.exit_loss=0.5", "training.costs.transport=0").training
    result = eqx.filter_jit(step.objective(CrossEntropy(), settings))(model, BATCH)
    logits = (by_hand(model, BATCH.inputs, range(n)) for n in (1, 2))
    first, last = (cross_entropy(x, BATCH.targets) for x in logits)
    assert float(result.loss) == pytest.approx(last, rel=1e-9)
    assert float(result.objective) == pytest.approx(last + 0.5 * first, rel=1e-9)


def steps(number, accumulate):
    """The state, the metrics and the weights of some steps of a tiny model."""
    model = stub.model_of(stub.config("model.operators=[feed_forward]"))
    rule = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9))
    state, static = training.initial_state(model, rule, jax.random.key(0), average=0.9)
    keys = {"accumulate": accumulate, "average": 0.9}
    take = training.make_train_step(rule, static, InstanceCrossEntropy(), **keys)
    tokens = np.random.default_rng(0).integers(0, 5, (32, 5)).astype(np.int32)
    # A part whose targets are fewer has a smaller share.
    uncounted = (np.arange(32)[:, None] % 4 == 1) | (tokens[:, :-1] > 3)
    batch = Batch(tokens[:, :-1], np.where(uncounted, -1, tokens[:, 1:]))
    seen, metrics = [], {}
    for _ in range(number):
        state, metrics = take(state, batch)
        seen.append(jax.tree.map(np.array, state.weights))
    return state, metrics, seen


def test_parts_of_a_batch_make_the_step_of_the_whole_and_steps_an_average():
    (whole, metrics, seen), (parts, in_parts, _) = steps(3, 1), steps(3, 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert a.dtype == b.dtype and np.allclose(a, b, rtol=0, atol=1e-6)
    for name, value in metrics.items():
        assert float(in_parts[name]) == pytest.approx(float(value), abs=1e-6), name
    mean = jax.tree.map(lambda x, y, z: (0.81 * x + 0.9 * y + z) / (0.81 + 0.9 + 1), *seen)
    found = step.weights_of(whole, "average", 0.9)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(mean), strict=True):
        assert largest(a, b) < 1e-12


def test_low_precision_is_that_of_the_products_alone():
    model = model_of(np.float32, "training.compute_dtype=bfloat16")
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.value_and_grad
    def rounded(weights):
        return CrossEntropy()(eqx.combine(weights, static), BATCH).objective

    lines = str(jax.make_jaxpr(rounded)(weights)).splitlines()
    assert any("bf16" in line for line in lines if "dot_general" in line)
    found = jax.tree.leaves(jax.eval_shape(rounded, weights))
    assert all(x.dtype == jnp.float32 for x in found)


def test_a_run_traces_its_step_once(tmp_path, monkeypatch):
    traces = {"step": 0, "evaluation": 0}

    class Counted(CrossEntropy):
        def __call__(self, *arguments, **options):
            traces["step" if "costs" in options else "evaluation"] += 1
            return super().__call__(*arguments, **options)

    monkeypatch.setattr(stub.Stub, "loss", Counted())
    monkeypatch.setattr(run, "describe_memory", lambda *_: "")
    stub.train(tmp_path)
    # Before anything is written, and when it is compiled.
    assert traces == {"step": 2, "evaluation": 1}


def test_batches_are_made_ahead_and_in_order():
    """An error is raised where its value is asked for."""
    made, ahead, before = [], threading.Semaphore(0), threading.active_count()

    def make(number):
        assert threading.current_thread() is not threading.main_thread()
        made.append(number)
        ahead.release()
        return number**2

    with run.prefetched(make, 3, 9, ahead=2) as values:
        assert not made
        assert next(values) == 9
        for _ in range(3):  # the one in use, and two more
            assert ahead.acquire(timeout=60)
        assert not ahead.acquire(timeout=0.05)
        assert list(values) == [16, 25, 36, 49, 64]
    assert made == [3, 4, 5, 6, 7, 8]
    with run.prefetched(lambda n: 1 // (2 - n), 0, 10**9) as values:
        assert [next(values), next(values)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(values)
    assert threading.active_count() == before
