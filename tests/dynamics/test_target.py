import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.dynamics.meshes import relative_error, zero_padding


def test_padded_tokens_do_not_enter_an_error():
    domain = ide.TokenDomain.uniform(6)
    y = np.random.default_rng(0).normal(size=(2, 6, 3))
    worse = y + (np.arange(6) >= 4)[:, None]
    errors = [
        relative_error(*(zero_padding(jnp.asarray(x), where) for x in (worse, y)))
        for where in (domain.padded(jnp.arange(6) < 4), domain)
    ]
    exact = np.linalg.norm(worse - y) / np.linalg.norm(y)
    assert errors[0] == 0 and abs(errors[1] - exact) < 1e-12
