# %% [markdown]
# # Solve an equation and see its order
#
# At the end you have four Transformer layers as a differential equation, and a figure of the
# error of three schemes that solve it.
#
# ## The equation
#
# The state $u(x, y, t)$ depends on tokens $x$, features $y$ and depth $t$:
#
# ```math
# u_t = A_1(u;\, \theta(t)) + A_2(u;\, \theta(t)), \qquad u(x, y, 0) = f(x, y).
# ```
#
# $A_1$ is attention and $A_2$ the feed-forward. Each maps a state `u` of shape
# `[..., tokens, features]` to its rate of change. `PiecewiseConstant` holds a block for each
# layer: block l acts from depth l to l + 1.

# %%
import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ide_transformer as ide


# In float32 rounding would hide the orders.
jax.config.update("jax_enable_x64", True)

FEATURES, TOKENS, LAYERS = 32, 16, 4


def make_block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    return (
        ide.Attention(FEATURES, heads=4, causal=True, normalization=norm, std=0.2, key=first),
        ide.FeedForward(FEATURES, normalization=norm, std=0.2, key=second),
    )


equation = ide.Equation(
    ide.PiecewiseConstant.build(make_block, LAYERS, key=jax.random.key(0)),
    constraint=ide.Free(),
    domain=ide.TokenDomain.uniform(TOKENS),
)
u0 = jax.random.normal(jax.random.key(1), (TOKENS, FEATURES))

# %% [markdown]
# ## One step per layer
#
# `LieTrotter(Euler())` applies the operators one after the other, each with a step of Euler's
# method. One step per layer is the ordinary pre-norm Transformer.

# %%
solution = ide.solve(equation, u0, solver=ide.LieTrotter(diffrax.Euler()))
print("state at depth 4:", solution.u1.shape)
print("steps:", int(solution.stats["steps"]))
print("field evaluations:", int(solution.stats["field_evaluations"]))

# %% [markdown]
# A loop over the layers gives the same state:

# %%
u = u0
for layer in range(LAYERS):
    attention, feed_forward = equation.control(layer)
    u = u + attention(u, equation.domain)
    u = u + feed_forward(u, equation.domain)

print("largest difference:", float(jnp.max(jnp.abs(u - solution.u1))))

# %% [markdown]
# ## Shorter steps
#
# A scheme has order $p$ if its error falls like $h^p$ with the step length $h$: a line of slope
# $p$ on logarithmic axes. A scheme of order 8 with short steps stands in for the exact
# solution.

# %%
reference = ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=32).u1
schemes = {
    "LieTrotter(Euler())": ide.LieTrotter(diffrax.Euler()),
    "Strang(Heun())": ide.Strang(diffrax.Heun()),
    "RK4()": ide.RK4(),
}
steps = np.array([4, 8, 16, 32, 64])


def relative_error(solver, number):
    u1 = ide.solve(equation, u0, solver=solver, steps_per_interval=int(number)).u1
    return float(jnp.linalg.norm(u1 - reference) / jnp.linalg.norm(reference))


errors = {
    name: np.array([relative_error(solver, number) for number in steps])
    for name, solver in schemes.items()
}
print(f"{'steps per layer':22}" + "".join(f"{number:>10}" for number in steps) + "     order")
orders = {}
for name, values in errors.items():
    orders[name] = -np.polyfit(np.log(steps[-3:]), np.log(values[-3:]), 1)[0]
    print(f"{name:22}" + "".join(f"{x:10.1e}" for x in values) + f"{orders[name]:10.2f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
h = 1 / steps
for (name, values), color in zip(
    errors.items(), ("#0072B2", "#D55E00", "#009E73"), strict=True
):
    axes.loglog(h, values, marker="o", color=color)
    place = dict(xytext=(9, 0), textcoords="offset points", va="center", color=color)
    axes.annotate(f"{name}\nslope {orders[name]:.2f}", (h[0], values[0]), **place)
axes.set(
    title="Every scheme converges at its order",
    xlabel="step length h (layers)",
    ylabel="relative error at depth 4",
    xlim=(0.013, 1.6),
    ylim=(3e-9, 1),
)
axes.set_xticks(h, [f"1/{number}" for number in steps])
axes.set_xticks([], minor=True)
axes.grid(alpha=0.3)

# %% [markdown]
# Each slope is the order that theory gives. A splitting has the lower of two orders: its own,
# and the order of the scheme inside. Lie–Trotter and Euler have order 1. Strang and Heun have
# order 2. RK4 has order 4.
#
# A step of RK4 costs four field evaluations, and a step of Lie–Trotter with Euler costs one. At
# equal cost RK4 still has a much smaller error. This does not carry over to trained models,
# whose weights have learned the scheme and the step of their training. The [next
# tutorial](train.py) trains some.
