import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..equation import (
    AbstractControl,
    AbstractOperator,
    TokenDomain,
    contents,
    listing,
    number_of_weights,
    parts,
    spelled_options,
)
from ..errors import InputError
from ..integration import Solution
from .classifier import AbstractImageClassifier
from .model import Discretization, Model
from .several import after, split_key
from .stage import AbstractStage


class StagedModel(AbstractImageClassifier):
    """Equations one after the other, each on a domain of its own: the states of a stage at its
    depth T are embedded again as the inputs of the next,

        u_i' = Σ_j A_ij(u_i; θ_i(t)) on Ω_i,   u_i(0) = E_i(u_{i-1}(T_{i-1})),   i = 1 … n,

    and the last stage reads the outputs out. `E_i` restricts to a coarser grid of tokens, with
    more features; that is a convolutional vision Transformer (Wu et al., arXiv 2103.15808).

    Each of `model.stages` is a model of its own, with its control, constraint and
    `Discretization`, and `model.stage_inputs(inputs)` gives what each of them is solved for:
    all that is done with a model can be done with a stage. `with_stage` puts one in the place
    of another.

    `with_solver`, `with_options` and `on` change all stages, but for an
    exit, which is the last one's. The control, constraint, discretization and equation are
    those of the last one, and so are the states of `solve`; its numbers of steps and
    evaluations are of all stages together, and a stage that fails is a solve that fails.

    **Arguments:**

    - `stages`: in their order.

    **Raises:** `InputError` for stages that cannot follow one another.
    """

    # `model.stages` of a configuration makes it.
    configurable: ClassVar[bool] = False

    stages: tuple[AbstractStage, ...]

    def __check_init__(self):
        if not self.stages:
            raise InputError("StagedModel: stages=() are none; give one or more.")
        for number, (stage, following) in enumerate(itertools.pairwise(self.stages)):
            try:
                stage.check_before(following)
            except InputError as error:
                raise InputError(f"StagedModel: stage {number}: {error}") from None

    def __repr__(self) -> str:
        lines = {"parameters": number_of_weights(self)}
        for number, stage in enumerate(self.stages):
            kinds = [type(x).__name__ for x in parts(stage.control, AbstractOperator)]
            lines[f"stage {number}"] = "; ".join(
                (
                    f"{type(stage).__name__}, {number_of_weights(stage)} parameters",
                    f"{stage.features} features",
                    contents(stage.control, stage.constraint)["control"],
                    ", ".join(kinds),
                    spelled_options(stage.discretization),
                )
            )
        return listing(self, lines)

    @property
    def last(self) -> AbstractStage:
        """The stage that reads the outputs out."""
        return self.stages[-1]

    @property
    def control(self) -> AbstractControl:
        return self.last.control

    @property
    def constraint(self) -> AbstractControl:
        return self.last.constraint

    @property
    def discretization(self) -> Discretization:
        return self.last.discretization

    @property
    def features(self) -> int:
        return self.last.features

    @property
    def domain(self) -> TokenDomain:
        return self.last.domain

    @property
    def random(self) -> bool:
        return any(stage.random for stage in self.stages)

    def each_stage(self, change: Callable[[Model], Model]) -> "StagedModel":
        changed: Any = tuple(stage.each_stage(change) for stage in self.stages)
        return StagedModel(changed)

    def with_stage(self, number: int, stage: AbstractStage) -> "StagedModel":
        """Exchange the stage in a place, the first of which is 0.

        **Raises:** `InputError` where there is no such place, or the stage does not fit there.
        """
        if not 0 <= number < len(self.stages):
            raise InputError(
                f"StagedModel.with_stage({number}): the stages are 0 to {len(self.stages) - 1}."
            )
        return StagedModel((*self.stages[:number], stage, *self.stages[number + 1 :]))

    def with_options(self, **options) -> "StagedModel":
        of_others = {name: x for name, x in options.items() if name != "exit"}
        others = [stage.with_options(**of_others) for stage in self.stages[:-1]]
        changed: Any = (*others, self.last.with_options(**options))
        return StagedModel(changed)

    def stage_inputs(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree[ArrayLike], ...]:
        """For each stage its inputs, as they are when the model is called with these."""
        return self._before_last(inputs, split_key(key, len(self.stages)))[0]

    def embed(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        return self.last.embed(self.stage_inputs(inputs, key=key)[-1])

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> PyTree[Array]:
        return self.last.read_out(u)

    def solve(
        self,
        inputs: PyTree[ArrayLike],
        *,
        key: PRNGKeyArray | None = None,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ) -> Solution:
        keys = split_key(key, len(self.stages))
        given, solutions = self._before_last(inputs, keys)
        solution = self.last.solve(given[-1], key=keys[-1], saveat=saveat)
        for earlier in reversed(solutions):
            solution = after(earlier, solution)
        return solution

    def _before_last(
        self, inputs: PyTree[ArrayLike], keys: list[PRNGKeyArray | None]
    ) -> tuple[tuple[PyTree[ArrayLike], ...], list[Solution]]:
        """The inputs of all stages, and the solutions of all but the last."""
        given, solutions = [inputs], []
        for stage, key in zip(self.stages[:-1], keys, strict=False):
            solution = stage.solve(given[-1], key=key)
            _, domain = stage.embed(given[-1])
            given.append(stage.pass_on(solution.u1, domain))
            solutions.append(solution)
        return tuple(given), solutions
