import diffrax
from jaxtyping import PyTree

from ...errors import InputError


def operator_terms(
    scheme: diffrax.AbstractSolver, terms: PyTree[diffrax.AbstractTerm]
) -> tuple[diffrax.AbstractTerm, ...]:
    """One term for each operator, for a scheme that treats one operator after the other."""
    if not isinstance(terms, diffrax.MultiTerm):
        raise InputError(
            f"{type(scheme).__name__} splits a sum of operators, but was given "
            f"{type(terms).__name__}; pass equation.terms or a diffrax.MultiTerm."
        )
    return terms.terms
