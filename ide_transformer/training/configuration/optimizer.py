"""The section `optimizer`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat

from .section import Count, CountAsKey, CountOrZero, Fraction, Section, in_single_precision


# Of the optional keys of an optimizer, those that each kind and each schedule uses.
_OF_KIND = {"adamw": set(), "lion": set(), "muon": {"momentum"}, "schedule_free": set()}
_OF_SCHEDULE = {
    "cosine": {"final_learning_rate", "restarts"},
    "constant": set(),
    "warmup_stable_decay": {"final_learning_rate", "decay"},
}
Factor = Annotated[NonNegativeFloat, AfterValidator(in_single_precision)]


class OptimizerConfig(Section):
    """`optimizer`: the update rule and the learning rate. Each kind and each schedule rejects
    the keys that it does not use."""

    # lion: sign of a mean of gradients; its best rate is 3 to 10 times lower than adamw's, its
    # decay as much higher. muon: orthogonal updates of the operators' matrices, adamw for the
    # rest, at one rate. schedule_free: adamw that evaluates a mean of its weights, at a
    # constant rate.
    kind: Literal["adamw", "lion", "muon", "schedule_free"] = "adamw"
    # Largest rate, after the warm-up.
    learning_rate: PositiveFloat = 1e-3
    # After the warm-up: cosine falls from the first step, constant stays, warmup_stable_decay
    # (default with layers in training.schedule) falls linearly at the end.
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    # Rate of the step after the last one. Default: a tenth of the largest; for
    # warmup_stable_decay 0.
    final_learning_rate: NonNegativeFloat | None = None
    # Steps in which the rate grows from 0.
    warmup: CountOrZero = 100
    # Fraction of the steps in which warmup_stable_decay falls. Default: 0.3.
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    # Of a run made longer with --restart: steps after which another cosine begins at the rate
    # reached and falls by the same factor, each with training.steps until then: {1000: 1000}.
    restarts: dict[CountAsKey, Count] = Field(default={})
    # Factors of the rate by the path of a weight or part: {"control": 0.5, "control.*.value":
    # 2}. * is any text; the last match counts; 0 freezes.
    groups: dict[str, Factor] = Field(default={})
    # Decay of the mean of gradients; for schedule_free, the share of averaged weights where it
    # takes the gradient.
    beta1: Fraction = 0.9
    # Decay of the mean of squared gradients; for lion, of its mean of gradients.
    beta2: Fraction = 0.99
    # Decay of the mean of gradients that muon makes orthogonal. Default: 0.95.
    momentum: Fraction | None = None
    # Decay of matrices and embeddings; not of gains, biases and the network of a hypernetwork.
    weight_decay: NonNegativeFloat = 0.1
    # Largest norm of a gradient.
    clip: PositiveFloat = 1.0

    def problems(self) -> Mapping[str, Any]:
        begins = [self.warmup, *self.restarts]
        averages = self.kind == "schedule_free"
        return {
            **self._unused("kind", _OF_KIND),
            **self._unused("schedule", _OF_SCHEDULE),
            f"optimizer.restarts={self.restarts}: the steps must increase, the first be after "
            f"optimizer.warmup={self.warmup}, and none be after the end beside it; write for "
            "example {1000: 1000}": begins != sorted(set(begins))
            or any(x > end for x, end in self.restarts.items()),
            f"optimizer.schedule={self.schedule}: optimizer.kind=schedule_free averages "
            "weights in place of it; write optimizer.schedule=constant": averages
            and self.schedule != "constant",
            "optimizer.beta1=0: optimizer.kind=schedule_free finds its mean by dividing by it; "
            "write for example optimizer.beta1=0.9": averages and not self.beta1,
            f"optimizer.final_learning_rate={self.final_learning_rate} is above "
            f"optimizer.learning_rate={self.learning_rate}, the largest rate; lower it": (
                self.lowest_rate > self.learning_rate
            ),
        }

    def _unused(self, key: str, uses: Mapping[str, set[str]]) -> dict[str, bool]:
        """The optional keys that the chosen kind or schedule does not use."""
        chosen = getattr(self, key)
        fields = type(self).model_fields
        found = {}
        for name in sorted(set().union(*uses.values()) - uses[chosen]):
            users = " or ".join(other for other, used in uses.items() if name in used)
            found[
                f"optimizer.{key}={chosen} does not use optimizer.{name}; drop it, or write "
                f"optimizer.{key}={users}"
            ] = getattr(self, name) != fields[name].default
        return found

    @property
    def lowest_rate(self) -> float:
        """The rate to which a schedule falls, that of a step after the last one."""
        if self.final_learning_rate is not None:
            return self.final_learning_rate
        return 0.0 if self.schedule == "warmup_stable_decay" else self.learning_rate / 10

    def decaying_steps(self, steps: int) -> int:
        """The number of last steps in which the rate of warmup_stable_decay falls; 0 for other
        schedules."""
        if self.schedule != "warmup_stable_decay":
            return 0
        return max(round((0.3 if self.decay is None else self.decay) * steps), 1)
