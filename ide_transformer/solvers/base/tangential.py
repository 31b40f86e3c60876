import diffrax

from .wrapper import AbstractTransparentWrapper


class Tangential(AbstractTransparentWrapper):
    """A scheme on the fields tangential to the constraint set S alone,

        u_{n+1} = Φ_h(u_n),   Φ_h the step on d/dε project(u + ε A_i(u)),

    which does not return to S: the state leaves it by the error of the scheme. `solve`
    projects every scheme that is not inside of this one.

    **Arguments:**

    - `solver`: the wrapped solver.
    """

    solver: diffrax.AbstractSolver

    def projected(self) -> "Tangential":
        """Itself."""
        return self
