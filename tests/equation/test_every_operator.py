"""Properties of all operators, found by class."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from misuse.recipes import OPERATORS
from misuse.values import DOMAIN, TOKENS, U0

import ide_transformer as ide


CLASSES = sorted(
    name
    for name, public in vars(ide).items()
    if inspect.isclass(public)
    and issubclass(public, ide.AbstractOperator)
    and not inspect.isabstract(public)
)
OWN = {"Advection": "periodic", "FourierIntegral": "periodic"}
DOMAINS = {
    "uniform": DOMAIN,
    "periodic": ide.TokenDomain.periodic(TOKENS),
    "trapezoid": ide.TokenDomain.trapezoid(jnp.array([0.0, 0.1, 0.5])),
    "unsorted": ide.TokenDomain(jnp.array([[0.5], [0.1], [0.9]]), jnp.array([0.4, 0.3, 0.3])),
}
# Of each operator the first is one that it takes.
CASES = [
    (name, domain)
    for name in CLASSES
    for domain in sorted(DOMAINS, key=lambda x: x != OWN.get(name, "uniform"))
]


def controlled(name, domain):
    """A control of one operator; some need a source, with or without a domain."""
    operator = OPERATORS[name].call(**OPERATORS[name].arguments)
    return ide.Sourced(ide.Sourced(ide.Tied((operator,), 1), U0), U0, domain)


# A draw of `Dropout` is for each sample of a batch.
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "Dropout"])
def test_an_operator_takes_batches_and_is_what_it_says(name):
    """A rate at a token depends on no later one where the operator is causal, and on no other
    where it is pointwise."""
    domain = DOMAINS[OWN.get(name, "uniform")]
    (operator,) = controlled(name, domain)(0.0)
    both, u = operator, jnp.stack([U0, U0[::-1]])
    if getattr(operator, "own_domain", False):
        both = operator.with_source(jnp.stack([U0, U0]), domain)

    @eqx.filter_jit
    def rates(operator, both):
        changed = (u, u.at[:, -1].add(1.0), u.at[:, 0].add(1.0))
        return jax.vmap(lambda v: operator(v, domain))(u), *(both(v, domain) for v in changed)

    apart, rate, later, before = rates(operator, both)
    np.testing.assert_allclose(rate, apart, atol=1e-14)
    if operator.pointwise or getattr(operator, "causal", False):
        np.testing.assert_array_equal(later[:, :-1], rate[:, :-1])
    if operator.pointwise:
        np.testing.assert_array_equal(before[:, 1:], rate[:, 1:])


@eqx.filter_value_and_grad(has_aux=True)
def slope(arguments, domain):
    """The gradient of a number that is made of the vector field, and the field."""
    control, u = arguments
    field = ide.Equation(control, ide.Free(), domain).vector_field(0.0, u)
    return jnp.sum(field**2), field


def outcome(call):
    try:
        return jax.tree.leaves(call())
    except ide.InputError as refusal:
        return str(refusal)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        pytest.param(*case, marks=[] if number % len(DOMAINS) == 0 else [pytest.mark.heavy])
        for number, case in enumerate(CASES)
    ],
)
def test_a_domain_is_known_to_a_program_or_given_to_it(name, domain):
    taken, domain = OWN.get(name, "uniform") == domain, DOMAINS[domain]
    control = controlled(name, domain)
    known = outcome(lambda: eqx.filter_jit(lambda x: slope(x, domain))((control, U0)))
    given = outcome(lambda: eqx.filter_jit(slope)((control, U0), domain))
    assert isinstance(known, list) or not taken
    if isinstance(known, str) or isinstance(given, str):
        assert known == given
        return
    for x, y in zip(known, given, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)
