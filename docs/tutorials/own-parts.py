# %% [markdown]
# # Write your own operator, constraint, control and scheme
#
# At the end you have an operator, a constraint, a control and a scheme of your own, and a model
# trained with them from a YAML file. You need not register anything: a subclass works
# everywhere.

# %%
import sys
import types
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import ide_transformer as ide
from ide_transformer import testing, training


# %% [markdown]
# ## An operator
#
# An operator is one term of the right-hand side. Its arrays are weights, and `__call__` maps
# the state to its rate of change. This one pulls every feature towards zero.


# %%
class Pull(ide.AbstractOperator):
    """`u_t = -rate ⊙ u`."""

    rate: Array

    def __init__(self, features: int, *, rate: float = 0.1):
        self.rate = jnp.full(features, rate)

    def __call__(self, u, domain):
        return -jnp.broadcast_to(self.rate, u.shape) * u


# %% [markdown]
# An equation with this operator alone has a known solution: `u(T) = exp(-rate T) u(0)`.

# %%
domain = ide.TokenDomain.uniform(3)
u0 = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
equation = ide.Equation(ide.Tied((Pull(4),), layers=2), ide.Free(), domain)
u1 = ide.solve(equation, u0, solver=ide.RK4()).u1
print("error:", float(jnp.max(jnp.abs(u1 - jnp.exp(-0.2) * u0))))

# %% [markdown]
# `check_operator` tests [what every operator must do](../reference/api/testing.md):
# derivatives, batches, padding, the order of points, copies and more. Its error says what is
# wrong with this `Mean`:


# %%
class Mean(ide.AbstractOperator):
    """Meant to be `u_t = 1/|Ω_x| ∫ u dx' - u`."""

    def __call__(self, u, domain):
        return jnp.mean(u, axis=-2, keepdims=True) * jnp.ones_like(u) - u


testing.check_operator(Pull(4), 4)
try:
    testing.check_operator(Mean(), 4)
except AssertionError as error:
    print(error)

# %% [markdown]
# `domain.mean(u)[..., None, :]` is the integral that was meant: `mean` drops the axis of
# tokens, and points of padding have no weight in it.
#
# ## A constraint
#
# A constraint is a set on which the state is kept. It needs two methods: the projection of a
# state, and the tangential part of a rate. The distance of a state from the set follows from
# the projection. Here every feature stays between `-radius` and `radius`. The radius is an
# array, so it is learned too.


# %%
class Box(ide.AbstractConstraint):
    """`S = { u : |u| <= radius }`, feature by feature."""

    radius: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    def project(self, u):
        return jnp.clip(u, -self.radius, self.radius)

    def tangent(self, u, du):
        inwards = jnp.where(u > 0, jnp.minimum(du, 0), jnp.maximum(du, 0))
        at_end = jnp.where(jnp.abs(u) == self.radius, inwards, 0)
        return jnp.where(jnp.abs(u) < self.radius, du, at_end)


# %%
# A negative rate pushes away from zero, out of the box. `solve` keeps the state on the set.
push = ide.Equation(ide.Tied((Pull(4, rate=-2.0),), layers=2), Box(), domain)
solution = ide.solve(push, u0, solver=diffrax.Heun(), steps_per_interval=8)
print("largest feature:", float(jnp.max(jnp.abs(solution.u1))))
print("distance from the box:", float(solution.stats["constraint_residual"]))
testing.check_constraint(Box(), 4)

# %% [markdown]
# ## A control
#
# A control gives the weights at each depth. `AbstractExpansion` is the base class of weights
# that are a sum of functions of depth. You write only these functions. Here the weights go in a
# straight line from a first block to a last one, and `build` initialises them.


# %%
class Straight(ide.AbstractExpansion):
    """`θ(t) = (1 - t/T) θ_first + (t/T) θ_last`."""

    coefficients: PyTree
    layers: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    def basis(self, t):
        fraction = jnp.asarray(t) / self.horizon
        return jnp.stack([1 - fraction, fraction])

    @classmethod
    def build(cls, make_block, layers, *, key):
        first_and_last = eqx.filter_vmap(make_block)(jax.random.split(key, 2))
        return cls(first_and_last, layers)


# %%
first, last = (Pull(4, rate=0.0),), (Pull(4, rate=1.0),)
control = Straight(jax.tree.map(lambda *x: jnp.stack(x), first, last), layers=2)
for t in (0.0, 0.5, 2.0):
    print(f"rates at depth {t}:", control(t)[0].rate)
testing.check_control(control)

# %% [markdown]
# ## A scheme
#
# A scheme makes one step. In `advance`, `field(c, u)` is the increment `h F(t + c h, u)`, at
# the fraction c of the step. This is the third-order method of Shu and Osher (1988).


# %%
class ShuOsher(ide.AbstractOneStep):
    """Three evaluations a step, order 3."""

    def order(self, terms):
        return 3

    def advance(self, field, u):
        first = u + field(0, u)
        second = (3 * u + first + field(1, first)) / 4
        return (u + 2 * (second + field(1 / 2, second))) / 3


# %% [markdown]
# Halving the step must divide the error by about `2³ = 8`.

# %%
fast = ide.Equation(ide.Tied((Pull(4, rate=2.0),), layers=1), ide.Free(), domain)
exact = jnp.exp(-2.0) * u0
errors = []
for steps in (8, 16):
    u1 = ide.solve(fast, u0, solver=ShuOsher(), steps_per_interval=steps).u1
    errors.append(float(jnp.max(jnp.abs(u1 - exact))))
print(f"errors {errors[0]:.2e}, {errors[1]:.2e}, ratio {errors[0] / errors[1]:.1f}")

# %% [markdown]
# ## From YAML
#
# A configuration names a class as `module:Class`. So put the classes into a file, `mine.py`,
# and start the command in its folder. Here a module of that name stands in for the file.

# %%
mine = sys.modules["mine"] = types.ModuleType("mine")
for part in (Pull, Box, Straight, ShuOsher):
    setattr(mine, part.__name__, part)

# %% [markdown]
# Write a class wherever you could write a name. Its options go under `options`. Parameters that
# the configuration already has, such as the number of `features`, are filled in by name.

# %%
config_file = Path("own.yaml")
config_file.write_text("""
data:
  name: digits
model:
  kind: image_classifier
  width: 32
  heads: 2
  layers: 2
  std: 0.1
  operators:
    - attention
    - feed_forward
    - {kind: "mine:Pull", options: {rate: 0.05}}
  constraint: {kind: "mine:Box", options: {radius: 0.5}}
control:
  kind: "mine:Straight"
solver:
  kind: "mine:ShuOsher"
optimizer:
  learning_rate: 5.0e-3
  warmup: 10
training:
  steps: 200
  batch_size: 32
""")
config = training.load_config(config_file)
run = ide.train(config)
print(run.summary.read_text())

# %% [markdown]
# In a terminal the same is `ide-transformer train own.yaml`, started in the folder of
# `mine.py`. A run may come from somebody else, so its classes are imported only if you say that
# you trust it. Each operator has a box of its own; a scheme without a splitting uses the last
# one.

# %%
model, _ = ide.load_run(run.path, trust=True)
print("scheme:", model.solver)
for t in (0.0, 2.0):
    print(f"learned radius at depth {t}: {model.constraint(t)[-1].radius:.3f}")

# %% [markdown]
# [Own data](../how-to/own-data.md) shows how to write a data set as a class.
