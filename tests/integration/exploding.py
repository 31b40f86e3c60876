import jax
import jax.numpy as jnp
from helpers import TOKENS

import ide_transformer as ide


class Exploding(ide.AbstractOperator):
    """u_t = c u², which leaves the real line after a depth of 1/(c u0)."""

    rate: jax.Array

    def __call__(self, u, domain):
        return self.rate * u * u


def exploding(rates):
    domain = ide.TokenDomain.uniform(TOKENS)
    control = ide.PiecewiseConstant((Exploding(jnp.array(rates)),))
    return ide.Equation(control, ide.Free(), domain)
