import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest, random_state

import ide_transformer as ide


def attention(key, **options):
    return ide.Attention(WIDTH, HEADS, key=key, std=0.5, **options)


def test_uniform_grids():
    assert ide.TokenDomain.uniform(3).points.tolist() == [[0], [1], [2]]
    assert ide.TokenDomain.uniform((2, 2)).points.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_equal_weights_are_exactly_the_softmax(key):
    u = random_state(2)
    operator = attention(key)
    domain = ide.TokenDomain.uniform(6)
    weighted = ide.TokenDomain(domain.points, jnp.full(6, 1.0))
    assert (operator(u, domain) == operator(u, weighted)).all()


def test_quadrature_weights_count_tokens(key):
    """A token of weight 2 contributes as two tokens of weight 1."""
    u = random_state(tokens=3)
    twice = u[jnp.array([0, 0, 1, 2])]
    operator = attention(key)
    domain = ide.TokenDomain(jnp.arange(3.0)[:, None], jnp.array([2.0, 1.0, 1.0]))
    merged = operator(u, domain)
    repeated = operator(twice, ide.TokenDomain.uniform(4))
    assert largest(merged, repeated[1:]) < 1e-14


def test_quadrature_converges_on_a_clustered_grid(key):
    """Attention on smooth data is an integral: with trapezoidal weights its error on a
    clustered grid falls as N⁻², without them it stays."""
    operator = attention(key)
    direction = jax.random.normal(key, (2, 1, WIDTH))

    def state(x):
        return jnp.sin(3 * x) * direction[0] + jnp.cos(2 * x) * direction[1]

    def at_origin(n, weighted):
        x = jnp.linspace(0, 1, n)[:, None] ** 2
        gaps = jnp.diff(x[:, 0])
        weights = 0.5 * (jnp.append(gaps, 0) + jnp.append(0, gaps))
        domain = ide.TokenDomain(x, weights if weighted else None)
        return operator(state(x), domain)[0]

    reference = at_origin(4097, True)
    errors = [largest(at_origin(n, True), reference) for n in (33, 65, 129)]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (np.abs(orders - 2) < 0.15).all()
    plain = [largest(at_origin(n, False), reference) for n in (65, 129)]
    assert plain[1] > 0.8 * plain[0] > 10 * errors[1]


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_never_seen(key, causal):
    """Padded samples of a batch agree with each sample alone, and padding has no effect."""
    operator = attention(key, causal=causal)
    lengths = (3, 6)
    u = random_state(2)
    mask = jnp.arange(6)[None, :] < jnp.array(lengths)[:, None]
    domain = ide.TokenDomain.uniform(6).padded(mask)
    out = operator(u, domain)
    for sample, length in enumerate(lengths):
        alone = operator(u[sample, :length], ide.TokenDomain.uniform(length))
        assert largest(out[sample, :length], alone) < 1e-14
    disturbed = operator(u.at[0, 3:].set(7.0), domain)
    assert (disturbed[0, :3] == out[0, :3]).all()
    assert jnp.isfinite(jax.grad(lambda v: jnp.sum(operator(v, domain) ** 2))(u)).all()


def test_a_sample_of_padding_only_stays_finite(key):
    domain = ide.TokenDomain.uniform(6).padded(jnp.zeros((2, 6), bool))
    assert jnp.isfinite(attention(key, causal=True)(random_state(2), domain)).all()


def test_bad_domains(unchecked):
    with pytest.raises(ide.InputError, match="at least one token"):
        ide.TokenDomain.uniform(0)
    with pytest.raises(ide.InputError, match="last axis must be the 4 tokens"):
        ide.TokenDomain(jnp.zeros((4, 1)), jnp.ones(3))
    with pytest.raises(ide.InputError, match="one-dimensional"):
        _ = ide.TokenDomain.uniform((2, 3)).positions
