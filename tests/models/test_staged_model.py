"""Equations one after the other, each on a grid of its own."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from models.decoding import outputs_of

import ide_transformer as ide
from ide_transformer.dynamics import refine
from ide_transformer.dynamics.step_defects import equation_defects
from ide_transformer.equation import Linear


CHANNELS, FEATURES, CLASSES = 2, (4, 6), 3
IMAGES = np.random.default_rng(0).standard_normal((2, 8, 4, CHANNELS))


def block(features, *, stride):
    def make(key):
        first, second = jax.random.split(key)
        norm = ide.LayerNorm()
        attention = ide.ConvolutionalAttention(
            features, 2, key=first, stride=stride, normalization=norm, std=0.3
        )
        return attention, ide.FeedForward(features, key=second, normalization=norm, std=0.3)

    return make


def stage(shape, features, depth=1, *, stride=2, kv_stride=2, seed=0, **options):
    control = ide.PiecewiseConstant.build(
        block(features, stride=kv_stride), depth, key=jax.random.key(seed)
    )
    parts = dict(
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(seed + 1),
        std=0.3,
    )
    return ide.ImageStage(shape, features, stride=stride, **(parts | options))


def two_stages(**last):
    first = stage((8, 4, CHANNELS), FEATURES[0], window=5)
    options = dict(depth=2, kv_stride=1, window=3, seed=2, classes=CLASSES, class_token=True)
    return first, stage((4, 2, FEATURES[0]), FEATURES[1], **(options | last))


@pytest.fixture(scope="module")
def stages():
    return two_stages()


@pytest.fixture(scope="module")
def model(stages):
    return ide.StagedModel(stages)


@eqx.filter_jit
def solution_of(model, inputs):
    return model.solve(inputs)


@eqx.filter_jit
def embedded(model, inputs):
    return model.embed(inputs)


@eqx.filter_jit
def solved(equation, u):
    return ide.solve(equation, u, solver=ide.LieTrotter()).u1


@eqx.filter_jit
def defects_of(stage, u):
    return equation_defects(stage.equation, u, solver=stage.discretization.solver)


def windows_of(image, window, stride, padding):
    wide = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    rows, columns = image.shape[:2]
    return np.array(
        [
            wide[i : i + window, j : j + window].ravel()
            for i in range(0, rows, stride)
            for j in range(0, columns, stride)
        ]
    )


@pytest.mark.parametrize(
    ("window", "stride", "padding", "given"),
    [(5, 2, 2, None), (7, 4, 2, None), (5, 4, 2, 2), (2, 2, 0, None)],
)
def test_windows_are_a_strided_convolution(window, stride, padding, given):
    one = stage((8, 4, CHANNELS), 4, stride=stride, window=window, padding=given)
    u, domain = embedded(one, IMAGES)
    assert domain.grid == one.inputs.grid == (8 // stride, 4 // stride)
    pixels = windows_of(IMAGES[1], window, stride, padding)
    embedding = one.inputs.embedding
    v = pixels @ np.asarray(embedding.weight) + np.asarray(embedding.bias)
    v -= v.mean(-1, keepdims=True)
    v /= np.sqrt((v**2).mean(-1, keepdims=True) + 1e-5)
    assert largest(u[1], v) < 1e-12


def test_it_is_one_solve_after_the_other(model, stages):
    first, last = stages
    u, domain = embedded(first, IMAGES)
    equation = ide.Equation(first.control, ide.Free(), domain)
    states = np.asarray(solved(equation, u))
    u, domain = embedded(last, states.reshape(2, 4, 2, FEATURES[0]))
    assert domain.prefix == 1 and domain.grid == (2, 1)
    equation = ide.Equation(last.control, ide.Free(), domain)
    token = np.asarray(solved(equation, u))[:, 0]
    classifier = last.read_out.classifiers[0]
    normal = np.asarray(ide.LayerNorm().project(token))
    logits = normal @ np.asarray(classifier.weight) + np.asarray(classifier.bias)
    outputs = outputs_of(model, IMAGES)
    assert largest(outputs, logits) < 1e-12
    assert largest(outputs[1], outputs_of(model, IMAGES[1])) < 1e-12


def test_images_of_another_size(model, stages):
    larger = np.random.default_rng(1).standard_normal((12, 8, CHANNELS))
    assert outputs_of(model, larger).shape == (CLASSES,)
    # The area of the stage's own 2 by 1 tokens in the place of 3 by 2.
    states = np.ones((6, 4, FEATURES[0]))
    assert stages[1].embed(states)[1].weights.tolist() == [1.0] + 6 * [pytest.approx(1 / 3)]
    without = two_stages(area_weights=False)
    plain = ide.StagedModel(without)
    assert without[1].embed(states)[1].weights is None
    assert largest(outputs_of(plain, IMAGES), outputs_of(model, IMAGES)) == 0.0
    assert largest(outputs_of(plain, larger), outputs_of(model, larger)) > 1e-3


def test_numbers_are_of_all_stages(model, stages):
    solution = solution_of(model, IMAGES)
    assert solution.stats["steps"] == 1 + 2 and solution.stats["field_evaluations"] == 3
    assert bool(solution.succeeded)
    # A stage that fails is a solve that fails, whatever comes after it.
    first, last = stages
    nan = eqx.tree_at(lambda m: m.inputs.embedding.bias, first, jnp.full(FEATURES[0], jnp.nan))
    failed = solution_of(ide.StagedModel((nan, last)), IMAGES)
    assert not bool(failed.succeeded) and failed.failed_at == 1


@pytest.mark.heavy
def test_each_sample_may_have_steps_of_its_own(stages):
    adaptive = stages[0].with_solver(
        diffrax.Heun(),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        steps_for="sample",
    )
    solution = solution_of(ide.StagedModel((adaptive, stages[1])), IMAGES)
    own = solution_of(adaptive, IMAGES)
    assert solution.result._value.shape == (2,)
    assert solution.stats["steps"] == pytest.approx(np.mean(own.stats["steps"]) + 2)


def test_what_changes_all_stages(model):
    both = model.with_solver(ide.Strang(), steps_per_interval=2).with_options(
        gradient=ide.Direct()
    )
    assert both.equations[-1] is both
    for stage in both.equations:
        assert type(stage.solver) is ide.Strang
        assert stage.discretization.steps_per_interval == 2
        assert type(stage.discretization.gradient) is ide.Direct
    fine = model.on(ide.Mesh(intervals=4, steps_per_interval=3))
    for stage in fine.equations:
        assert stage.control.num_intervals == 4
        assert stage.discretization.steps_per_interval == 3


def test_an_exit_is_the_last_stages(model):
    exit = ide.EstimatedExit(0.1)
    for changed in (
        model.with_exit(exit),
        model.with_options(exit=exit, gradient=ide.Direct()),
        model.with_solver(ide.Strang(), exit=exit),
    ):
        assert [stage.discretization.exit for stage in changed.equations] == [None, exit]
        first, last = (stage.discretization for stage in changed.equations)
        assert type(first.gradient) is type(last.gradient) and type(first.solver) is type(
            last.solver
        )
        assert changed.with_exit(None).discretization.exit is None


@pytest.mark.heavy
def test_a_stage_is_analysed_and_refined_as_any_model(stages):
    states = outputs_of(stages[0], IMAGES).reshape(2, 4, 2, FEATURES[0])
    for stage, inputs in zip(stages, (IMAGES, states), strict=True):
        u0, _ = embedded(stage, inputs)
        defects = defects_of(stage, u0)
        assert defects.step_doubling.shape == (stage.control.num_intervals,)
        assert np.isfinite(defects.step_doubling).all()
        fine, finer = (outputs_of(refine(stage, k), inputs) for k in (8, 16))
        exact = outputs_of(stage.with_solver(diffrax.Dopri8(), steps_per_interval=4), inputs)
        assert 1.7 < largest(fine, exact) / largest(finer, exact) < 2.3


@eqx.filter_jit
def gradient_of(model):
    gradient = eqx.filter_grad(lambda m: jnp.sum(jnp.sin(m(IMAGES))))(model)
    return jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("scheme", "modes"),
    [
        (ide.LieTrotter(), [ide.Recompute(), ide.Recursive()]),
        (ide.AlgebraicallyReversible(ide.LieTrotter()), [ide.Reversible()]),
    ],
    ids=["any scheme", "reversible"],
)
def test_gradient_modes_agree(model, scheme, modes):
    same = model.with_solver(scheme)
    expected = gradient_of(same.with_options(gradient=ide.Direct()))
    for mode in modes:
        found = gradient_of(same.with_options(gradient=mode))
        assert max(map(largest, found, expected)) < 1e-10


def test_stages_that_cannot_follow_one_another(stages):
    first, last = stages
    with pytest.raises(ide.InputError, match="whose read_out is States, not PrefixHead"):
        ide.StagedModel((last, first))
    other = stage((4, 4, FEATURES[0]), 4)
    with pytest.raises(ide.InputError, match=r"built for \(4, 4, 4\); give it"):
        ide.StagedModel((first, other))
    with pytest.raises(ide.InputError, match="are none"):
        ide.StagedModel(())


def test_a_head_for_a_class_token_that_is_not_there():
    classifier = Linear(6, 2, bias=True, std=0.1, key=jax.random.key(0))
    bare = ide.StagedModel(two_stages(class_token=False))
    with pytest.raises(ide.InputError, match=r"PrefixHead reads 1 .*, and there are 0"):
        bare.with_read_out(ide.PrefixHead((classifier,)))
    mean = bare.with_read_out(ide.MeanHead(classifier))
    assert outputs_of(mean, IMAGES[0]).shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(stride=3), "a stride of 3 does not divide images of 8 by 4"),
        (dict(stride=4, window=3), "window=3, stride=4, .* choose a window of 4 or more"),
        (dict(stride=2, window=5, padding=1), "padding=1 .* a padding from 2 to 2"),
    ],
)
def test_windows_that_make_no_grid(options, message):
    with pytest.raises(ide.InputError, match=message):
        stage((8, 4, CHANNELS), 4, **options)
