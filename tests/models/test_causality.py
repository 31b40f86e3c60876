"""Whether a model is causal is tried: on every operator, under every scheme, and on leaks."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from helpers import fast_first

import ide_transformer as ide
from ide_transformer import equation
from ide_transformer.equation import AbstractOperator
from ide_transformer.models import check_causal
from ide_transformer.studies.convergence import schemes
from ide_transformer.training import ModelConfig
from ide_transformer.training.build import make_block, offers_of
from ide_transformer.training.names import snake_case


FEATURES, TOKENS = 8, 8


def language_model(*operators, solver=None, constraint=None, **options):
    solver = ide.LieTrotter() if solver is None else solver
    discretization = ide.Discretization(solver, **options)
    return ide.LanguageModel(
        5,
        TOKENS,
        FEATURES,
        control=ide.Tied(operators, num_intervals=2),
        constraint=ide.Free() if constraint is None else constraint,
        discretization=discretization,
        key=jax.random.key(1),
    )


def attention(**options):
    return ide.Attention(FEATURES, 2, key=jax.random.key(2), causal=True, **options)


class Ahead(AbstractOperator):
    """The next token, by a rate that is zero at first."""

    rate: jax.Array

    def __init__(self):
        self.rate = jnp.zeros(FEATURES)

    def __call__(self, u, domain):
        rate = jnp.broadcast_to(self.rate, u.shape)
        return rate * (jnp.roll(u, -1, axis=-2) - u)


class MeanOfAll(AbstractOperator):
    def __call__(self, u, domain):
        return jnp.broadcast_to(domain.mean(u)[..., None, :], u.shape) - u


class FromTheEnd(AbstractOperator):
    def __call__(self, u, domain):
        return jnp.flip(jnp.cumsum(jnp.flip(u, -2), -2), -2) / 10


class NormOfAll(AbstractOperator):
    def __call__(self, u, domain):
        return u / jnp.sqrt(1 + jnp.sum(u * u, axis=(-2, -1), keepdims=True))


class ByWeights(AbstractOperator):
    """Sees how many of the later tokens are padding."""

    def __call__(self, u, domain):
        if domain.weights is None:
            return -u
        return -u * jnp.sum(domain.weights, -1)[..., None, None]


class MeanOfTheInput(ide.Injection):
    pointwise = False

    def __call__(self, u, domain):
        return jnp.broadcast_to(domain.mean(self.source_like(u))[..., None, :], u.shape)


class Centred(ide.AbstractConstraint):
    """States whose mean over all tokens is zero."""

    def project(self, u):
        return u - jnp.mean(u, axis=-2, keepdims=True)

    def tangent(self, u, du):
        return self.project(du)

    def residual(self, u):
        return jnp.linalg.norm(u - self.project(u), axis=-1)


class OfTheWholeText(ide.AbstractExit):
    """The size of a state among all tokens."""

    def measure(self, progress):
        size = jnp.linalg.norm(progress.u, axis=-1)
        return size / jnp.sum(size, axis=-1, keepdims=True)


LEAKS = {
    "Ahead": lambda: language_model(attention(), Ahead()),
    "MeanOfAll": lambda: language_model(MeanOfAll()),
    "FromTheEnd": lambda: language_model(FromTheEnd()),
    "NormOfAll": lambda: language_model(NormOfAll()),
    "ByWeights": lambda: language_model(ByWeights()),
    "MeanOfTheInput": lambda: language_model(MeanOfTheInput(jnp.ones(FEATURES))),
    "Centred": lambda: language_model(attention(), constraint=Centred()),
    "OfTheWholeText": lambda: language_model(attention(), exit=OfTheWholeText(0.1)),
    "stops='sample'": lambda: language_model(
        attention(), exit=ide.EstimatedExit(0.1, stops="sample")
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_and_named(name):
    with pytest.raises(ide.InputError, match=f"text: .*{name}.*later tokens"):
        check_causal("text", LEAKS[name]())


class SaysThatItIsPointwise(AbstractOperator):
    pointwise = True

    def __call__(self, u, domain):
        return jnp.cumsum(u, axis=-2)


def test_an_operator_that_is_not_pointwise_as_it_says():
    with pytest.raises(ide.InputError, match="SaysThatItIsPointwise, says that it is pointw"):
        check_causal("text", language_model(SaysThatItIsPointwise()))


# What a configuration has to say of an operator, and those that no language model can have.
OPTIONS = {
    # Positive, it looks back, until training changes its sign.
    "difference_advection": {"velocity": [-0.5]},
    "diffusion": {"rate": 0.1},
    "layer_norm_scaling": {"operator": "attention"},
    "scaled": {"operator": "attention"},
}
NOT_FOR_TEXTS = {"advection", "convolutional_attention", "cross_attention", "fourier_integral"}
OPERATORS = [
    (snake_case(name), causal)
    for causal in (True, False)
    for name, kind in vars(equation).items()
    if isinstance(kind, type)
    and issubclass(kind, AbstractOperator)
    and not name.startswith("Abstract")
    and kind.configurable
    and snake_case(name) not in NOT_FOR_TEXTS
]


def sees_later_tokens(operator):
    """By the Jacobian matrix of its rate."""
    u = jax.random.normal(jax.random.key(3), (TOKENS, FEATURES))
    if isinstance(operator, ide.AbstractSourcedOperator):
        operator = operator.with_source(u)
    domain = ide.TokenDomain.uniform(TOKENS)
    jacobian = jax.jacobian(lambda u: operator.at(1.0, None)(u, domain))(u)
    return bool(jnp.triu(jnp.abs(jacobian).sum((1, 3)), 1).any())


# One scheme of each kind; all of them are tried below.
FAMILIES = [
    ide.LieTrotter(),
    ide.Strang(diffrax.Heun()),
    ide.ParallelSplitting(),
    ide.RK4(),
    diffrax.Tsit5(),
    ide.ImplicitMidpoint(),
    ide.AdamsBashforth(2),
    ide.HeavyBall(),
    ide.Residual(ide.RK4()),
    ide.LearnedMultistep(2),
    ide.HyperConnections(2, 1, FEATURES),
    ide.AlgebraicallyReversible(ide.RK4()),
]
CASES = [(*case, solver) for solver in FAMILIES for case in OPERATORS]


@pytest.mark.parametrize(
    ("name", "causal", "solver"),
    fast_first(10, CASES, heavy=26),
    ids=lambda x: str(x) if isinstance(x, str | bool) else type(x).__name__,
)
def test_every_operator(name, causal, solver):
    choice = {"kind": name, "options": OPTIONS.get(name, {})}
    config = ModelConfig(width=FEATURES, heads=2, operators=[choice])
    block = make_block(config, offers_of(config, causal=causal), jax.random.key(0))
    model = language_model(*block, solver=solver)
    if sees_later_tokens(block[0]):
        with pytest.raises(ide.InputError, match=r"operator 0, .* sees later tokens"):
            check_causal("text", model)
    else:
        check_causal("text", model)


BLOCKS = {"transformer": [], "damped": [ide.Damping(0.5)], "paper": []}
FAST = ["tsit5", "implicit_midpoint"]
SCHEMES = sorted(schemes(), key=lambda name: name not in FAST)


@pytest.mark.parametrize("name", fast_first(len(FAST), SCHEMES))
def test_every_scheme(name):
    """Without an alarm on causal operators, and with one for a leak."""
    entry = schemes()[name]
    solver = entry.free or entry.sphere
    constraint = None if entry.free else ide.Sphere()
    feed_forward = ide.FeedForward(FEATURES, key=jax.random.key(4))
    operators = [attention(), feed_forward, *BLOCKS[entry.block]]
    check_causal("text", language_model(*operators, solver=solver, constraint=constraint))
    leaking = language_model(Ahead(), *operators[1:], solver=solver, constraint=constraint)
    with pytest.raises(ide.InputError, match="operator 0, Ahead, sees later tokens"):
        check_causal("text", leaking)


@pytest.mark.parametrize("steps_for", ["batch", "sample"])
def test_adaptive_steps_are_no_leak_and_hide_none(steps_for):
    options = dict(
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2),
        steps_for=steps_for,
    )
    check_causal("text", language_model(attention(), **options))
    with pytest.raises(ide.InputError, match="Ahead"):
        check_causal("text", language_model(attention(), Ahead(), **options))
