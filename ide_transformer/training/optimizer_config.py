"""The section `optimizer` of a configuration."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from .choice import Section, in_single_precision
from .types import CountOrZero, Fraction


# Of the optional keys of an optimizer, those that each kind and each schedule uses.
_OF_KIND = {"adamw": set(), "lion": set(), "muon": {"momentum"}, "schedule_free": set()}
_OF_SCHEDULE = {
    "cosine": {"final_learning_rate"},
    "constant": set(),
    "warmup_stable_decay": {"final_learning_rate", "decay"},
}
Factor = Annotated[NonNegativeFloat, AfterValidator(in_single_precision)]


class OptimizerConfig(Section):
    """`optimizer`: the update rule, and the learning rate over the steps. Each kind and each
    schedule refuses the keys that it does not use."""

    # The optimizer. lion takes the sign of a mean of gradients; its rate is best 3 to 10 times
    # lower than that of adamw, and its decay as much higher. muon makes the update of each
    # matrix of the operators orthogonal, and gives the rest to adamw, at the same rate.
    # schedule_free is adamw that evaluates a mean of its weights, at a constant rate.
    kind: Literal["adamw", "lion", "muon", "schedule_free"] = "adamw"
    # The largest rate, after the warm-up.
    learning_rate: PositiveFloat = 1e-3
    # After the warm-up: cosine falls from the first step on, constant stays, and
    # warmup_stable_decay stays and falls linearly at the end.
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    # The rate at the last step; default: a tenth of the largest.
    final_learning_rate: NonNegativeFloat | None = None
    # Steps in which the rate grows from 0.
    warmup: CountOrZero = 100
    # The part of all steps in which the rate of warmup_stable_decay falls; default: 0.2.
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    # Factors of the rate, by weights: {"control": 0.5, "control.*.value": 2}. A name is the
    # path of a weight or of a part of the model, where * stands for any characters; where
    # several fit, the last one counts. A factor of 0 keeps the weights as they are.
    groups: dict[str, Factor] = Field(default={})
    # Decay of the mean of gradients; of schedule_free, the share of the mean of the weights in
    # those at which it takes the gradient.
    beta1: Fraction = 0.9
    # Decay of the mean of their squares; of lion, of the mean of gradients that it keeps.
    beta2: Fraction = 0.99
    # Decay of the mean of gradients that muon makes orthogonal; default: 0.95.
    momentum: Fraction | None = None
    # Of matrices and embeddings; vectors (gains, biases) are not decayed.
    weight_decay: NonNegativeFloat = 0.1
    # The largest norm of a gradient.
    clip: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _used(self):
        for key, uses in (("kind", _OF_KIND), ("schedule", _OF_SCHEDULE)):
            chosen = getattr(self, key)
            for name in sorted(set().union(*uses.values()) - uses[chosen]):
                if getattr(self, name) != type(self).model_fields[name].default:
                    users = " or ".join(other for other, used in uses.items() if name in used)
                    raise ValueError(
                        f"optimizer.{key}={chosen} does not use optimizer.{name}; drop it, or "
                        f"write optimizer.{key}={users}"
                    )
        return self

    @model_validator(mode="after")
    def _averages(self):
        if self.kind != "schedule_free":
            return self
        if self.schedule != "constant":
            raise ValueError(
                f"optimizer.schedule={self.schedule}: optimizer.kind=schedule_free averages "
                "weights in place of it; write optimizer.schedule=constant"
            )
        if not self.beta1:
            raise ValueError(
                "optimizer.beta1=0: optimizer.kind=schedule_free finds its mean by dividing "
                "by it; write for example optimizer.beta1=0.9"
            )
        return self

    @model_validator(mode="after")
    def _falls(self):
        if self.lowest_rate > self.learning_rate:
            raise ValueError(
                f"optimizer.final_learning_rate={self.final_learning_rate} is above "
                f"optimizer.learning_rate={self.learning_rate}, the largest rate; lower it"
            )
        return self

    @property
    def lowest_rate(self) -> float:
        """The rate at the last step of a schedule that falls."""
        given = self.final_learning_rate
        return self.learning_rate / 10 if given is None else given

    def decaying_steps(self, steps: int) -> int:
        """The number of last steps in which the rate of warmup_stable_decay falls; 0 for other
        schedules."""
        if self.schedule != "warmup_stable_decay":
            return 0
        return max(round((0.2 if self.decay is None else self.decay) * steps), 1)
