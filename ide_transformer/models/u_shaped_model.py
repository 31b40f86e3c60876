import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..equation import AbstractControl, TokenDomain, coarsened, grid_of, interpolation, lattice
from ..errors import InputError
from ..integration import Solution
from .model import Discretization, Model
from .several import after, split_key
from .state_model import StateModel


class UShapedModel(Model):
    """Equations on a grid of tokens, on coarser ones and back, as in a V-cycle of multigrid:

        down:  v_l = Φ_l(u_l),   u_{l+1} = R v_l                     l = 0 … L-1,
        up:    w_L = Φ_L(u_L),   w_l = Ψ_l(v_l + P(w_{l+1} - u_{l+1}))   l = L-1 … 0,

    with `Φ_l`, `Ψ_l` solves of an equation each, from depth 0 to its T, on the grid Ω_l whose
    points are the middles of blocks of two points along each axis of Ω_{l-1}. R is the mean of
    a block, P linear interpolation. What a coarser grid adds to its own initial state comes
    back, so that one on which nothing happens changes nothing (the full approximation scheme
    of Brandt, Math. Comp. 31, 1977). R and P keep constants and linear functions, at the ends
    too, where `restriction`, the adjoint of P, shifts them: for smooth states the result
    converges at order 2 as the grid is refined.

    `model` embeds the inputs, solves its equation last, as `Ψ_0`, and reads its outputs out.
    Its tokens lie on a grid, in any dimension and without a class token. `with_solver`,
    `with_options` and `on` change all equations; the control,
    constraint, discretization and states of `solve` are those of `model`, the numbers of steps
    and evaluations those of all solves together.

    **Arguments:**

    - `model`: see above, for example an `OperatorModel`.
    - `levels`: the other solves, in their order `Φ_0, …, Φ_L, Ψ_{L-1}, …, Ψ_1`; 2 L of them.
      Each is solved on the grid of its place.

    **Raises:** `InputError` for another number of levels, or of features, and for an exit; when
    called, for a grid that cannot be halved so often.
    """

    configurable: ClassVar[bool] = False

    model: Model
    levels: tuple[StateModel, ...]

    def __check_init__(self):
        number = len(self.levels)
        if not number or number % 2:
            raise InputError(
                f"UShapedModel: {number} levels; give two for one coarser grid (before it, and "
                "on it), and two more for each further one (on the way down, and back)."
            )
        for place, level in enumerate(self.levels):
            if level.features != self.model.features:
                raise InputError(
                    f"UShapedModel: levels[{place}] has {level.features} features, but the "
                    f"model {self.model.features}; all have to have the same."
                )
        if any(x.discretization.exit is not None for x in (self.model, *self.levels)):
            raise InputError(
                "UShapedModel: its last equation begins from what others add, so tokens cannot "
                "stop early; drop the exit."
            )

    @property
    def control(self) -> AbstractControl:
        return self.model.control

    @property
    def constraint(self) -> AbstractControl:
        return self.model.constraint

    @property
    def discretization(self) -> Discretization:
        return self.model.discretization

    @property
    def features(self) -> int:
        return self.model.features

    @property
    def domain(self) -> TokenDomain:
        return self.model.domain

    @property
    def random(self) -> bool:
        return any(part.random for part in (self.model, *self.levels))

    def each_stage(self, change: Callable[[Model], Model]) -> "UShapedModel":
        levels: Any = tuple(level.each_stage(change) for level in self.levels)
        return UShapedModel(self.model.each_stage(change), levels)

    def embed(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        """The state from which the last equation is solved."""
        u, domain, _ = self._before_last(inputs, split_key(key, len(self.levels) + 2))
        return u, domain

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> PyTree[Array]:
        return self.model.read_out(u)

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        return self.model.shaped(outputs, inputs)

    def solve(
        self,
        inputs: PyTree[ArrayLike],
        *,
        key: PRNGKeyArray | None = None,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ) -> Solution:
        keys = split_key(key, len(self.levels) + 2)
        u, domain, solutions = self._before_last(inputs, keys)
        model = self.model
        last = StateModel(
            domain,
            model.features,
            control=model.control,
            constraint=model.constraint,
            discretization=model.discretization,
        )
        solution = last.solve(u, key=keys[-1], saveat=saveat)
        for earlier in reversed(solutions):
            solution = after(earlier, solution)
        return solution

    def _before_last(
        self, inputs: PyTree[ArrayLike], keys: list[PRNGKeyArray | None]
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain, list[Solution]]:
        """The state from which the last equation is solved, its domain, and the solutions that
        lead to it."""
        u, domain = self.model.embed(inputs, key=keys[-2])
        depth, solutions = len(self.levels) // 2, []
        grids = _grids(domain, depth)
        levels = zip(self.levels, keys, strict=False)

        def solved(u: Array, grid: TokenDomain) -> Array:
            level, key = next(levels)
            solutions.append(level.with_domain(grid).solve(u, key=key))
            return solutions[-1].u1

        waiting = []
        for fine, coarse in itertools.pairwise(grids):
            v = solved(u, fine)
            u = interpolation(fine, coarse)(v)
            waiting.append((v, u))
        w = solved(u, grids[-1])
        for number in reversed(range(depth)):
            v, u = waiting[number]
            w = v + interpolation(grids[number + 1], grids[number])(w - u)
            w = solved(w, grids[number]) if number else w
        return w, grids[0], solutions


def _grids(domain: TokenDomain, depth: int) -> list[TokenDomain]:
    """The grid of a domain and so many coarser ones, with points that are known."""
    with jax.ensure_compile_time_eval():
        grid = grid_of("UShapedModel", domain)
        grids = [lattice(grid, domain.steps, domain.period)]
        for _ in range(depth):
            grids.append(coarsened(grids[-1]))
    return grids
